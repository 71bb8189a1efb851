import type { Clock } from '#lib/clock.ts'
import { MediaBusyError } from '#media/errors.ts'

export type WorkLimits = {
  /** How many run at once. */
  readonly runningMax: number
  /** How many more may wait; the next is refused at once. */
  readonly waitingMax: number
  /** How long one may wait before it is refused. */
  readonly waitMs: number
}

type Waiter = { readonly start: () => void; readonly timer: NodeJS.Timeout }

/**
 * At most so many at once, a bounded line behind them, and a deadline for each in the line: first
 * come, first served.
 */
export class WorkQueue {
  readonly #limits: WorkLimits
  readonly #clock: Clock
  readonly #waiting = new Set<Waiter>()
  #running = 0
  /** Moving average of what one takes, for an honest Retry-After. */
  #typicalMs = 1_000

  constructor(limits: WorkLimits, clock: Clock) {
    this.#limits = limits
    this.#clock = clock
  }

  /**
   * Runs `work` when it is its turn. Throws `MediaBusyError` when the line is full or the wait too
   * long.
   */
  async run<T>(work: () => Promise<T>): Promise<T> {
    await this.#turn()
    const started = this.#clock.monotonicMs()
    try {
      return await work()
    } finally {
      this.#typicalMs = this.#typicalMs * 0.8 + (this.#clock.monotonicMs() - started) * 0.2
      this.#running -= 1
      const [next] = this.#waiting
      if (next !== undefined) {
        this.#waiting.delete(next)
        clearTimeout(next.timer)
        next.start()
      }
    }
  }

  async #turn(): Promise<void> {
    if (this.#running < this.#limits.runningMax) {
      this.#running += 1
      return
    }
    if (this.#waiting.size >= this.#limits.waitingMax) throw this.#busy()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter: Waiter = {
      start: () => {
        this.#running += 1
        resolve()
      },
      timer: setTimeout(() => {
        this.#waiting.delete(waiter)
        reject(this.#busy())
      }, this.#limits.waitMs),
    }
    this.#waiting.add(waiter)
    await promise
  }

  #busy(): MediaBusyError {
    const ms = (this.#typicalMs * (this.#waiting.size + 1)) / this.#limits.runningMax
    return new MediaBusyError(
      'More images are asked for than can be made in time; ask again later.',
      Math.min(60, Math.max(1, Math.ceil(ms / 1_000))),
    )
  }
}
