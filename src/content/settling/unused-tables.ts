import { sql } from '#database/database.ts'
import type { Database, Queryable, Statement } from '#database/database.ts'
import { DatabaseTimeoutError } from '#database/errors.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * Dropping a partition locks `stoa.version` against all readers. It waits only this long for that,
 * because others queue behind it; a table in use is left for the next time.
 */
const lockWaitMs = 200

const unusedTables = sql<{ name: string }>(`
  select c.relname as name from pg_inherits p join pg_class c on c.oid = p.inhrelid
  where p.inhparent = 'stoa.version'::regclass and not exists (
    select from stoa.content_type t where stoa.version_table(t.name) = c.relname)
  order by 1`)
/** No type is made while this row is locked. */
const lockModel = sql<object>(`select 1 from stoa.model for no key update`)

function unnamed(text: string): Statement<object> {
  return { text, prepare: 'never' }
}

/** Drops the tables of types that were deleted. They are empty: a type with entries stays. */
export async function dropUnusedTables(database: Database, logger: Logger): Promise<void> {
  if ((await database.run(unusedTables)).length === 0) return
  try {
    await database.transaction(async (tx) => {
      await tx.run(unnamed(`set local lock_timeout = ${lockWaitMs}`))
      await tx.run(lockModel)
      for (const { name } of await tx.run(unusedTables)) await drop(tx, name, logger)
    })
  } catch (error) {
    if (!(error instanceof DatabaseTimeoutError)) throw error
    logger.debug({ err: error }, 'the tables of deleted types are in use and will be dropped later')
  }
}

async function drop(tx: Queryable, name: string, logger: Logger): Promise<void> {
  await tx.run(unnamed(`drop table stoa."${name.replaceAll('"', '""')}"`))
  logger.info({ table: name }, 'dropped the table of a deleted type')
}
