import assert from 'node:assert/strict'
import { test } from 'node:test'
import { backoffMs } from '#lib/backoff.ts'

const pause = { firstMs: 10, maxMs: 1_000 }

test('the pause doubles with each failure, up to the longest', () => {
  const pauses = [-1, 0, 1, 2, 6, 7, 2_000].map((attempt) => backoffMs(attempt, pause))
  assert.deepEqual(pauses, [10, 10, 20, 40, 640, 1_000, 1_000])
})

test('jitter takes a random part of its share away', () => {
  const jittered = (random: number): number =>
    backoffMs(2, { ...pause, jitter: 0.5, random: () => random })
  assert.deepEqual([0, 0.5, 1].map(jittered), [40, 30, 20])
})
