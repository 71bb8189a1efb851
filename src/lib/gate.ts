import { timedOut, withTimeout } from '#lib/timeout.ts'

/** At most so many pieces of work at once; the others wait in the order in which they came. */
export class Gate {
  readonly #runningMax: number
  readonly #waiting: (() => void)[] = []
  #running = 0

  constructor(runningMax: number) {
    this.#runningMax = runningMax
  }

  /** Throws what `refusal` makes when no place is free within `waitMs`. */
  async run<T>(work: () => Promise<T>, waitMs: number, refusal: () => Error): Promise<T> {
    if (this.#running < this.#runningMax) this.#running += 1
    else await this.#wait(waitMs, refusal)
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      // The place goes to the next one, so nothing that comes later can take it.
      if (next === undefined) this.#running -= 1
      else next()
    }
  }

  async #wait(waitMs: number, refusal: () => Error): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.push(resolve)
    if ((await withTimeout(promise, waitMs)) !== timedOut) return
    const at = this.#waiting.indexOf(resolve)
    if (at < 0) return
    this.#waiting.splice(at, 1)
    throw refusal()
  }
}
