import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { systemClock } from '#lib/clock.ts'
import type { Clock } from '#lib/clock.ts'
import type { ClockReading } from '#nodes/nodes.ts'

const read = sql<{ ms: string }>(
  `select (extract(epoch from clock_timestamp()) * 1000)::bigint as ms`,
)

/**
 * The wall clock of the database, which all nodes share: times that decide (sessions, schedules,
 * what is old enough to be deleted) come from it, however wrong the clock of this machine is.
 * Between two readings it goes on with the monotonic clock, so a jump of the machine's own clock
 * does not touch it.
 */
export class DatabaseClock implements Clock {
  readonly #base: Clock
  #offsetMs: number

  constructor(reading: ClockReading, base: Clock = systemClock) {
    this.#base = base
    this.#offsetMs = offsetOf(reading)
  }

  /** A clock that was read once; `observe` keeps it right. Errors: those of the database. */
  static async read(database: Queryable, base: Clock = systemClock): Promise<DatabaseClock> {
    const startedAtMs = base.monotonicMs()
    const [row] = await database.run(read)
    const tookMs = base.monotonicMs() - startedAtMs
    return new DatabaseClock({ databaseMs: Number(row!.ms), startedAtMs, tookMs }, base)
  }

  /** Follows another reading where it differs by more than that one could be wrong. */
  observe(reading: ClockReading): void {
    const offsetMs = offsetOf(reading)
    if (Math.abs(offsetMs - this.#offsetMs) > reading.tookMs / 2 + 1) this.#offsetMs = offsetMs
  }

  nowMs(): number {
    return Math.round(this.#base.monotonicMs() + this.#offsetMs)
  }

  monotonicMs(): number {
    return this.#base.monotonicMs()
  }
}

function offsetOf({ databaseMs, startedAtMs, tookMs }: ClockReading): number {
  return databaseMs - (startedAtMs + tookMs / 2)
}
