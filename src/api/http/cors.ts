import type { FastifyReply, FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import type { Server } from '#api/api-context.ts'
import { addVary } from '#api/delivery/vary.ts'

const maxAgeS = '600'
const methods = 'GET, HEAD, POST, PUT, PATCH, DELETE'
const exposed = [
  'ETag, X-Request-Id, Retry-After, Idempotency-Replayed, Location, Stoa-Token, Cache-Status',
  'Link, Accept-Ranges, Content-Range, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size',
  'Tus-Checksum-Algorithm, Upload-Offset, Upload-Length, Upload-Expires, Stoa-Asset',
].join(', ')
const allowed = [
  'Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-CSRF-Token',
  'X-Request-Id, Stoa-Token, Prefer, Range, If-Range, Tus-Resumable, Upload-Length, Last-Event-ID',
  'Upload-Metadata, Upload-Offset, Upload-Checksum',
].join(', ')

/** Cross-origin requests of browsers, from the origins that the configuration names. */
export const cors = plugin(
  async (server: Server) => {
    const { corsOrigins } = server.api.config
    if (corsOrigins.length === 0) return
    server.addHook('onSend', (request, reply, payload, done) => {
      corsHeaders(corsOrigins, request, reply)
      done(null, payload)
    })
  },
  { name: 'cors' },
)

/** Sets the headers by which browsers let a page of another origin read the response. */
export function corsHeaders(
  origins: readonly string[],
  request: FastifyRequest,
  reply: FastifyReply,
): void {
  if (origins.length === 0) return
  const { origin } = request.headers
  const any = origins.includes('*')
  // Also where any origin may read: a response to a request without an origin does not allow one,
  // and must not be kept for those that need it.
  addVary(reply, 'Origin')
  if (origin === undefined || !(any || origins.includes(origin))) return
  reply.header('access-control-allow-origin', any ? '*' : origin)
  if (!any) reply.header('access-control-allow-credentials', 'true')
  reply.header('access-control-expose-headers', exposed)
  const isPreflight =
    request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined
  if (!isPreflight) return
  reply.header('access-control-allow-methods', methods)
  reply.header('access-control-allow-headers', allowed)
  reply.header('access-control-max-age', maxAgeS)
}
