import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Access, Credentials, Identity, Origin } from '#access/access.ts'
import { requireCsrf } from '#access/csrf.ts'
import { UnauthenticatedError } from '#access/errors.ts'
import type { RouteAccess } from '#api/api-context.ts'
import { SignInNeededError } from '#api/problems/errors.ts'
import { readSessionCookie, setSessionCookie } from '#api/http/session-cookie.ts'

const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/**
 * The `onRequest` hook that finds out who asks, refuses cross-site writes, and holds the route's
 * `config.access`.
 */
export function identityHook(
  access: Access,
): (request: FastifyRequest, reply: FastifyReply) => Promise<void> {
  return async (request, reply) => {
    const { access: rule, generated, whenBusy, csrf, mayBeStale } = request.routeOptions.config
    // A path without a route, a method that it does not have, health: nobody needs to be known.
    if (rule === undefined || generated === true || (whenBusy === true && rule === 'public')) return
    let identity = await identityOf(access, request, reply, { rule, fresh: false })
    // Who nobody knows to be still allowed may read what is marked as stale, and pages for all;
    // everything else needs to be known.
    const lenient = safeMethods.has(request.method) && (mayBeStale === true || rule === 'public')
    if (identity.staleMs !== null && !lenient)
      identity = await identityOf(access, request, reply, { rule, fresh: true })
    request.identity = identity
    if (csrf !== false && identity.csrfToken !== null && !safeMethods.has(request.method)) {
      const sent = request.headers['x-csrf-token']
      requireCsrf(identity, typeof sent === 'string' ? sent : null)
    }
    if (rule !== 'public' && rule !== 'content') guard(identity, rule)
  }
}

/**
 * A session that has ended is taken from the browser; public routes, signing in above all, then go
 * on as anonymous.
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
    if (rule !== 'public') throw error
    return access.identify({ ...credentials, sessionCookie: null }, { fresh })
  }
}

/** A bearer token goes before a cookie: whoever sends one means it. */
export function credentialsOf(request: FastifyRequest): Credentials {
  const { authorization } = request.headers
  if (authorization !== undefined) {
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
