import { addressOf } from '#access/identity.ts'
import type { Access, AuditEntry, AuditRecord, Identity, Origin } from '#access/access.ts'
import { AccessInputError } from '#access/errors.ts'
import { timestamp } from '#access/access-context.ts'
import type { AccessContext } from '#access/access-context.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'
import { isId, newId } from '#lib/id.ts'

/**
 * Entries older than this are pruned: a bit more than a year, so that a yearly review finds the
 * whole year.
 */
export const auditKeptMs = 400 * 24 * 60 * 60 * 1_000
/** Rows removed per call, so that one never holds the database for long. */
const prunedMax = 5_000

const append = sql(
  `insert into stoa.audit (id, at, actor, action, subject, facts, address, request_id)
   values ($1, $2, $3, $4, $5, $6, $7, $8)`,
)

const page = sql<{
  id: string
  at: string
  actor: string
  action: string
  subject: string
  facts: string
  address: string | null
  request_id: string | null
}>(`
  select id, at, actor, action, subject, facts, address, request_id from stoa.audit
  where $1::uuid is null or id < $1 order by id desc limit $2`)

const allowPruning = sql(`select set_config('stoa.audit_prune', 'on', true)`)
const prune = sql<{ count: number }>(`
  with gone as (
    delete from stoa.audit
    where id in (select id from stoa.audit where at < $1 order by at limit ${prunedMax})
    returning 1
  )
  select count(*)::int as count from gone`)

export type AuditLog = Pick<Access, 'audit' | 'auditLog'> & {
  /** For what happens without an identity: a refused sign-in, the first administrator. */
  record(db: Queryable, actor: Actor, origin: Origin, entry: AuditEntry): Promise<void>
  prune(): Promise<number>
}

/** Newest first, by id: ids are of UUID version 7. */
export function auditLog(context: Pick<AccessContext, 'database' | 'clock'>): AuditLog {
  const record: AuditLog['record'] = async (db, actor, origin, entry) => {
    const nowMs = context.clock.nowMs()
    const { action, subject, facts } = entry
    await db.run(append, [
      newId(nowMs),
      timestamp(nowMs),
      JSON.stringify(actor),
      action,
      subject,
      JSON.stringify(facts),
      addressOf(origin),
      origin.requestId,
    ])
  }
  return {
    record,
    audit: (db: Queryable, by: Identity, entry: AuditEntry) =>
      record(db, by.authority.actor, by.origin, entry),
    auditLog: async ({ limit, after }) => {
      if (after !== null && !isId(after))
        throw new AccessInputError([
          { path: '/after', message: 'is not from meta.after of a page.' },
        ])
      const rows = await context.database.run(page, [after, limit + 1])
      const data = rows
        .slice(0, limit)
        .map(({ id, at, actor, action, subject, facts, address, request_id }): AuditRecord => ({
          id,
          at,
          actor: JSON.parse(actor) as Actor,
          action,
          subject,
          facts: JSON.parse(facts) as AuditEntry['facts'],
          address,
          requestId: request_id,
        }))
      return { data, after: rows.length > limit ? data.at(-1)!.id : null }
    },
    prune: () =>
      context.database.transaction(async (tx) => {
        await tx.run(allowPruning)
        const [row] = await tx.run(prune, [timestamp(context.clock.nowMs() - auditKeptMs)])
        return row?.count ?? 0
      }),
  }
}
