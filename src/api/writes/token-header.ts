import type { FastifyReply, FastifyRequest } from 'fastify'
import { RequestInvalidError } from '#api/problems/errors.ts'
import { formatToken, parseToken } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'

/**
 * The time for which a browser carries the token of its last write. Every node has applied the
 * write long before this has passed.
 */
const cookieLifetimeS = 60
const cookiePattern = /(?:^|;\s*)stoa_token=([^;]*)/

/** The token in a `Cookie` header. A browser keeps it, not a program, so a mangled one is none. */
export function cookieToken(cookie: string | undefined): Token | null {
  if (cookie === undefined) return null
  return parseToken(cookiePattern.exec(cookie)?.[1] ?? '')
}

/** The token in a `Stoa-Token` header; null: it is empty. */
export function readToken(text: string): Token | null | 'mangled' {
  return text.trim() === '' ? null : (parseToken(text.trim()) ?? 'mangled')
}

/**
 * The write that a request has to see. A token that cannot be read is refused: to ignore it would
 * be to show an older state without a word.
 */
export function tokenToSee({ headers }: FastifyRequest): Token | null {
  const header = headers['stoa-token']
  const token = typeof header === 'string' ? readToken(header) : null
  if (token === 'mangled')
    throw new RequestInvalidError({
      in: 'headers',
      path: '/stoa-token',
      message: 'is not a token that a write returned; send it unchanged, and one only',
    })
  return token ?? cookieToken(headers.cookie)
}

/**
 * Sets the token of a write: as a header, and for a browser as a cookie, which its next reads carry
 * to whichever node they meet.
 */
export function setTokenHeader(request: FastifyRequest, reply: FastifyReply, token: Token): void {
  const text = formatToken(token)
  reply.header('stoa-token', text)
  const isBrowser =
    request.headers.cookie !== undefined || request.headers['sec-fetch-site'] !== undefined
  if (!isBrowser) return
  const isSecure = request.protocol === 'https' || request.server.api.config.secureCookies
  const attributes = `Path=/; HttpOnly; SameSite=Lax; Max-Age=${cookieLifetimeS}`
  const cookie = `stoa_token=${text}; ${attributes}${isSecure ? '; Secure' : ''}`
  const before = reply.getHeader('set-cookie')
  reply.removeHeader('set-cookie')
  reply.header('set-cookie', before === undefined ? cookie : [before, cookie].flat().map(String))
}
