import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SteadyClock } from '#lib/steady-clock.ts'

function manual(): {
  wall: number
  monotonic: number
  nowMs: () => number
  monotonicMs: () => number
} {
  const clock = {
    wall: 1_000_000,
    monotonic: 50,
    nowMs: () => Math.floor(clock.wall),
    monotonicMs: () => clock.monotonic,
  }
  return clock
}

test('follows the monotonic clock, however often it is read', () => {
  const clock = manual()
  const steady = new SteadyClock(clock)
  for (let step = 0; step < 10_000; step += 1) {
    clock.wall += 0.1
    clock.monotonic += 0.1
    steady.elapsedMs()
  }
  assert.ok(Math.abs(steady.elapsedMs() - 1_000) <= 1.001, String(steady.elapsedMs()))
})

test('counts the time in which the machine was suspended', () => {
  const clock = manual()
  const steady = new SteadyClock(clock)
  clock.wall += 30_000
  assert.equal(steady.elapsedMs(), 30_000)
})

test('a wall clock that is set back takes nothing away; a later suspension counts', () => {
  const clock = manual()
  const steady = new SteadyClock(clock)
  clock.wall -= 3_600_000
  clock.monotonic += 10
  assert.equal(steady.elapsedMs(), 10)
  clock.wall += 5_000
  assert.equal(steady.elapsedMs(), 5_010)
})
