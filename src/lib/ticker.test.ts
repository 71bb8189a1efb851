import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLogger } from '#lib/logger.ts'
import { Ticker } from '#lib/ticker.ts'

test('a failure is logged once, the next rounds come, and stop waits for the last', async () => {
  let rounds = 0
  let finished = 0
  const failing = 20
  const warnings: string[] = []
  const enough = Promise.withResolvers<void>()
  const ticker = new Ticker({
    name: 'test',
    intervalMs: 1,
    logger: { ...silentLogger, warn: (_facts, message) => void warnings.push(message) },
    work: async () => {
      rounds += 1
      if (rounds <= failing) throw new Error('as long as it fails')
      if (rounds === failing + 2) enough.resolve()
      await new Promise((resolve) => setTimeout(resolve, 5))
      finished += 1
    },
  })
  ticker.run()
  ticker.run()
  await enough.promise
  await ticker.stop()
  assert.equal(warnings.length, 1)
  assert.equal(finished, rounds - failing)
  const after = rounds
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal(rounds, after)
})
