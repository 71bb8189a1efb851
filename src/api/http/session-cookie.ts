import type { FastifyReply, FastifyRequest } from 'fastify'

/**
 * The session of a browser. HttpOnly keeps scripts from it, SameSite=Lax other sites' writes.
 * Behind TLS it is Secure and has the prefix `__Host-`, which browsers take from this very host
 * only: no subdomain, no page without TLS can plant one.
 */
const plainName = 'stoa_session'
const secureName = '__Host-stoa_session'
const patterns = { [plainName]: patternOf(plainName), [secureName]: patternOf(secureName) }

function patternOf(name: string): RegExp {
  return new RegExp(`(?:^|;\\s*)${name}=([^;]*)`)
}

/**
 * By TLS here, by a trusted proxy's `X-Forwarded-Proto`, or because the site's public URL says so.
 */
function isSecure(request: FastifyRequest): boolean {
  return request.protocol === 'https' || request.server.api.config.secureCookies
}

export function readSessionCookie(request: FastifyRequest): string | null {
  const { cookie } = request.headers
  return cookie === undefined ? null : sessionCookieIn(cookie, { secure: isSecure(request) })
}

/** The session in a `Cookie` header. */
export function sessionCookieIn(
  cookie: string,
  { secure }: { readonly secure: boolean },
): string | null {
  const value = patterns[secure ? secureName : plainName].exec(cookie)?.[1]
  return value === undefined || value === '' ? null : value
}

/** `value` null takes the cookie away. */
export function setSessionCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  value: string | null,
  lifetimeS = 0,
): void {
  const secure = isSecure(request)
  const attributes = `Path=/; HttpOnly; SameSite=Lax; Max-Age=${value === null ? 0 : lifetimeS}${secure ? '; Secure' : ''}`
  reply.header('set-cookie', `${secure ? secureName : plainName}=${value ?? ''}; ${attributes}`)
}
