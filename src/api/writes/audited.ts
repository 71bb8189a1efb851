import type { FastifyRequest } from 'fastify'
import type { AuditEntry } from '#access/access.ts'
import { atomically } from '#content/context.ts'
import type { Queryable } from '#database/database.ts'

/**
 * Runs a write that leaves no version behind and records it in the audit log: both, or neither.
 * Again after a deadlock, as content itself does.
 */
export function audited<T>(
  request: FastifyRequest,
  db: Queryable,
  work: (tx: Queryable) => Promise<T>,
  entryFor: (result: T) => AuditEntry,
): Promise<T> {
  return atomically(db, async (tx) => {
    const result = await work(tx)
    await request.server.api.access.audit(tx, request.identity, entryFor(result))
    return result
  })
}
