import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { Gate } from '#lib/gate.ts'

const refusal = (): Error => new Error('busy')

test('at most so many run at once, and the others follow in their order', async () => {
  const gate = new Gate(2)
  const ends: (() => void)[] = []
  const begun: number[] = []
  const work = (name: number) => () =>
    new Promise<void>((resolve) => {
      begun.push(name)
      ends.push(resolve)
    })
  const all = [1, 2, 3, 4].map((name) => gate.run(work(name), 60_000, refusal))
  assert.deepEqual(begun, [1, 2])
  ends[1]!()
  await all[1]
  await setImmediate()
  assert.deepEqual(begun, [1, 2, 3])
  ends[0]!()
  await all[0]
  await setImmediate()
  for (const end of ends) end()
  await all[2]
  await setImmediate()
  for (const end of ends) end()
  await Promise.all(all)
  assert.deepEqual(begun, [1, 2, 3, 4])
})

test('one that waits too long is refused, and a failure gives its place back', async () => {
  const gate = new Gate(1)
  const { promise, resolve } = Promise.withResolvers<void>()
  const first = gate.run(() => promise, 60_000, refusal)
  await assert.rejects(
    gate.run(async () => 1, 10, refusal),
    /busy/,
  )
  resolve()
  await first
  const failing = gate.run(async () => Promise.reject(new Error('failed')), 10, refusal)
  await assert.rejects(failing, /failed/)
  assert.equal(await gate.run(async () => 2, 10, refusal), 2)
})
