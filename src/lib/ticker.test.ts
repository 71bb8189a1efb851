import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLogger } from '#lib/logger.ts'
import { Ticker } from '#lib/ticker.ts'

test('a round that fails is logged, the next one comes, and stop waits for the one that runs', async () => {
  let rounds = 0
  let finished = 0
  const warnings: string[] = []
  const enough = Promise.withResolvers<void>()
  const ticker = new Ticker({
    name: 'test',
    intervalMs: 1,
    logger: { ...silentLogger, warn: (_facts, message) => void warnings.push(message) },
    work: async () => {
      rounds += 1
      if (rounds === 1) throw new Error('once')
      if (rounds === 3) enough.resolve()
      await new Promise((resolve) => setTimeout(resolve, 5))
      finished += 1
    },
  })
  ticker.run()
  ticker.run()
  await enough.promise
  await ticker.stop()
  assert.equal(warnings.length, 1)
  assert.equal(finished, rounds - 1)
  const after = rounds
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal(rounds, after)
})
