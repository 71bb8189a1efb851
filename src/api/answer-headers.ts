import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ApiConfig, ApiContext } from '#api/api-context.ts'
import { ServerBusyError, UrlTooLongError } from '#api/errors.ts'

type Done = (error?: Error) => void
type DonePayload = (error: Error | null, payload?: unknown) => void

const corsMaxAgeS = '600'
const corsMethods = 'GET, HEAD, POST, PUT, PATCH, DELETE'
const corsExposed = 'ETag, X-Request-Id, Retry-After, Idempotency-Replayed, Location, Stoa-Token, Cache-Status, Link'

/** Before anything else: bounds the requests in flight and the length of the URL. */
export function requestHook({ config }: ApiContext): (request: FastifyRequest, reply: FastifyReply, done: Done) => void {
  let inFlight = 0
  const ended = (): void => {
    inFlight -= 1
  }
  return (request, reply, done) => {
    if (inFlight >= config.requestsMax && request.routeOptions.config.whenBusy !== true) {
      done(new ServerBusyError())
      return
    }
    inFlight += 1
    const raw: ServerResponse = reply.raw
    // `close` comes once for every response, whether it was finished or the client left.
    raw.once('close', ended)
    if (request.url.length > config.urlBytesMax) done(new UrlTooLongError(`The URL is longer than ${config.urlBytesMax} bytes.`))
    else done()
  }
}

/** Headers of every answer. */
export function answerHook({ config, state }: ApiContext): (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: DonePayload) => void {
  const hsts = config.hstsS > 0 ? `max-age=${config.hstsS}; includeSubDomains` : null
  const cors = config.corsOrigins.length > 0
  return (request, reply, payload, done) => {
    reply.header('x-request-id', request.id)
    reply.header('x-content-type-options', 'nosniff')
    // A page or a file brings a policy of its own; data needs nothing at all.
    if (!reply.hasHeader('content-security-policy')) reply.header('content-security-policy', "default-src 'none'; frame-ancestors 'none'")
    reply.header('referrer-policy', 'no-referrer')
    if (hsts !== null) reply.header('strict-transport-security', hsts)
    if (cors) addCors(config, request, reply)
    if (state.draining) reply.header('connection', 'close')
    done(null, payload)
  }
}

function addCors(config: ApiConfig, request: FastifyRequest, reply: FastifyReply): void {
  const { origin } = request.headers
  const any = config.corsOrigins.includes('*')
  if (!any) addVary(reply, 'Origin')
  if (origin === undefined || !(any || config.corsOrigins.includes(origin))) return
  reply.header('access-control-allow-origin', any ? '*' : origin)
  if (!any) reply.header('access-control-allow-credentials', 'true')
  reply.header('access-control-expose-headers', corsExposed)
  if (request.method !== 'OPTIONS' || request.headers['access-control-request-method'] === undefined) return
  reply.header('access-control-allow-methods', corsMethods)
  reply.header('access-control-allow-headers', 'Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-CSRF-Token, X-Request-Id, Stoa-Token, Prefer')
  reply.header('access-control-max-age', corsMaxAgeS)
}

/** Adds a name to `Vary`, once. */
export function addVary(reply: FastifyReply, name: string): void {
  const before = reply.getHeader('vary')
  if (before === undefined) reply.header('vary', name)
  else if (!String(before).toLowerCase().includes(name.toLowerCase())) reply.header('vary', `${String(before)}, ${name}`)
}
