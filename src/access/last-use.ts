import { timestamp } from '#access/ground.ts'
import type { Ground } from '#access/ground.ts'
import type { Queryable, Statement } from '#database/database.ts'
import { DatabaseTimeoutError, DatabaseUnavailableError } from '#database/errors.ts'

/** How exactly the last use of sessions and API tokens is known: one write a minute, whatever the traffic. */
export const lastUseResolutionMs = 60_000

/** Notes a use by `statement` ($1 key, $2 now, $3 what counts as long ago). A reader is not refused because this cannot be written. */
export async function touchUse(
  ground: Pick<Ground, 'clock' | 'logger'> & { readonly database: Queryable },
  statement: Statement<object>,
  key: unknown,
  lastUsedAt: string | null,
): Promise<void> {
  const nowMs = ground.clock.nowMs()
  if (lastUsedAt !== null && nowMs - Date.parse(lastUsedAt) < lastUseResolutionMs) return
  try {
    await ground.database.run(statement, [key, timestamp(nowMs), timestamp(nowMs - lastUseResolutionMs)])
  } catch (error) {
    if (!(error instanceof DatabaseUnavailableError) && !(error instanceof DatabaseTimeoutError)) throw error
    ground.logger.warn({ err: error }, 'the last use of a session or API token could not be noted')
  }
}
