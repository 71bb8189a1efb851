import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { timedOut, withTimeout } from '#lib/timeout.ts'

const never = new Promise<never>(() => undefined)

test('work that ends in time keeps its result or its error', async () => {
  assert.equal(await withTimeout(sleep(1, 'done'), 5_000), 'done')
  await assert.rejects(withTimeout(Promise.reject(new Error('no')), 5_000), { message: 'no' })
})

test('work that takes too long is timed out, and its late error is dropped', async () => {
  assert.equal(await withTimeout(never, 1), timedOut)
  const failing = sleep(20).then(() => Promise.reject(new Error('dropped')))
  assert.equal(await withTimeout(failing, 1), timedOut)
  await sleep(40)
})

test('a signal times the work out at once, also one that was aborted before', async () => {
  const stop = new AbortController()
  const waiting = withTimeout(never, 600_000, stop.signal)
  stop.abort()
  assert.equal(await waiting, timedOut)
  assert.equal(await withTimeout(never, 600_000, stop.signal), timedOut)
})
