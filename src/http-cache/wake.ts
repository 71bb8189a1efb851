/** Wakes a loop that waits. A wake-up that comes while nothing waits is kept. */
export class Wake {
  #waiting: (() => void) | null = null
  #woken = false

  wake(): void {
    this.#woken = true
    this.#waiting?.()
  }

  /** Resolves after a wake-up since the last one, after `ms`, or when `signal` aborts. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.#woken && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting = resolve
      const timer = setTimeout(resolve, ms)
      const abort = (): void => resolve()
      signal.addEventListener('abort', abort)
      await promise
      signal.removeEventListener('abort', abort)
      clearTimeout(timer)
      this.#waiting = null
    }
    this.#woken = false
  }
}
