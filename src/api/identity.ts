import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Access, Credentials, Identity, Origin } from '#access/access.ts'
import { requireCsrf } from '#access/csrf.ts'
import type { RouteAccess } from '#api/api-context.ts'
import { SignInNeededError } from '#api/errors.ts'

/** The session of a browser. HttpOnly, SameSite=Lax, Path=/. */
export const sessionCookieName = 'stoa_session'

const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])
const cookiePattern = new RegExp(`(?:^|;\\s*)${sessionCookieName}=([^;]*)`)

/** The `onRequest` hook that finds out who asks, refuses cross-site writes, and holds the route's `config.access`. */
export function identityHook(access: Access): (request: FastifyRequest, reply: FastifyReply) => Promise<void> {
  return async (request) => {
    const { access: rule, generated, whenBusy } = request.routeOptions.config
    // A path without a route, a method that it does not have, health: nobody needs to be known.
    if (rule === undefined || generated === true || (whenBusy === true && rule === 'public')) return
    const identity = await access.identify(credentialsOf(request))
    request.identity = identity
    if (identity.csrfToken !== null && !safeMethods.has(request.method)) {
      const sent = request.headers['x-csrf-token']
      requireCsrf(identity, typeof sent === 'string' ? sent : null)
    }
    if (rule !== 'public' && rule !== 'content') guard(identity, rule)
  }
}

/** A bearer token goes before a cookie: whoever sends one means it. */
export function credentialsOf(request: FastifyRequest): Credentials {
  const { authorization, cookie } = request.headers
  if (authorization !== undefined) {
    const bearer = /^Bearer +([\x21-\x7e]{1,512})$/i.exec(authorization)?.[1]
    if (bearer === undefined) throw new SignInNeededError('The Authorization header is not of the form "Bearer TOKEN".')
    return { bearer, sessionCookie: null, origin: originOf(request) }
  }
  const value = cookie === undefined ? undefined : cookiePattern.exec(cookie)?.[1]
  return { bearer: null, sessionCookie: value === undefined || value === '' ? null : value, origin: originOf(request) }
}

function originOf(request: FastifyRequest): Origin {
  return { address: request.ip, requestId: request.id }
}

export function isAnonymous(identity: Identity | null | undefined): boolean {
  return identity === null || identity === undefined || identity.authority.actor.kind === 'anonymous'
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
