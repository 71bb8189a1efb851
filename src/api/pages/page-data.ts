import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ApiContext } from '#api/api-context.ts'
import { dependenciesOf, markStale } from '#api/delivery/response-cache.ts'
import { callerOf } from '#api/http/caller.ts'
import { isAnonymous } from '#api/http/identity.ts'
import { contentSecurityPolicy } from '#api/pages/layout.ts'
import { tokenToSee } from '#api/writes/token-header.ts'
import type { Call } from '#content/content.ts'

export type PageData<Value> = {
  readonly value: Value
  /** Greatest age of data that may have changed since; null: it is fresh. */
  readonly staleMs: number | null
}

/**
 * Reads the data of a page through the cluster's cache. It is dropped when a row changes that it
 * was read from, and still served, marked as stale, while the database is away. `key` names the
 * page; readers who may see the same share the data.
 */
export async function readPageData<Value>(
  context: ApiContext,
  request: FastifyRequest,
  key: string,
  read: (call: Call) => Promise<Value>,
): Promise<PageData<Value>> {
  const { authority, staleMs } = request.identity
  const { metrics } = request.server
  const cached = await context.cluster.cache.get(
    `page ${authority.key} ${key}`,
    // All that a page shows was true together.
    (load) =>
      load.transaction((db) =>
        read({ db, authority, depends: dependenciesOf(load, metrics), caller: callerOf(request) }),
      ),
    { since: tokenToSee(request) },
  )
  const ageMs = cached.state === 'stale' ? cached.ageMs : null
  return {
    value: cached.value,
    staleMs: ageMs === null && staleMs === null ? null : Math.max(ageMs ?? 0, staleMs ?? 0),
  }
}

/** Sends a page for people. It shows who is signed in, so no shared cache may keep it. */
export function sendPage(
  reply: FastifyReply,
  page: string,
  staleMs: number | null = null,
): FastifyReply {
  if (staleMs !== null) markStale(reply, staleMs)
  return reply
    .header('content-security-policy', contentSecurityPolicy)
    .header('cache-control', 'no-cache')
    .header('vary', 'Cookie, Authorization')
    .type('text/html; charset=utf-8')
    .send(page)
}

/** Name of the user or token; null for the anonymous role. */
export function nameOf(request: FastifyRequest): string | null {
  return isAnonymous(request.identity) ? null : request.identity.authority.actor.name
}
