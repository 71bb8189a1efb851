import type { FastifyReply, FastifyRequest } from 'fastify'
import { markStale } from '#api/delivery/response-cache.ts'
import { tokenToSee } from '#api/writes/token-header.ts'
import { staleMsOf } from '#cache/cache.ts'
import type { FillContext } from '#cache/fill.ts'
import type { Queryable } from '#database/database.ts'

/**
 * Reads a value of the API through the cluster's cache: it is exact within the lease, and while the
 * database is away what is known is served at once, marked as stale. `read` names the rows that the
 * value depends on in `load`.
 */
export async function cachedRead<Value>(
  request: FastifyRequest,
  reply: FastifyReply,
  key: string,
  read: (db: Queryable, load: FillContext) => Promise<Value>,
): Promise<Value> {
  const { cache } = request.server.api.cluster
  const cached = await cache.get(`api ${key}`, (load) => read(load, load), {
    since: tokenToSee(request),
  })
  const ageMs = staleMsOf(cached)
  if (ageMs !== null) markStale(reply, Math.max(ageMs, request.identity.staleMs ?? 0))
  return cached.value
}

/** The row on which every type and locale depends. */
export function dependOnTypesAndLocales(load: FillContext): void {
  load.row('model', 'true')
}
