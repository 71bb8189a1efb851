import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { FairTurns } from '#api/http/fair-turns.ts'

function setUp(): {
  readonly clock: { now: number }
  readonly begun: string[]
  readonly ask: (client: string, count: number) => void
} {
  const clock = { now: 1_000 }
  const turns = new FairTurns({ nowMs: () => clock.now, monotonicMs: () => clock.now })
  const begun: string[] = []
  const ask = (client: string, count: number): void => {
    for (let at = 0; at < count; at += 1) turns.run(client, () => begun.push(client))
  }
  return { clock, begun, ask }
}

test('a client with many requests has no more of a turn than one with few', async () => {
  const { begun, ask } = setUp()
  ask('many', 100)
  ask('few', 6)
  const shareOf = (client: string): number => begun.filter((one) => one === client).length
  assert.deepEqual([shareOf('many'), shareOf('few')], [4, 4])
  await turn()
  assert.deepEqual([shareOf('many'), shareOf('few')], [8, 6])
  ask('other', 1)
  assert.equal(begun.at(-1), 'other', 'one that asks for the first time does not wait')
  for (let at = 0; at < 30; at += 1) await turn()
  assert.deepEqual([shareOf('many'), shareOf('few'), shareOf('other')], [100, 6, 1])
})

test('a client that is alone waits for nothing, and again once others have gone', async () => {
  const { clock, begun, ask } = setUp()
  ask('one', 1)
  await turn()
  clock.now += 1_000
  ask('one', 1_000)
  assert.equal(begun.length, 1_001)
  ask('two', 1)
  ask('one', 10)
  assert.equal(begun.length, 1_006)
  for (let at = 0; at < 5; at += 1) await turn()
  assert.equal(begun.length, 1_012)
  clock.now += 1_000
  ask('one', 10)
  assert.equal(begun.length, 1_022)
})
