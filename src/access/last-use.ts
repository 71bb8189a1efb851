import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { staleMsOf } from '#cache/cache.ts'
import type { Cache } from '#cache/cache.ts'
import type { FillContext } from '#cache/fill.ts'
import type { Queryable, Statement } from '#database/database.ts'
import { DatabaseTimeoutError, DatabaseUnavailableError } from '#database/errors.ts'
import { withTimeout } from '#lib/timeout.ts'

/**
 * How exactly the last use of sessions and API tokens is known: one write a minute, whatever the
 * traffic.
 */
export const lastUseResolutionMs = 60_000

/**
 * When it was last used, as far as this node knows; kept beside what is remembered, and moved when
 * a use is noted.
 */
export type Use = { notedMs: number }

export function useOf(lastUsedAt: string | null): Use {
  return { notedMs: lastUsedAt === null ? Number.NEGATIVE_INFINITY : Date.parse(lastUsedAt) }
}

export function isUseDue(use: Use, nowMs: number): boolean {
  return nowMs - use.notedMs >= lastUseResolutionMs
}

/** A reader waits so long for its use to be noted: not for a database that does not answer. */
const noteWaitMs = 250

/**
 * Notes a use by `statement` ($1 key, $2 now, $3 what counts as long ago). A reader is not refused,
 * nor kept, because this cannot be written.
 */
export async function noteUse(
  ground: Pick<AccessContext, 'clock' | 'logger'> & { readonly database: Queryable },
  use: Use,
  statement: Statement<object>,
  key: unknown,
): Promise<void> {
  const nowMs = ground.clock.nowMs()
  if (!isUseDue(use, nowMs)) return
  use.notedMs = nowMs
  await withTimeout(
    note(ground, statement, [key, timestamp(nowMs), timestamp(nowMs - lastUseResolutionMs)]),
    noteWaitMs,
  )
}

async function note(
  { database, logger }: Pick<AccessContext, 'logger'> & { readonly database: Queryable },
  statement: Statement<object>,
  values: readonly unknown[],
): Promise<void> {
  try {
    await database.run(statement, values)
  } catch (error) {
    if (!(error instanceof DatabaseUnavailableError) && !(error instanceof DatabaseTimeoutError))
      throw error
    logger.warn({ err: error }, 'the last use of a session or API token could not be noted')
  }
}

/** Roughly what the cache keeps of one session or API token, in bytes. */
const foundBytes = 2_000

/** Ends a fill whose result must not be kept. */
export class NotKept extends Error {}

/** `staleMs`: as of an identity. */
export type Looked<Found> = { readonly found: Found | null; readonly staleMs: number | null }

/**
 * From memory, or by `load`, which throws `NotKept` for what is not there: anybody could fill the
 * memory with nobodies.
 */
export async function kept<Found>(
  cache: Cache,
  key: string,
  load: (context: FillContext) => Promise<Found>,
): Promise<Looked<Found>> {
  try {
    const cached = await cache.get(key, load, { bytesOf: () => foundBytes })
    return { found: cached.value, staleMs: staleMsOf(cached) }
  } catch (error) {
    if (error instanceof NotKept) return { found: null, staleMs: null }
    throw error
  }
}
