import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '#lib/clock.ts'
import { DatabaseClock } from '#node/database-clock.ts'

function machine(): Clock & { wallMs: number; elapsedMs: number } {
  const state = { wallMs: 0, elapsedMs: 100 }
  return Object.assign(state, { nowMs: () => state.wallMs, monotonicMs: () => state.elapsedMs })
}

test('it has the time of the database, whatever the clock of the machine does', () => {
  const base = machine()
  const clock = new DatabaseClock({ databaseMs: 1_000_000, startedAtMs: 98, tookMs: 4 }, base)
  assert.equal(clock.nowMs(), 1_000_000)
  base.wallMs += 86_400_000
  base.elapsedMs += 250
  assert.equal(clock.nowMs(), 1_000_250)
})

test('it follows readings that differ by more than they can be wrong, and no others', () => {
  const base = machine()
  const clock = new DatabaseClock({ databaseMs: 1_000_000, startedAtMs: 100, tookMs: 0 }, base)
  clock.observe({ databaseMs: 1_000_400, startedAtMs: 100, tookMs: 2_000 })
  assert.equal(clock.nowMs(), 1_000_000, 'a slow reading proves little')
  clock.observe({ databaseMs: 1_000_400, startedAtMs: 100, tookMs: 2 })
  assert.equal(clock.nowMs(), 1_000_399)
})
