import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { ApiContext, RoutePlugin } from '#api/api-context.ts'
import { parseWatchQuery } from '#api/delivery/query-string.ts'
import type { WatchQuery } from '#api/delivery/query-string.ts'
import { callerOf } from '#api/http/caller.ts'
import { corsHeaders } from '#api/http/cors.ts'
import { credentialsOf } from '#api/http/identity.ts'
import { securityHeadersOf } from '#api/http/security-headers.ts'
import { ServerBusyError } from '#api/problems/errors.ts'
import { localeCode, typeName } from '#api/schemas/content.ts'
import { strict } from '#api/schemas/shared.ts'
import type { Sink } from '#events/event-stream.ts'
import type { StreamRequest } from '#events/event-hub.ts'
import type { Frame } from '#events/frame.ts'
import { withTimeout } from '#lib/timeout.ts'

/** A client that does not follow waits no longer than this for what it has missed. */
const collectMs = 10_000
const tagsMax = 100
const contentType = 'text/event-stream'

const parameters = strict({
  type: Type.Optional(typeName()),
  perspective: Type.Optional(
    Type.Union([Type.Literal('published'), Type.Literal('draft')], { default: 'published' }),
  ),
  locale: Type.Optional(localeCode()),
  tag: Type.Optional(
    Type.String({
      description: 'Tags of responses, separated by commas: only events with one of these.',
    }),
  ),
  follow: Type.Optional(
    Type.Boolean({
      default: true,
      description: '`false`: what there is since `Last-Event-ID`, and then the end.',
    }),
  ),
})

/** A stream of server-sent events about entries. */
export const eventRoutes: RoutePlugin = (server, context) => {
  server.route({
    method: 'GET',
    url: '/api/events',
    config: {
      access: 'content',
      errors: [
        'E_FORBIDDEN',
        'E_LOCALE_NOT_FOUND',
        'E_QUERY_FIELD',
        'E_QUERY_LIMIT',
        'E_QUERY_OPERATOR',
        'E_QUERY_PARAMETER',
        'E_QUERY_VALUE',
        'E_TYPE_NOT_FOUND',
      ],
    },
    schema: {
      operationId: 'followEvents',
      summary: 'What happens to entries, as server-sent events',
      description:
        'Each event says that an entry has entered, changed in, or left what the caller may read ' +
        'and asks for: by `type`, `locale`, `tag`, and with `type` by `where[field][op]=value`. ' +
        'It carries the token with which a read sees the change on any node, and the tags of ' +
        'the responses that showed it. A client that comes again with `Last-Event-ID` misses ' +
        'nothing, on whichever node, but may get an event twice: `id` reports. After the event ' +
        '`restart` it has to read anew what it shows.',
      tags: ['content'],
      documented: { querystring: parameters },
      response: {
        200: { description: 'OK', content: { [contentType]: { schema: Type.String() } } },
      },
    },
    handler: async (request, reply) => {
      const query = parseWatchQuery(request.url.split('?', 2)[1] ?? '')
      const asked = streamRequest(request, query)
      if (!query.follow) return sendMissed(context, asked, reply)
      await follow(context, asked, { request, reply })
      return reply
    },
  })
}

function streamRequest(request: FastifyRequest, query: WatchQuery): StreamRequest {
  const { type, perspective, locale, read, tags } = query
  const header = request.headers['last-event-id']
  // The order of the parameters makes no difference to the events, only to who shares them.
  const text = request.url.split('?', 2)[1] ?? ''
  return {
    credentials: credentialsOf(request),
    identity: request.identity,
    watched: {
      key: text,
      watch: { type, perspective, locale, read },
      tags: tags.slice(0, tagsMax),
    },
    lastEventId: typeof header === 'string' && header !== '' ? header : null,
  }
}

/** One response with all that has happened since, as the stream would have begun. */
async function sendMissed(
  { events }: ApiContext,
  asked: StreamRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let text = ''
  const stream = await events.open(asked, {
    write: (frame) => {
      text += frame.text.toString()
      if (/^id: /m.test(text)) resolve()
    },
    unreadBytes: () => 0,
    end: resolve,
    destroy: resolve,
  })
  await withTimeout(promise, collectMs)
  stream[Symbol.dispose]()
  return reply.headers(streamHeaders).type(contentType).send(text)
}

const streamHeaders = { 'cache-control': 'no-store, no-transform', 'x-accel-buffering': 'no' }

async function follow(
  context: ApiContext,
  asked: StreamRequest,
  { request, reply }: { readonly request: FastifyRequest; readonly reply: FastifyReply },
): Promise<void> {
  const { events, streamPlaces, places } = context
  const caller = callerOf(request)
  if (!streamPlaces.take(caller)) throw new ServerBusyError()
  const { raw } = reply
  let stream: Disposable | null = null
  let isOver = false
  raw.once('close', () => {
    isOver = true
    streamPlaces.giveBack(caller)
    stream?.[Symbol.dispose]()
  })
  stream = await events.open(asked, new ResponseSink(context, request, reply))
  if (isOver) stream[Symbol.dispose]()
  if (request.place !== null) places.giveBack(request.place)
  request.place = null
}

/** Writes frames to the connection of a response, whose head goes out with the first. */
class ResponseSink implements Sink {
  readonly #reply: FastifyReply
  readonly #isChunked: boolean

  constructor({ config }: ApiContext, request: FastifyRequest, reply: FastifyReply) {
    this.#reply = reply
    this.#isChunked = request.raw.httpVersionMinor > 0
    const security = securityHeadersOf(config)
    for (let at = 0; at < security.length; at += 2) reply.header(security[at]!, security[at + 1]!)
    corsHeaders(config.corsOrigins, request, reply)
    reply.headers({ ...streamHeaders, 'content-type': contentType, 'x-request-id': request.id })
  }

  write({ chunk, text }: Frame): void {
    const { raw, sent } = this.#reply
    if (!sent) this.#begin()
    raw.socket?.write(this.#isChunked ? chunk : text)
  }

  unreadBytes(): number {
    return this.#reply.raw.socket?.writableLength ?? 0
  }

  end(): void {
    this.#reply.raw.end()
  }

  destroy(): void {
    this.#reply.raw.destroy()
  }

  #begin(): void {
    this.#reply.hijack()
    const { raw } = this.#reply
    // The client is to find another node when this one ends the stream.
    raw.shouldKeepAlive = false
    raw.writeHead(200, this.#reply.getHeaders() as Record<string, string>)
    raw.flushHeaders()
  }
}
