import { setTimeout as wait } from 'node:timers/promises'
import type { RecentSaves } from '#content/entries/recent-saves.ts'
import type { ModelStore } from '#content/model/model.ts'
import type { QueryLane } from '#content/query/query-lane.ts'
import type { Database, Queryable } from '#database/database.ts'
import { SerializationError } from '#database/errors.ts'
import type { JobQueue } from '#jobs/job-queue.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'

/** A transaction that lost a deadlock is run this many times in all. */
const attemptsMax = 8
/**
 * Before each further attempt, times the attempts so far: the one that won needs a moment to take
 * the locks that it waited for.
 */
const pauseMs = 20

/** The parts that every operation of content shares. */
export type Context = {
  readonly models: ModelStore
  readonly recent: RecentSaves
  readonly queue: JobQueue
  readonly clock: Clock
  readonly logger: Logger
}

/** Reads also share the lane of costly queries. */
export type ReadContext = Context & { readonly lane: QueryLane }

/** Now, as it is stored. */
export function stampNow(context: Context): string {
  return new Date(context.clock.nowMs()).toISOString()
}

/** The pool itself, not a transaction of a caller. */
export function isDatabase(db: Queryable): db is Database {
  return 'session' in db
}

/**
 * Runs `work` in a transaction: again after a deadlock, unless the caller's own transaction is
 * around it, which is lost with it and is the caller's to repeat.
 */
export async function atomically<T>(
  db: Queryable,
  work: (tx: Queryable) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await db.transaction(work)
    } catch (error) {
      if (!(error instanceof SerializationError) || !isDatabase(db) || attempt >= attemptsMax)
        throw error
    }
    await wait(attempt * pauseMs)
  }
}
