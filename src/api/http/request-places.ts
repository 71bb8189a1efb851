import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import type { Server } from '#api/api-context.ts'
import { networkOf } from '#access/throttle.ts'
import { Places } from '#api/http/places.ts'
import {
  HostInvalidError,
  RequestMalformedError,
  RequestTimeoutError,
  ServerBusyError,
  UrlTooLongError,
} from '#api/problems/errors.ts'
import { DatabaseAwayError } from '#cache/errors.ts'

/** The status in the metrics of a request whose client left before the end of its response. */
const clientLeft = 499
/** How often reads are looked for that wait for a database which is away. */
const waitCheckMs = 200
/**
 * `requestsMax` is for one address; all together have this many times as much, so that one address
 * alone leaves half of the places to others.
 */
const sharesOfAll = 2
const hostPattern = /^(?:[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?$/i

/**
 * What a request holds: a place among those that send their bodies, then one among those at work,
 * until its response is handed to the connection.
 */
export type Place = {
  readonly address: string
  readonly reply: FastifyReply
  readonly startedMs: number
  at: Places
}

/** A response, and what is needed when it has ended, without a closure per request. */
type Tracked = ServerResponse & { stoaRequest?: FastifyRequest; stoaStartedMs?: number }

/** Bounds the requests at work by client address, and counts them. */
export class RequestPlaces {
  readonly #working: Places
  readonly #sending: Places
  /** Requests whose client has left while the work for them goes on. */
  readonly #abandoned: Places
  readonly #held = new Set<Place>()
  #fullSinceMs: number | null = null

  constructor(requestsMax: number) {
    this.#working = new Places(sharesOfAll * requestsMax)
    this.#sending = new Places(sharesOfAll * requestsMax)
    this.#abandoned = new Places(sharesOfAll * requestsMax)
  }

  get inFlight(): number {
    return this.#held.size
  }

  /** Since when no client could have a place; null: there is room. */
  fullForMs(nowMs: number): number | null {
    if (!this.#working.isFull) this.#fullSinceMs = null
    else this.#fullSinceMs ??= nowMs
    return this.#fullSinceMs === null ? null : nowMs - this.#fullSinceMs
  }

  take(reply: FastifyReply, startedMs: number, sendsBody: boolean): Place | null {
    const address = networkOf(reply.request.ip)
    const at = sendsBody ? this.#sending : this.#working
    if (!at.take(address)) return null
    const place = { address, reply, startedMs, at }
    this.#held.add(place)
    return place
  }

  /** The body is here, and the work begins. False: there is no place for it now. */
  beginWork(place: Place): boolean {
    if (place.at === this.#working) return true
    if (!this.#working.take(place.address)) return false
    place.at.giveBack(place.address)
    place.at = this.#working
    return true
  }

  /**
   * The client has left. Its place is free for others, unless so many left before that what they
   * asked for is still being worked on.
   */
  abandon(place: Place): void {
    if (!this.#abandoned.take(place.address)) return
    place.at.giveBack(place.address)
    place.at = this.#abandoned
  }

  giveBack(place: Place): void {
    if (this.#held.delete(place)) place.at.giveBack(place.address)
  }

  /** Reads at work that began before this moment. */
  *readsBefore(startedMs: number): Iterable<FastifyReply> {
    for (const { reply, startedMs: startedAtMs } of this.#held)
      if (startedAtMs < startedMs && isRead(reply.request.method)) yield reply
  }
}

function isRead(method: string): boolean {
  return method === 'GET' || method === 'HEAD'
}

function sendsBody({ headers }: FastifyRequest): boolean {
  const length = headers['content-length']
  return headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0')
}

/**
 * One host, and a sound one; one way to read where the body ends. Where servers on the way read a
 * request differently, one request can be taken for two.
 */
function requireSoundFraming(request: FastifyRequest): void {
  const { rawHeaders, httpVersionMinor } = request.raw
  let hosts = 0
  for (let at = 0; at < rawHeaders.length; at += 2)
    if (rawHeaders[at]!.length === 4 && rawHeaders[at]!.toLowerCase() === 'host') hosts += 1
  const { host, 'transfer-encoding': coding } = request.headers
  if (hosts > 1) throw new HostInvalidError('Send one Host header; this request has several.')
  if (hosts === 0 && httpVersionMinor > 0 && request.raw.socket.remoteAddress !== undefined)
    throw new HostInvalidError('HTTP/1.1 needs a Host header.')
  if (host !== undefined && host !== '' && !hostPattern.test(host))
    throw new HostInvalidError('The Host header is not the name or address of a host.')
  if (coding !== undefined && (httpVersionMinor === 0 || coding.toLowerCase() !== 'chunked'))
    throw new RequestMalformedError(
      'The only Transfer-Encoding is chunked, and HTTP/1.0 has none; send Content-Length.',
    )
}

/**
 * Before anything else: a sound host, a URL that is not too long, a place. When the response has
 * ended, the request is counted.
 */
async function placesPlugin(server: Server): Promise<void> {
  admitRequests(server)
  watchBodies(server)
  refuseLateReads(server)
}

function admitRequests(server: Server): void {
  const { config, clock, logger, places } = server.api
  const { metrics } = server
  function ended(this: Tracked): void {
    const request = this.stoaRequest!
    const seconds = (clock.monotonicMs() - this.stoaStartedMs!) / 1_000
    const status = this.writableFinished ? this.statusCode : clientLeft
    // Node does so itself, except for a connection that a CONNECT has ended: deadlines and what
    // else depends on the request would stay.
    if (!this.writableFinished) request.raw.destroy()
    const route = request.routeOptions.url ?? 'none'
    metrics.observe({ method: request.method, route, status, seconds })
    logger.debug(
      { requestId: request.id, method: request.method, route, status, seconds },
      'responded',
    )
    const { place } = request
    if (place === null) return
    places.abandon(place)
    // The work ends by itself; this is for work that never does.
    setTimeout(() => places.giveBack(place), config.handlerTimeoutMs).unref()
  }
  server.addHook('onRequest', (request, reply, done) => {
    const startedMs = clock.monotonicMs()
    const raw: Tracked = reply.raw
    raw.stoaRequest = request
    raw.stoaStartedMs = startedMs
    // `close` comes once for every response, whether it was finished or the client left.
    raw.once('close', ended)
    if (request.routeOptions.config.whenBusy !== true) {
      request.place = places.take(reply, startedMs, sendsBody(request))
      if (request.place === null) {
        metrics.shed()
        done(new ServerBusyError())
        return
      }
    }
    if (request.url.length > config.urlBytesMax) {
      done(new UrlTooLongError(`The URL is longer than ${config.urlBytesMax} bytes.`))
      return
    }
    try {
      requireSoundFraming(request)
    } catch (error) {
      done(error as Error)
      return
    }
    done()
  })
}

/** Cuts clients that send their bodies too slowly; the work begins when the body is here. */
function watchBodies(server: Server): void {
  const { metrics } = server
  const { places } = server.api
  server.addHook('preParsing', (request, reply, _payload, done) => {
    if (request.place !== null && sendsBody(request))
      server.connections?.watchBody(request.raw.socket, () => {
        // The client is not slow with bytes that wait here.
        if (request.raw.readableLength === 0 && !request.raw.complete && !reply.sent)
          void reply.send(new RequestTimeoutError('The body of the request comes too slowly.'))
      })
    done()
  })
  server.addHook('preValidation', (request, _reply, done) => {
    const { place } = request
    if (place === null || !request.raw.complete) {
      done()
      return
    }
    server.connections?.watchBody(request.raw.socket, null)
    if (places.beginWork(place)) done()
    else {
      metrics.shed()
      done(new ServerBusyError())
    }
  })
}

/** A read waits for the database no longer than it takes to know that it is away. */
function refuseLateReads(server: Server): void {
  const { clock, cluster, places } = server.api
  const waitMs = 1.5 * cluster.feed.config.leaseMs
  const watch = setInterval(() => {
    if (cluster.cache.leased) return
    for (const reply of places.readsBefore(clock.monotonicMs() - waitMs))
      if (!reply.sent)
        void reply.send(new DatabaseAwayError('The database does not respond; try again shortly.'))
  }, waitCheckMs).unref()
  server.addHook('onClose', async () => clearInterval(watch))
}

export const requestPlaces = plugin(placesPlugin, { name: 'request-places' })

/** The last step of a response: from here on it is the connection's. */
export const placeRelease = plugin(
  async (server: Server) => {
    const { places } = server.api
    server.addHook('onSend', (request, _reply, payload, done) => {
      const { place } = request
      if (place !== null) {
        places.giveBack(place)
        request.place = null
        if (!request.raw.complete) server.connections?.watchBody(request.raw.socket, null)
      }
      done(null, payload)
    })
  },
  { name: 'place-release' },
)
