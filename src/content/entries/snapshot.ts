import type { Call } from '#content/content.ts'
import { isDatabase } from '#content/context.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

const repeatableRead = sql(`set transaction isolation level repeatable read, read only`)

/**
 * Runs reads of several statements that all see one snapshot, so that everything one response shows
 * was true together. A fill of the cache brings such a transaction by itself; inside a transaction
 * of the caller its isolation holds. The server ends a statement that takes longer than
 * `statementMsMax`.
 */
export async function inOneSnapshot<T>(
  db: Queryable,
  work: (tx: Queryable) => Promise<T>,
  options: { readonly statementMsMax?: number } = {},
): Promise<T> {
  return db.transaction(async (tx) => {
    if (isDatabase(db)) await tx.run(repeatableRead)
    const { statementMsMax } = options
    if (statementMsMax !== undefined)
      await tx.run(sql(`set local statement_timeout = ${statementMsMax}`))
    return work(tx)
  })
}

/** The same for a call: what `work` reads by the call that it gets is of one snapshot. */
export async function callInOneSnapshot<T>(
  call: Call,
  work: (call: Call) => Promise<T>,
): Promise<T> {
  return inOneSnapshot(call.db, (db) => work({ ...call, db }))
}
