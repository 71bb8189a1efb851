import { QueryBusyError, QueryTooSlowError } from '#content/query/errors.ts'
import { DatabaseTimeoutError } from '#database/errors.ts'
import type { Clock } from '#lib/clock.ts'
import { FairQueue, QueueBusyError } from '#lib/fair-queue.ts'

/**
 * Costly queries that one node runs at once, half of them of one caller: the other connections, and
 * most of the server's processors, are for what indexes serve.
 */
const runningMax = 2
const waitingMax = 128
const waitingPerCallerMax = 32
const waitMs = 5_000
/** The server ends a costly query after this. */
export const costlyQueryMsMax = 3_000
/** A query that turned out not to take longer than this is not charged. */
const freeMs = 100
/** Time beyond it that a caller may use at once, and how much of it comes back per second. */
const budgetMs = 10_000
const refillMsPerS = 250
/** Callers that are remembered; the one that was refused or charged longest ago is forgotten. */
const callersMax = 2_000

const advice =
  'Filter by filterable fields with eq, in, a range or startsWith, sort by newest first or a ' +
  'declared index, and ask for the count less often.'

type Used = { readonly ms: number; readonly atMs: number }

/**
 * Costly queries go through here: few at once, at most half of them for one caller, each with a
 * deadline at the server, and each charged to the time that its caller has. So a caller who asks
 * what no index serves waits for themselves, and not others for them.
 */
export class QueryLane {
  readonly #queue: FairQueue
  readonly #clock: Clock
  readonly #used = new Map<string, Used>()

  constructor(clock: Clock) {
    this.#clock = clock
    this.#queue = new FairQueue({ runningMax, waitingMax, waitingPerCallerMax, waitMs }, clock)
  }

  /** Throws `QueryBusyError` or `QueryTooSlowError` besides what `work` throws. */
  async run<T>(caller: string, work: () => Promise<T>): Promise<T> {
    const over = this.#usedMs(caller) - budgetMs
    if (over > 0) throw busy(Math.ceil(over / refillMsPerS))
    try {
      return await this.#queue.run({ caller, group: caller }, () => this.#charged(caller, work))
    } catch (error) {
      if (error instanceof QueueBusyError) throw busy(error.retryAfterS)
      throw error
    }
  }

  async #charged<T>(caller: string, work: () => Promise<T>): Promise<T> {
    const startMs = this.#clock.monotonicMs()
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof DatabaseTimeoutError)) throw error
      throw new QueryTooSlowError(
        `The query took more than ${costlyQueryMsMax / 1_000} s. ${advice}`,
        { limitMs: costlyQueryMsMax },
        { cause: error },
      )
    } finally {
      const ms = this.#clock.monotonicMs() - startMs
      if (ms > freeMs) this.#charge(caller, ms)
    }
  }

  #usedMs(caller: string): number {
    const used = this.#used.get(caller)
    if (used === undefined) return 0
    const back = ((this.#clock.monotonicMs() - used.atMs) / 1_000) * refillMsPerS
    return Math.max(0, used.ms - back)
  }

  #charge(caller: string, ms: number): void {
    const used = { ms: this.#usedMs(caller) + ms, atMs: this.#clock.monotonicMs() }
    this.#used.delete(caller)
    this.#used.set(caller, used)
    if (this.#used.size <= callersMax) return
    const [oldest] = this.#used.keys()
    this.#used.delete(oldest!)
  }
}

function busy(retryAfterS: number): QueryBusyError {
  return new QueryBusyError(
    `You have asked for more costly queries than this node can run for you now; ask again in ` +
      `${retryAfterS} s. ${advice}`,
    { retryAfterS },
  )
}
