import type { PlacedFileStore } from '#file-store/placed-file-store.ts'
import { FailureLog } from '#lib/failure-log.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { Ticker } from '#lib/ticker.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

const intervalMs = 10_000
/** While the store is down, it is looked at more often. */
const intervalDownMs = 1_000
const timeoutMs = 2_000

export type FileStoreState = {
  readonly state: 'up' | 'down'
  /** The place of the files, without secrets, and the one to which they move. */
  readonly address: string
  /** The reason why it is down; null: it is up. */
  readonly problem: string | null
}

/** Looks now and then whether the files of this node are there, for health and status. */
export class FileStoreWatch implements AsyncDisposable {
  readonly #store: PlacedFileStore
  readonly #failureLog: FailureLog
  readonly #ticker: Ticker
  #problem: string | null = null

  constructor(store: PlacedFileStore, nodeLogger: Logger) {
    const logger = nodeLogger.child({ part: 'file-store' })
    this.#store = store
    this.#failureLog = new FailureLog(logger, {
      failing: 'the file store is down: uploads, and files that are not in memory, are refused',
      recovered: 'the file store is up again',
    })
    this.#ticker = new Ticker({ name: 'file-store', intervalMs, logger, work: () => this.look() })
  }

  get now(): FileStoreState {
    const { home, target } = this.#store.stores
    const moving = target === null ? '' : `, moving to ${target.identity.place}`
    return {
      state: this.#problem === null ? 'up' : 'down',
      address: `${home.identity.place}${moving}`,
      problem: this.#problem,
    }
  }

  run(): void {
    this.#ticker.run()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ticker.stop()
  }

  /** Returns how soon to look again. */
  async look(): Promise<number> {
    try {
      this.#problem = await this.#findProblem()
    } catch (error) {
      if (!(error instanceof StoaError)) throw error
      this.#problem = error.message.replace(/\.$/, '')
    }
    if (this.#problem === null) this.#failureLog.success()
    else this.#failureLog.failure(new Error(this.#problem))
    return this.#problem === null ? intervalMs : intervalDownMs
  }

  async #findProblem(): Promise<string | null> {
    // Without the database the node goes on with the place that it knows.
    await withTimeout(this.#store.refresh().catch(isExpected), timeoutMs)
    const found = await withTimeout(this.#store.stores.home.identity.read(), timeoutMs)
    if (found === timedOut) return `no response within ${timeoutMs} ms`
    if (found === this.#store.homeIdentity) return null
    return found === null
      ? 'it is empty: its file system is not mounted, or the bucket is another'
      : 'it is another file store than that of this site'
  }
}

function isExpected(error: unknown): void {
  if (!(error instanceof StoaError)) throw error
}
