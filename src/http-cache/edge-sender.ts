import type { Queryable } from '#database/database.ts'
import { fullBucket, planOf, refilled } from '#http-cache/budget.ts'
import type { Bucket, Pending } from '#http-cache/budget.ts'
import { EdgeBusyError } from '#http-cache/errors.ts'
import type { Edge } from '#http-cache/http-cache.ts'
import {
  duePurges,
  edgeStates,
  failed,
  mergePurges,
  nextDueMs,
  purged,
  spent,
  waitingMax,
} from '#http-cache/purge-store.ts'
import type { WaitingPurge } from '#http-cache/purge-store.ts'
import { allTag, coarseMax } from '#http-cache/tags.ts'
import { endedCount } from '#http-cache/as-of.ts'
import { parseSnapshot } from '#change-feed/snapshot.ts'
import { backoffMs } from '#lib/backoff.ts'
import { FailureLog } from '#lib/failure-log.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { Wake } from '#http-cache/wake.ts'
import type { Job } from '#jobs/running-job.ts'

/** Without news the edge's purges are looked at this often. */
const idleMs = 5_000
const backoff = { firstMs: 200, maxMs: 30_000, jitter: 0.5 }
/** A failure is shown to operators in so many characters. */
const problemMax = 500

/** A purger needs this of its job. */
export type Turn = Pick<Job<null>, 'step' | 'signal'>

export type EdgeSenderOptions = {
  readonly edge: Edge
  readonly database: Queryable
  /** Resolves when no node shows the state before the changes; see `appliedEverywhere`. */
  readonly applied: (changes: {
    readonly epoch: string
    readonly xids: readonly string[] | null
    readonly count: number
  }) => Promise<number>
  readonly logger: Logger
}

/**
 * Gives one edge its purges, first and again, within the calls that it accepts. What fails stays
 * and is sent later; other edges do not wait for it.
 */
export class EdgeSender {
  readonly #options: EdgeSenderOptions
  readonly #news = new Wake()
  readonly #failureLog: FailureLog
  #failures = 0
  #problem: string | null = null
  /** As far as this node knows; the database has it for those that come after. */
  #bucket: Bucket | null = null
  /** This turn has read it. */
  #isKnown = false

  constructor(options: EdgeSenderOptions) {
    const { id } = options.edge
    this.#options = options
    this.#failureLog = new FailureLog(options.logger, {
      failing: `the HTTP cache ${id} was not purged; it will be tried again`,
      recovered: `the HTTP cache ${id} is purged again`,
    })
  }

  /** Why the edge does not take its purges; null: it does, or this node has none for it. */
  get problem(): string | null {
    return this.#problem
  }

  /** There are new purges. */
  wake(): void {
    this.#news.wake()
  }

  async run(turn: Turn): Promise<void> {
    try {
      await this.#sendOn(turn)
    } finally {
      this.#isKnown = false
      this.#problem = null
    }
  }

  async #sendOn(turn: Turn): Promise<void> {
    const { edge, database } = this.#options
    while (!turn.signal.aborted) {
      const purges = await duePurges(database, edge.id)
      if (purges.length === 0) {
        const dueMs = (await nextDueMs(database, edge.id)) ?? idleMs
        await this.#news.wait(Math.min(Math.max(dueMs, 1), idleMs), turn.signal)
        continue
      }
      try {
        await this.#send(turn, purges)
        this.#failures = 0
        this.#problem = null
        this.#failureLog.success()
      } catch (error) {
        if (!isOfEdge(error)) throw error
        await this.#keep(turn, purges, error)
      }
    }
  }

  async #send(turn: Turn, purges: readonly WaitingPurge[]): Promise<void> {
    const { edge } = this.#options
    const { epoch } = purges.at(-1)!
    const count = await this.#applied(purges)
    const pending: Pending[] = purges.map((one) => ({ ...one, epoch, count }))
    for (const call of planOf(pending, await this.#readBucket(), edge.limits).calls) {
      if (!(await this.#takeCall(turn.signal))) return this.#saveBucket(turn)
      await edge.purge(call, turn.signal)
    }
    await turn.step(async (tx) => {
      await purged(
        tx,
        edge,
        purges.map(({ id }) => id),
      )
      await spent(tx, edge.id, this.#bucket!)
    })
  }

  #applied(purges: readonly WaitingPurge[]): Promise<number> {
    const { epoch, upTo } = purges.at(-1)!
    const named = purges.flatMap(({ xids }) => xids ?? [])
    const areNamed = purges.every(({ xids }) => xids !== null) && named.length <= 100
    return this.#options.applied({
      epoch,
      xids: areNamed ? named : null,
      count: endedCount(parseSnapshot(upTo)),
    })
  }

  async #readBucket(): Promise<Bucket> {
    const { edge, database } = this.#options
    const nowMs = Date.now()
    if (this.#isKnown) return (this.#bucket = refilled(this.#bucket!, edge.limits, nowMs))
    const kept = (await edgeStates(database, [edge.id])).get(edge.id)?.bucket
    const bucket = kept ?? fullBucket(edge.limits, nowMs)
    // Another node may have purged meanwhile, and this one may have failed to write what it spent.
    const known = [bucket, ...(this.#bucket === null ? [] : [this.#bucket])]
    const least = known
      .map((one) => refilled(one, edge.limits, nowMs))
      .reduce((one, other) => (one.calls <= other.calls ? one : other))
    this.#bucket = least
    this.#isKnown = true
    return least
  }

  /** Waits until a call may be made, and takes it. False: the turn is over. */
  async #takeCall(signal: AbortSignal): Promise<boolean> {
    const { limits } = this.#options.edge
    for (;;) {
      const now = refilled(this.#bucket!, limits, Date.now())
      if (signal.aborted) return false
      if (now.calls >= 1) {
        this.#bucket = { ...now, calls: now.calls - 1 }
        return true
      }
      await pause(((1 - now.calls) / limits.callsPerS) * 1_000, signal)
    }
  }

  async #saveBucket(turn: Turn): Promise<void> {
    const bucket = this.#bucket!
    await turn.step((tx) => spent(tx, this.#options.edge.id, bucket))
  }

  /** The purges stay. An edge that is away for long gets fewer and wider ones. */
  async #keep(turn: Turn, purges: readonly WaitingPurge[], error: StoaError): Promise<void> {
    const { edge } = this.#options
    // A purge that the end of the turn cut off says nothing about the edge.
    if (turn.signal.aborted) return this.#saveBucket(turn)
    this.#failureLog.failure(error)
    this.#problem = error.message.slice(0, problemMax)
    const busyMs = error instanceof EdgeBusyError ? error.retryAfterMs : null
    if (busyMs !== null) this.#bucket = { calls: 0, atMs: Date.now() }
    await turn.step(async (tx) => {
      await spent(tx, edge.id, this.#bucket!)
      if (busyMs === null) await failed(tx, edge.id, this.#problem ?? '')
      if (purges.length === waitingMax) await mergePurges(tx, purges, coarseOf(purges))
    })
    await pause(busyMs ?? backoffMs(this.#failures, backoff), turn.signal)
    this.#failures += 1
  }
}

function coarseOf(purges: readonly WaitingPurge[]): readonly string[] {
  const coarse = [...new Set(purges.flatMap((one) => one.coarse))]
  return coarse.length > coarseMax * 8 || coarse.includes(allTag) ? [allTag] : coarse
}

/** Failures of the edge, not of this node or its database. */
function isOfEdge(error: unknown): error is StoaError {
  return error instanceof StoaError && error.code.startsWith('E_HTTP_CACHE_')
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Wake().wait(ms, signal)
}
