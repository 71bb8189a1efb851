import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { unblockFirst } from '#jobs/claim.ts'
import { jobKind } from '#jobs/job-kind.ts'
import type { JobKind } from '#jobs/job-kind.ts'
import type { JobHandler } from '#jobs/running-job.ts'

/** Old rows deleted by one statement, and by one round. */
const trimmedMax = 1_000
const roundsMax = 100

const upkeep = jobKind<null>('job-upkeep', { concurrency: 1, everyMs: 300_000 })

const trim = sql<{ id: string }>(`
  delete from stoa.job where id in (
    select id from stoa.job where kept_until < now() limit ${trimmedMax} for update skip locked)
  returning id`)
const ensure = sql(`
  insert into stoa.job (kind, attempts_max, key, order_key, payload)
  select $1, $2, $3, $3, 'null' where not exists (
    select from stoa.job where kind = $1 and key = $3 and state in ('waiting', 'blocked')
  ) and not exists (
    select from stoa.job where kind = $1 and order_key = $3 and order_key is not null
      and state = 'running'
  ) on conflict do nothing`)

/** The key of the one job that waits of a recurring kind. */
export const recurringKey = 'recurring'

/** Adds the first job of each recurring kind that has none. */
export async function ensureRecurring(
  database: Queryable,
  kinds: readonly JobKind<unknown>[],
): Promise<void> {
  for (const { name, attemptsMax, everyMs } of kinds)
    if (everyMs !== null) await database.run(ensure, [name, attemptsMax, recurringKey])
}

/** Deletes jobs that ended long ago, in steps, and heals what was deleted by hand. */
export function upkeepHandler(
  database: Database,
  kinds: () => readonly JobKind<unknown>[],
): JobHandler<null> {
  return {
    kind: upkeep,
    run: async ({ signal }) => {
      for (let round = 0; round < roundsMax && !signal.aborted; round += 1)
        if ((await database.run(trim)).length < trimmedMax) break
      await unblockFirst(database)
      await ensureRecurring(database, kinds())
    },
  }
}
