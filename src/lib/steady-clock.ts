import type { Clock } from '#lib/clock.ts'

/** The wall clock counts whole milliseconds: differences below this are not a jump. */
const jumpMs = 5

/**
 * A clock for leases: not slower than real time, as far as either clock of the machine shows.
 * The monotonic one stands still while a virtual machine is suspended; the wall clock may be set
 * back. This one follows the monotonic clock and adds whatever the wall clock gains on it. Running
 * ahead only costs an early renewal.
 */
export class SteadyClock {
  readonly #clock: Clock
  readonly #startMs: number
  #gainedMs = 0
  #offsetMs: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#startMs = clock.monotonicMs()
    this.#offsetMs = clock.nowMs() - this.#startMs
  }

  /** Milliseconds since it was made. Never goes back. */
  elapsedMs(): number {
    const monotonicMs = this.#clock.monotonicMs()
    const offsetMs = this.#clock.nowMs() - monotonicMs
    if (offsetMs > this.#offsetMs) {
      this.#gainedMs += offsetMs - this.#offsetMs
      this.#offsetMs = offsetMs
    } else if (offsetMs < this.#offsetMs - jumpMs) this.#offsetMs = offsetMs
    return monotonicMs - this.#startMs + this.#gainedMs
  }
}
