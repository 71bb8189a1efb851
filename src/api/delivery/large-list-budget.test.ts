import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LargeListBudget } from '#api/delivery/large-list-budget.ts'
import { ServerBusyError } from '#api/problems/errors.ts'
import { systemClock } from '#lib/clock.ts'

const limits = { burstBytes: 1_000, bytesPerS: 10_000, waitMsMax: 200 }

test('a caller who asks for long lists without end waits, then is refused', async () => {
  const budget = new LargeListBudget(systemClock, limits)
  let made = 0
  const ask = (caller: string): Promise<void> =>
    budget.run(caller, async (report) => {
      made += 1
      report(1_000)
    })
  const startMs = performance.now()
  await ask('a')
  const asked = await Promise.allSettled(Array.from({ length: 20 }, () => ask('a')))
  const refused = asked.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[]
  assert.ok(refused.length > 10, 'most are refused')
  for (const { reason } of refused) assert.ok(reason instanceof ServerBusyError)
  assert.equal(made, 21 - refused.length)
  const seconds = (performance.now() - startMs) / 1_000
  assert.ok(seconds > 0.05, 'some have waited')
  assert.ok(made * 1_000 <= 3_000 + seconds * 10_000, 'the share is kept')
  const otherMs = performance.now()
  await ask('b')
  assert.ok(performance.now() - otherMs < 50, 'another caller does not wait')
})

test('what was not made is not counted', async () => {
  const budget = new LargeListBudget(systemClock, limits)
  await budget.run('a', async (report) => report(900))
  const startMs = performance.now()
  for (let count = 0; count < 50; count += 1) await budget.run('a', async () => undefined)
  assert.ok(performance.now() - startMs < 1_000)
})
