import { isDatabase } from '#content/context.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

const repeatableRead = sql(`set transaction isolation level repeatable read, read only`)

/**
 * Runs reads of several statements that all see one snapshot, so that everything one response shows
 * was true together. A fill of the cache brings such a transaction by itself; inside a transaction
 * of the caller its isolation holds.
 */
export async function inOneSnapshot<T>(
  db: Queryable,
  work: (tx: Queryable) => Promise<T>,
): Promise<T> {
  if (!isDatabase(db)) return db.transaction(work)
  return db.transaction(async (tx) => {
    await tx.run(repeatableRead)
    return work(tx)
  })
}
