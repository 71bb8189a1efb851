import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { late, within } from '#lib/timeout.ts'

const never = new Promise<never>(() => undefined)

test('work that is in time gives what it comes to', async () => {
  assert.equal(await within(sleep(1, 'done'), { ms: 5_000 }), 'done')
  await assert.rejects(within(Promise.reject(new Error('no')), { ms: 5_000 }), { message: 'no' })
})

test('work that takes too long is late, and what comes of it then is dropped', async () => {
  assert.equal(await within(never, { ms: 1 }), late)
  const failing = sleep(20).then(() => Promise.reject(new Error('nobody is told')))
  assert.equal(await within(failing, { ms: 1 }), late)
  await sleep(40)
})

test('a signal makes late at once, also one that has aborted before', async () => {
  const stop = new AbortController()
  const waiting = within(never, { ms: 600_000, signal: stop.signal })
  stop.abort()
  assert.equal(await waiting, late)
  assert.equal(await within(never, { ms: 600_000, signal: stop.signal }), late)
})
