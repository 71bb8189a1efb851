import { formatToken, parseToken } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type { FastifyReply, FastifyRequest } from 'fastify'

/**
 * How a browser carries the token of its last write: every node has applied it long before this has
 * passed.
 */
const cookieLifetimeS = 60
const cookiePattern = /(?:^|;\s*)stoa_token=([^;]*)/

/** The token in a `Cookie` header. */
export function cookieToken(cookie: string | undefined): Token | null {
  if (cookie === undefined) return null
  return parseToken(cookiePattern.exec(cookie)?.[1] ?? '')
}

/**
 * Tells the token of a write: as a header, and to a browser as a cookie, which its next reads bring
 * along whichever node they meet.
 */
export function setTokenHeader(request: FastifyRequest, reply: FastifyReply, token: Token): void {
  const text = formatToken(token)
  reply.header('stoa-token', text)
  const browser =
    request.headers.cookie !== undefined || request.headers['sec-fetch-site'] !== undefined
  if (!browser) return
  const secure = request.protocol === 'https' || request.server.api.config.secureCookies
  const cookie = `stoa_token=${text}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${cookieLifetimeS}${secure ? '; Secure' : ''}`
  const before = reply.getHeader('set-cookie')
  reply.removeHeader('set-cookie')
  reply.header('set-cookie', before === undefined ? cookie : [before, cookie].flat().map(String))
}
