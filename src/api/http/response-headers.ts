import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ApiConfig, ApiContext } from '#api/api-context.ts'
import { compressResponse, mayCompress } from '#api/delivery/compression.ts'
import { ServerBusyError, UrlTooLongError } from '#api/problems/errors.ts'
import { Metrics } from '#api/metrics.ts'
import { addVary } from '#api/delivery/vary.ts'

type Done = (error?: Error) => void
type DonePayload = (error: Error | null, payload?: unknown) => void

const corsMaxAgeS = '600'
const corsMethods = 'GET, HEAD, POST, PUT, PATCH, DELETE'
const corsExposed =
  'ETag, X-Request-Id, Retry-After, Idempotency-Replayed, Location, Stoa-Token, Cache-Status, Link, Accept-Ranges, Content-Range, ' +
  'Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Upload-Offset, Upload-Length, Upload-Expires, Stoa-Asset'
const corsAllowed =
  'Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-CSRF-Token, X-Request-Id, Stoa-Token, Prefer, ' +
  'Range, If-Range, Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Upload-Checksum'
/** What a client that left before the end of its response is counted as. */
const clientLeft = 499

/** A response and what is needed when it has ended, without a closure per request. */
type Tracked = ServerResponse & { stoaRequest?: FastifyRequest; stoaStartedMs?: number }

/**
 * Before anything else: bounds the requests in flight and the length of the URL. When a response has
 * ended: counts it.
 */
export function requestHook({ config, clock, database, cluster, logger }: ApiContext): {
  readonly metrics: Metrics
  readonly hook: (request: FastifyRequest, reply: FastifyReply, done: Done) => void
} {
  let inFlight = 0
  const metrics = new Metrics(database, () => inFlight, cluster)
  function ended(this: Tracked): void {
    inFlight -= 1
    const request = this.stoaRequest!
    const seconds = (clock.monotonicMs() - this.stoaStartedMs!) / 1_000
    const status = this.writableFinished ? this.statusCode : clientLeft
    // Node does so itself, but for a connection that a CONNECT has ended: deadlines and what else
    // hangs on the request would stay.
    if (!this.writableFinished) request.raw.destroy()
    const route = request.routeOptions.url ?? 'none'
    metrics.observe(request.method, route, status, seconds)
    logger.debug(
      { requestId: request.id, method: request.method, route, status, seconds },
      'answered',
    )
  }
  const hook = (request: FastifyRequest, reply: FastifyReply, done: Done): void => {
    if (inFlight >= config.requestsMax && request.routeOptions.config.whenBusy !== true) {
      metrics.shed()
      done(new ServerBusyError())
      return
    }
    inFlight += 1
    const raw: Tracked = reply.raw
    raw.stoaRequest = request
    raw.stoaStartedMs = clock.monotonicMs()
    // `close` comes once for every response, whether it was finished or the client left.
    raw.once('close', ended)
    if (request.url.length > config.urlBytesMax)
      done(new UrlTooLongError(`The URL is longer than ${config.urlBytesMax} bytes.`))
    else done()
  }
  return { metrics, hook }
}

/** Headers of every response, and its compression. */
export function responseHook({
  config,
  state,
}: ApiContext): (
  request: FastifyRequest,
  reply: FastifyReply,
  payload: unknown,
  done: DonePayload,
) => void {
  const hsts = config.hstsS > 0 ? `max-age=${config.hstsS}; includeSubDomains` : null
  const cors = config.corsOrigins.length > 0
  return (request, reply, payload, done) => {
    reply.header('x-request-id', request.id)
    reply.header('x-content-type-options', 'nosniff')
    // A page or a file brings a policy of its own; data needs nothing at all.
    if (!reply.hasHeader('content-security-policy'))
      reply.header('content-security-policy', "default-src 'none'; frame-ancestors 'none'")
    if (!reply.hasHeader('referrer-policy')) reply.header('referrer-policy', 'no-referrer')
    if (hsts !== null) reply.header('strict-transport-security', hsts)
    if (cors) addCors(config, request, reply)
    if (state.draining) reply.header('connection', 'close')
    if (!config.compress || !mayCompress(reply, payload)) done(null, payload)
    else compressResponse(request, reply, payload, done)
  }
}

function addCors(config: ApiConfig, request: FastifyRequest, reply: FastifyReply): void {
  const { origin } = request.headers
  const any = config.corsOrigins.includes('*')
  // Also where any may read: what is answered without an origin does not say so, and must not be
  // kept for those who need it said.
  addVary(reply, 'Origin')
  if (origin === undefined || !(any || config.corsOrigins.includes(origin))) return
  reply.header('access-control-allow-origin', any ? '*' : origin)
  if (!any) reply.header('access-control-allow-credentials', 'true')
  reply.header('access-control-expose-headers', corsExposed)
  if (
    request.method !== 'OPTIONS' ||
    request.headers['access-control-request-method'] === undefined
  )
    return
  reply.header('access-control-allow-methods', corsMethods)
  reply.header('access-control-allow-headers', corsAllowed)
  reply.header('access-control-max-age', corsMaxAgeS)
}
