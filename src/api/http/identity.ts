import type { FastifyReply, FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import type { Access, Credentials, Identity, Origin } from '#access/access.ts'
import { requireCsrf } from '#access/csrf.ts'
import { UnauthenticatedError } from '#access/errors.ts'
import type { RouteAccess, Server } from '#api/api-context.ts'
import { staleHeaders } from '#api/delivery/stale-headers.ts'
import { SignInNeededError } from '#api/problems/errors.ts'
import { readSessionCookie, setSessionCookie } from '#api/http/session-cookie.ts'

/** A write that waits longer than this for its body is identified again. */
const identityMs = 1_000

const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/**
 * Identifies the caller before the body is read, refuses cross-site writes, and holds the route's
 * `config.access`. A response that rests on an identity which may be out of date says so.
 */
export const identification = plugin(
  async (server: Server) => {
    const { access } = server.api
    server.addHook('onRequest', async (request, reply) => {
      const { access: rule, generated, whenBusy, csrf } = request.routeOptions.config
      // A path without a route, a method that it does not have, health: no identity is needed.
      if (rule === undefined || generated === true || (whenBusy === true && rule === 'public'))
        return
      request.identity = await currentIdentity(access, request, reply, rule)
      if (csrf !== false && request.identity.csrfToken !== null && !isSafe(request)) {
        const sent = request.headers['x-csrf-token']
        requireCsrf(request.identity, typeof sent === 'string' ? sent : null)
      }
      if (rule !== 'public' && rule !== 'content') guard(request.identity, rule)
    })
    // A body can be sent slowly, and the caller can lose rights meanwhile.
    server.addHook('preHandler', async (request, reply) => {
      const { access: rule } = request.routeOptions.config
      if (rule !== undefined && !isSafe(request) && reply.elapsedTime > identityMs)
        await requireStillAllowed(request)
    })
    server.addHook('onSend', (request, reply, payload, done) => {
      const staleMs = (request.identity as Identity | undefined)?.staleMs ?? null
      if (staleMs !== null && !reply.hasHeader('cache-status')) {
        const [status, age] = staleHeaders(staleMs)
        reply.header('cache-status', status).header('age', age)
      }
      done(null, payload)
    })
  },
  { name: 'identification' },
)

/**
 * Identifies the caller of a write again, by the database, and holds the route's `config.access`:
 * for what takes long between the first byte and the effect.
 */
export async function requireStillAllowed(request: FastifyRequest): Promise<void> {
  const { access: rule } = request.routeOptions.config
  request.identity = await request.server.api.access.identify(credentialsOf(request), {
    fresh: true,
  })
  if (rule !== undefined && rule !== 'public' && rule !== 'content') guard(request.identity, rule)
}

function isSafe({ method }: FastifyRequest): boolean {
  return safeMethods.has(method)
}

/**
 * While the database is away, a cached identity is enough for reads that are marked as stale and
 * for pages that everyone may read; all else needs one that is known to hold.
 */
async function currentIdentity(
  access: Access,
  request: FastifyRequest,
  reply: FastifyReply,
  rule: RouteAccess,
): Promise<Identity> {
  const { mayBeStale } = request.routeOptions.config
  const cached = await identityOf(access, request, reply, { rule, fresh: false })
  const isEnough = isSafe(request) && (mayBeStale === true || rule === 'public')
  return cached.staleMs === null || isEnough
    ? cached
    : identityOf(access, request, reply, { rule, fresh: true })
}

/**
 * A session that has ended is removed from the browser. Public routes, signing in above all, and
 * reads of content then go on as anonymous: what is public stays public.
 */
async function identityOf(
  access: Access,
  request: FastifyRequest,
  reply: FastifyReply,
  { rule, fresh }: { readonly rule: RouteAccess; readonly fresh: boolean },
): Promise<Identity> {
  const credentials = credentialsOf(request)
  try {
    return await access.identify(credentials, { fresh })
  } catch (error) {
    if (!(error instanceof UnauthenticatedError) || credentials.sessionCookie === null) throw error
    setSessionCookie(request, reply, null)
    const open = rule === 'public' || (rule === 'content' && safeMethods.has(request.method))
    if (!open) throw error
    return access.identify({ ...credentials, sessionCookie: null }, { fresh })
  }
}

/**
 * A bearer token goes before a cookie: a client that sends one means it. Other schemes are for a
 * proxy in front, such as `Basic` for a site that is not open yet.
 */
export function credentialsOf(request: FastifyRequest): Credentials {
  const { authorization } = request.headers
  if (authorization !== undefined && /^Bearer\b/i.test(authorization)) {
    const bearer = /^Bearer +([\x21-\x7e]{1,512})$/i.exec(authorization)?.[1]
    if (bearer === undefined)
      throw new SignInNeededError('The Authorization header is not of the form "Bearer TOKEN".')
    return { bearer, sessionCookie: null, origin: originOf(request) }
  }
  return { bearer: null, sessionCookie: readSessionCookie(request), origin: originOf(request) }
}

function originOf(request: FastifyRequest): Origin {
  return { address: request.ip, requestId: request.id }
}

export function isAnonymous(identity: Identity | null | undefined): boolean {
  return (
    identity === null || identity === undefined || identity.authority.actor.kind === 'anonymous'
  )
}

/** Throws unless `identity` may use a route with this rule. */
export function guard(identity: Identity, rule: Exclude<RouteAccess, 'public' | 'content'>): void {
  if (rule === 'signedIn') {
    if (isAnonymous(identity)) throw new SignInNeededError('Sign in, or send a token, to use this.')
    return
  }
  if (identity.can(rule.permission)) return
  if (isAnonymous(identity)) throw new SignInNeededError('Sign in, or send a token, to use this.')
  identity.require(rule.permission)
}
