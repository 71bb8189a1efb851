import type { Logger } from '#lib/logger.ts'
import { FailureLog } from '#lib/failure-log.ts'

/**
 * Repeats `work` with a pause of `intervalMs` in between, never twice at once. A round that fails
 * does not stop the next ones; the log has the first failure and the recovery. `stop()` waits for
 * the round that runs.
 */
export class Ticker {
  readonly #name: string
  readonly #intervalMs: number
  readonly #work: () => Promise<number | void>
  readonly #failureLog: FailureLog
  readonly #stopping = new AbortController()
  #running: Promise<void> | null = null

  constructor(options: {
    readonly name: string
    readonly intervalMs: number
    readonly logger: Logger
    /** May return how soon the next round is to come, in milliseconds, if sooner. */
    readonly work: () => Promise<number | void>
  }) {
    this.#name = options.name
    this.#intervalMs = options.intervalMs
    this.#work = options.work
    this.#failureLog = new FailureLog(options.logger, {
      failing: 'a round of background work failed; it will be tried again',
      recovered: 'background work recovered',
    })
  }

  run(): void {
    this.#running ??= this.#rounds()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  async #rounds(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      let restMs = this.#intervalMs
      try {
        restMs = Math.min(restMs, (await this.#work()) ?? restMs)
        this.#failureLog.success()
      } catch (error) {
        this.#failureLog.failure(error, { work: this.#name })
      }
      await rest(restMs, signal)
    }
  }
}

async function rest(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) => {
    const timer = setTimeout(done, ms)
    function done(): void {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    signal.addEventListener('abort', done)
  })
}
