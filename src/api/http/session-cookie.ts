import type { FastifyReply, FastifyRequest } from 'fastify'

/**
 * The session of a browser. HttpOnly keeps scripts from it, SameSite=Lax other sites' writes.
 * Behind TLS it is Secure and has the prefix `__Host-`, which browsers take from this very host
 * only: no subdomain, and no page without TLS, can set one.
 */
const session = cookieNamed('stoa_session')
/** A device that has signed in before; it lives for half a year. */
const device = cookieNamed('stoa_device')
const deviceLifetimeS = 180 * 24 * 60 * 60

type Cookie = { readonly name: string; readonly pattern: RegExp }
type CookiePair = { readonly plain: Cookie; readonly secure: Cookie }

function cookieNamed(name: string): CookiePair {
  const cookie = (full: string): Cookie => ({
    name: full,
    pattern: new RegExp(`(?:^|;\\s*)${full}=([^;]*)`),
  })
  return { plain: cookie(name), secure: cookie(`__Host-${name}`) }
}

/** True by TLS here, by a trusted proxy's `X-Forwarded-Proto`, or by the site's public URL. */
function isSecure(request: FastifyRequest): boolean {
  return request.protocol === 'https' || request.server.api.config.secureCookies
}

function readCookie(request: FastifyRequest, pair: CookiePair): string | null {
  const { cookie } = request.headers
  return cookie === undefined ? null : cookieIn(cookie, pair, isSecure(request))
}

function cookieIn(header: string, pair: CookiePair, secure: boolean): string | null {
  const value = (secure ? pair.secure : pair.plain).pattern.exec(header)?.[1]
  return value === undefined || value === '' ? null : value
}

export function readSessionCookie(request: FastifyRequest): string | null {
  return readCookie(request, session)
}

export function readDeviceCookie(request: FastifyRequest): string | null {
  return readCookie(request, device)
}

/** The session in a `Cookie` header. */
export function sessionCookieIn(
  cookie: string,
  { secure }: { readonly secure: boolean },
): string | null {
  return cookieIn(cookie, session, secure)
}

type CookieValue = { readonly value: string; readonly lifetimeS: number }

function setCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  pair: CookiePair,
  { value, lifetimeS }: CookieValue,
): void {
  const secure = isSecure(request)
  const { name } = secure ? pair.secure : pair.plain
  const attributes = ['Path=/', 'HttpOnly', 'SameSite=Lax', `Max-Age=${lifetimeS}`]
  if (secure) attributes.push('Secure')
  reply.header('set-cookie', [`${name}=${value}`, ...attributes].join('; '))
}

/** `value` null removes the cookie. */
export function setSessionCookie(
  request: FastifyRequest,
  reply: FastifyReply,
  value: string | null,
  lifetimeS = 0,
): void {
  setCookie(request, reply, session, {
    value: value ?? '',
    lifetimeS: value === null ? 0 : lifetimeS,
  })
}

export function setDeviceCookie(request: FastifyRequest, reply: FastifyReply, value: string): void {
  setCookie(request, reply, device, { value, lifetimeS: deviceLifetimeS })
}
