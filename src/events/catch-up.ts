import { setTimeout as sleep } from 'node:timers/promises'
import type { ChangeFeed } from '#change-feed/feed.ts'
import type { PollResult } from '#change-feed/feed-core.ts'
import { runPoll } from '#change-feed/poll.ts'
import { earlierOf, includes } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { backoffMs } from '#lib/backoff.ts'
import { FailureLog } from '#lib/failure-log.ts'
import type { Logger } from '#lib/logger.ts'
import type { Cursor } from '#events/cursor.ts'
import { entryChanges } from '#events/entry-changes.ts'
import type { TransactionChange } from '#events/entry-changes.ts'
import type { EventStream } from '#events/event-stream.ts'

/** A client that has missed more begins anew. */
const changesMax = 30_000
/** Changes of entries that may be sent to others while one reading is under way. */
const passedMax = 30_000
const attemptsMax = 5
const retry = { firstMs: 50, maxMs: 1_000 }

/** The plans of a table that was just trimmed take it for empty. */
const byIndex = sql<object>(`set local enable_seqscan = off`)

/** The changes that a node sends to streams which have missed something. */
export type CaughtUp = {
  readonly kind: 'caughtUp'
  readonly streams: readonly EventStream[]
  /** From the database: all that `snapshot` sees and the earliest of the streams does not. */
  readonly read: readonly TransactionChange[]
  readonly snapshot: Snapshot
  /** Those that the node has sent to other streams since that reading began. */
  readonly passed: readonly TransactionChange[]
  /** Changes of transactions below it may be forgotten. */
  readonly keptFrom: number
}
export type CatchUpResult =
  | CaughtUp
  | { readonly kind: 'restart'; readonly streams: readonly EventStream[] }

type Round = {
  readonly streams: readonly EventStream[]
  result: PollResult | null
  passed: TransactionChange[]
}

/**
 * Reads what streams have missed. One reading at a time serves all the streams that wait, since all
 * the clients of a node that died come to the others at the same moment. A reading counts once the
 * change feed of this node has come as far: so the rights that are applied to it are as new as it.
 */
export class CatchUp {
  readonly #feed: ChangeFeed
  readonly #database: Database
  readonly #failures: FailureLog
  readonly #arrived: () => void
  readonly #lost: (streams: readonly EventStream[]) => void
  readonly #waiting = new Set<EventStream>()
  #round: Round | null = null
  #isStopped = false

  constructor(options: {
    readonly feed: ChangeFeed
    readonly database: Database
    readonly logger: Logger
    /** `take` may have something. */
    readonly arrived: () => void
    /** These could not be read for; they are not waited for any more. */
    readonly lost: (streams: readonly EventStream[]) => void
  }) {
    this.#feed = options.feed
    this.#database = options.database
    this.#arrived = options.arrived
    this.#lost = options.lost
    this.#failures = new FailureLog(options.logger, {
      failing: 'missed events could not be read',
      recovered: 'missed events are read again',
    })
  }

  /** The stream has a position. */
  add(stream: EventStream): void {
    this.#waiting.add(stream)
    this.#begin()
  }

  remove(stream: EventStream): void {
    this.#waiting.delete(stream)
  }

  clear(): void {
    this.#waiting.clear()
    this.#round = null
  }

  stop(): void {
    this.#isStopped = true
    this.clear()
  }

  /** The node sends these to the streams that have missed nothing. */
  passed(changes: readonly TransactionChange[]): void {
    const round = this.#round
    if (round === null) return
    if (round.passed.length + changes.length <= passedMax) round.passed.push(...changes)
    else {
      this.#round = null
      this.#begin()
    }
  }

  /** Returns the changes once this node has come as far; null: not yet. */
  take(cursor: Cursor): CatchUpResult | null {
    const round = this.#round
    if (round === null || round.result === null) return null
    const { epoch, snapshot, keptFrom, changes } = round.result
    const isSame = epoch === cursor.epoch
    if (isSame && !includes(cursor.snapshot, snapshot)) return null
    this.#round = null
    const streams = round.streams.filter((stream) => this.#waiting.delete(stream))
    this.#begin()
    const read = changes.length > changesMax ? null : entryChanges(changes)
    if (!isSame || read === null) return { kind: 'restart', streams }
    return { kind: 'caughtUp', streams, read, snapshot, passed: round.passed, keptFrom }
  }

  #begin(): void {
    if (this.#round !== null || this.#waiting.size === 0 || this.#isStopped) return
    const round: Round = { streams: [...this.#waiting], result: null, passed: [] }
    this.#round = round
    void this.#read(round)
  }

  async #read(round: Round): Promise<void> {
    const since = round.streams
      .map(({ position }) => position!)
      .reduce((one, other) => earlierOf(one, other))
    for (let attempt = 1; this.#round === round; attempt += 1) {
      try {
        const result = await this.#database.transaction(async (tx) => {
          await tx.run(byIndex)
          return runPoll(tx, since, changesMax)
        })
        this.#failures.success()
        round.result = result
        this.#feed.want()
        this.#arrived()
        return
      } catch (error) {
        this.#failures.failure(error)
        if (attempt >= attemptsMax) break
        await sleep(backoffMs(attempt, retry))
      }
    }
    if (this.#round !== round) return
    this.#round = null
    this.#lost(round.streams)
    this.#begin()
  }
}
