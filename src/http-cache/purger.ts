import type { Queryable } from '#database/database.ts'
import { appliedEverywhere } from '#http-cache/applied.ts'
import type { ApplyingNodes } from '#http-cache/applied.ts'
import { readChanges } from '#http-cache/change-reader.ts'
import type { ChangesRead } from '#http-cache/change-reader.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { EdgeSender } from '#http-cache/edge-sender.ts'
import type { Turn } from '#http-cache/edge-sender.ts'
import { isTagged } from '#http-cache/tags.ts'
import { Wake } from '#http-cache/wake.ts'
import { jobKind } from '#jobs/job-kind.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * One node purges for all. Its job reads the changes and gives each edge its purges; it goes on for
 * a while, and the next one of its kind follows at once, on this node or another.
 */
export const purgeJob = jobKind<null>('purge-http-cache', {
  everyMs: 1,
  concurrency: 1,
  timeoutMs: 120_000,
  backoff: { firstMs: 200, maxMs: 5_000 },
})

/** A job goes on for so long. */
const turnDefaultMs = 30_000
/** Changes are gathered for so long after those before. */
const gatherMs = 50
/** Without news the position moves on this often, well before old changes are trimmed. */
const idleMs = 20_000

export type PurgerOptions = ApplyingNodes & {
  readonly cache: HttpCache
  readonly database: Queryable
  /** See `ChangeReading`. */
  readonly changesHide: () => Promise<boolean>
  readonly logger: Logger
  /** Another length of one job, for tests. */
  readonly turnMs?: number
}

export class Purger implements Disposable {
  readonly #options: PurgerOptions
  readonly #changed = new Wake()
  readonly #subscription: Disposable
  readonly #senders: readonly EdgeSender[]
  readonly #stopping = new AbortController()
  constructor(options: PurgerOptions) {
    const { cache, database, feed, calls, logger } = options
    this.#options = options
    const applied = (changes: Parameters<typeof appliedEverywhere>[1]): Promise<number> =>
      appliedEverywhere({ feed, calls }, changes)
    this.#senders = cache.edges.map((edge) => new EdgeSender({ edge, database, applied, logger }))
    this.#subscription = feed.subscribe((news) => {
      const isNews =
        news.kind === 'flush' ||
        (news.kind === 'apply' && news.changes.some(({ collection }) => isTagged(collection)))
      if (isNews) this.#changed.wake()
    })
  }

  /** One job. It ends early, and in order, when this node stops. */
  async run(job: Turn): Promise<void> {
    const over = AbortSignal.timeout(this.#options.turnMs ?? turnDefaultMs)
    const ending = new AbortController()
    const signal = AbortSignal.any([job.signal, over, this.#stopping.signal, ending.signal])
    const turn: Turn = { signal, step: (work) => job.step(work) }
    const parts = [
      () => this.#readOn(turn),
      ...this.#senders.map((sender) => () => sender.run(turn)),
    ]
    const ended = await Promise.allSettled(
      parts.map((part) =>
        part().catch((error: unknown) => {
          ending.abort()
          throw error
        }),
      ),
    )
    const failure = ended.find((one) => one.status === 'rejected')
    if (failure !== undefined) throw failure.reason
  }

  /** Edges that do not take the purges of this node, each in a sentence. */
  problems(): string[] {
    return this.#senders.flatMap(({ problem }) =>
      problem === null ? [] : [`purges wait: ${problem}`],
    )
  }

  /** This node stops: a job that runs here ends soon. */
  stop(): void {
    this.#stopping.abort()
  }

  [Symbol.dispose](): void {
    this.stop()
    this.#subscription[Symbol.dispose]()
  }

  async #readOn({ signal, step }: Turn): Promise<void> {
    const reading = {
      edges: this.#options.cache.edges,
      changesHide: this.#options.changesHide,
    }
    let last: ChangesRead | null = null
    while (!signal.aborted) {
      const startedMs = performance.now()
      const from: ChangesRead | null = last
      const read: ChangesRead = await step((tx) => readChanges(tx, reading, from))
      last = read
      if (read.added > 0) for (const sender of this.#senders) sender.wake()
      await this.#changed.wait(idleMs, signal)
      const restMs = startedMs + gatherMs - performance.now()
      if (restMs > 0 && !signal.aborted) await new Promise((resolve) => setTimeout(resolve, restMs))
    }
  }
}
