import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fullBucket, planOf, refilled, waitMs } from '#http-cache/budget.ts'
import type { Pending } from '#http-cache/budget.ts'
import type { EdgeLimits } from '#http-cache/http-cache.ts'
import { allTag } from '#http-cache/tags.ts'

const limits: EdgeLimits = {
  tagsPerCall: 100,
  callsPerS: 0.5,
  burst: 5,
  repeatsMs: [],
  soft: true,
}

function pending(fine: number, coarse: number, options: Partial<Pending> = {}): Pending {
  const tags = (count: number, name: string): string[] =>
    Array.from({ length: count }, (_, at) => `${name}${at}`)
  return {
    fine: tags(fine, 'fine'),
    wide: ['wide'],
    coarse: tags(coarse, 'coarse'),
    hard: false,
    epoch: 'e.1.1',
    count: 7,
    ...options,
  }
}

test('fine tags as long as they go in ten seconds, then coarse ones, then all', () => {
  const bucket = fullBucket(limits, 0)
  const level = (one: Pending): string => planOf([one], bucket, limits).level
  assert.equal(level(pending(999, 1)), 'fine', '10 calls: 5 at once and 5 in 10 s')
  assert.equal(level(pending(1_000, 1)), 'coarse')
  const all = planOf([pending(50_000, 5_000)], bucket, limits)
  assert.equal(all.level, 'all')
  assert.deepEqual(all.calls, [
    { tags: [allTag], coarse: [allTag], hard: false, epoch: 'e.1.1', count: 7 },
  ])
})

test('hard and soft go apart, and a tag once; where there is no soft all are hard', () => {
  const both = [pending(2, 1), pending(1, 1, { hard: true, count: 8 })]
  const { calls } = planOf(both, fullBucket(limits, 0), limits)
  assert.deepEqual(
    calls.map(({ tags, hard, count }) => ({ tags, hard, count })),
    [
      { tags: ['fine0', 'wide'], hard: true, count: 8 },
      { tags: ['fine1'], hard: false, count: 8 },
    ],
  )
  const hard = planOf(both, fullBucket(limits, 0), { ...limits, soft: false })
  assert.deepEqual(
    hard.calls.map((call) => call.hard),
    [true],
  )
})

test('the tag of all stands for every other', () => {
  const one = pending(500, 1, { fine: ['x', allTag], coarse: [allTag] })
  const { calls } = planOf([one], fullBucket(limits, 0), limits)
  assert.deepEqual(
    calls.map(({ tags }) => tags),
    [[allTag]],
  )
  assert.deepEqual(planOf([], fullBucket(limits, 0), limits).calls, [])
})

test('a bucket refills to its burst, and says how long calls take', () => {
  const empty = { calls: 0, atMs: 1_000 }
  assert.equal(refilled(empty, limits, 3_000).calls, 1)
  assert.equal(refilled(empty, limits, 60_000).calls, 5)
  assert.equal(refilled(empty, limits, 0).calls, 0, 'a clock that went back gives nothing')
  assert.equal(waitMs(3, empty, limits), 6_000)
  assert.equal(waitMs(5, fullBucket(limits, 0), limits), 0)
})
