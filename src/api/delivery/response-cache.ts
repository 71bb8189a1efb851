import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ApiConfig, ApiContext } from '#api/api-context.ts'
import { cookieToken } from '#api/writes/token-header.ts'
import { chooseEncoding, compressBytes, isWorthCompressing } from '#api/delivery/compression.ts'
import type { Encoding } from '#api/delivery/compression.ts'
import { matchesTag, tagOf, weakTag } from '#api/delivery/entity-tag.ts'
import { isAnonymous } from '#api/http/identity.ts'
import type { Metrics } from '#api/metrics.ts'
import type { Cache, Cached } from '#cache/cache.ts'
import type { Codec } from '#cache/envelope.ts'
import { DatabaseAwayError } from '#cache/errors.ts'
import { FillReader } from '#cache/fill-reader.ts'
import type { FillContext } from '#cache/fill.ts'
import { parseToken } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type { Authority } from '#content/authority.ts'
import type { Call } from '#content/content.ts'
import { EntryNotFoundError, TypeNotFoundError } from '#content/errors.ts'
import type { Depends } from '#content/query/dependencies.ts'
import type { Perspective } from '#content/query/query.ts'
import type { RowTexts } from '#content/query/row-texts.ts'

/**
 * Whole answers as ready bytes. Each is kept in the cluster's cache under everything that can
 * change it: what the reader may see, the URL, the encoding. The change feed drops it when
 * something that it is made of changes.
 */

/** What a read makes. `version`: of an entry, for its tag. */
export type Rendered = {
  readonly body: string
  readonly version?: number
  readonly perspective: Perspective
}

/** `headers` in pairs, ready to be written; all but those of one request. */
export type ReadyResponse = {
  readonly headers: readonly string[]
  readonly body: Buffer
  readonly tag: string
  /** The lines of the head of a fresh response from memory, made when it is first given. */
  hitLines: string | null
}

/** That something is not there is a response too. */
type Absent = { readonly absent: 'entry' | 'type'; readonly name: string }
type Kept = ReadyResponse | Absent

const json = 'application/json; charset=utf-8'
/** What a response takes besides its body, in bytes. */
const responseBytes = 1_000

/**
 * The key of a response. Which reader it is does not matter, only what it may see, and whether
 * shared caches may keep it.
 */
export function responseKey(authority: Authority, url: string, encoding: Encoding | null): string {
  if (authority !== lastPrefix.authority || encoding !== lastPrefix.encoding) {
    lastPrefix = {
      authority,
      encoding,
      text: `${authority.actor.kind === 'anonymous' ? 'p' : 'i'}${authority.key} ${encoding ?? '-'} `,
    }
  }
  return lastPrefix.text + url
}

/** Requests that follow each other are mostly of the same kind. */
let lastPrefix: {
  readonly authority: Authority | null
  readonly encoding: Encoding | null
  readonly text: string
} = { authority: null, encoding: null, text: '' }

export type Delivery = {
  readonly context: ApiContext
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly type: string
  readonly perspective: Perspective
  readonly make: (call: Call) => Promise<Rendered>
}

/** Answers a read of content: from the cache, or by making the response, which is kept. */
export async function respondCached(delivery: Delivery): Promise<FastifyReply> {
  const { context, request, perspective } = delivery
  const { cluster, config } = context
  const { authority } = request.identity
  if (cluster === null || typeof perspective !== 'string') return respondUncached(delivery)
  const encoding = config.compress ? chooseEncoding(request.headers['accept-encoding']) : null
  const fill = async (load: FillContext): Promise<Kept> =>
    readyOf(
      config,
      isAnonymous(request.identity),
      await renderedOrAbsent(delivery, load, cluster.texts),
    )
  const keys = {
    plain: responseKey(authority, request.url, null),
    encoded: responseKey(authority, request.url, encoding),
  }
  try {
    return send(delivery, await encoded(cluster.cache, keys, encoding, fill, sinceOf(request)))
  } catch (error) {
    if (error instanceof NotKept) return respondUncached(delivery)
    throw error
  }
}

/** The question turned out to be of a kind whose answers are not kept. */
class NotKept extends Error {}

/**
 * A release is looked at by the few who make it, and hangs on rows that the change feed does not
 * tell.
 */
async function respondUncached({ context, request, reply, make }: Delivery): Promise<FastifyReply> {
  const { authority, staleMs } = request.identity
  const made = await make({ db: context.database, authority })
  if (staleMs !== null) setPairs(reply, staleHeaders(staleMs))
  const tag = tagOf(made.body, made.version)
  reply.headers({
    etag: tag,
    'cache-control': cacheControlOf(
      context.config,
      isAnonymous(request.identity),
      made.perspective,
    ),
    vary: 'Authorization, Cookie',
  })
  if (matchesTag(request.headers['if-none-match'], tag)) return reply.code(304).send()
  return reply.header('content-type', json).send(made.body)
}

/** The write that the reader has to see: its own, or one that it was told of. */
export function sinceOf(request: FastifyRequest): Token | null {
  const header = request.headers['stoa-token']
  return parseToken(typeof header === 'string' ? header : '') ?? cookieToken(request.headers.cookie)
}

type Keys = { readonly plain: string; readonly encoded: string }

async function encoded(
  cache: Cache,
  keys: Keys,
  encoding: Encoding | null,
  fill: (load: FillContext) => Promise<Kept>,
  since: Token | null,
): Promise<Cached<Kept>> {
  if (encoding === null) return cache.get(keys.plain, fill, { since, bytesOf, codec })
  try {
    return await cache.get(
      keys.encoded,
      async (load) => compressed(await load.get(keys.plain, fill, { bytesOf }), encoding),
      { since, bytesOf, codec },
    )
  } catch (error) {
    if (!(error instanceof DatabaseAwayError)) throw error
    // While the database is away, a response in another encoding is better than none.
    return cache.get(keys.plain, fill, { since, bytesOf, codec })
  }
}

/** For the second level: the head as JSON, a zero byte, the body. */
const codec: Codec<Kept> = {
  encode: (kept) =>
    'absent' in kept
      ? Buffer.from(`${JSON.stringify(kept)}\0`)
      : Buffer.concat([
          Buffer.from(`${JSON.stringify({ headers: kept.headers, tag: kept.tag })}\0`),
          kept.body,
        ]),
  decode: (bytes) => {
    const end = bytes.indexOf(0)
    if (end < 0) return null
    const head = JSON.parse(bytes.toString('utf8', 0, end)) as
      | Absent
      | Pick<ReadyResponse, 'headers' | 'tag'>
    return 'absent' in head
      ? head
      : { headers: head.headers, body: bytes.subarray(end + 1), tag: head.tag, hitLines: null }
  },
}

function bytesOf(kept: Kept): number {
  return responseBytes + ('absent' in kept ? 0 : kept.body.byteLength)
}

async function renderedOrAbsent(
  delivery: Delivery,
  load: FillContext,
  texts: RowTexts,
): Promise<Rendered | Absent> {
  try {
    const { identity, server } = delivery.request
    const made = await delivery.make({
      db: new FillReader(load),
      authority: identity.authority,
      depends: telling(load, server.metrics),
      known: { texts, life: () => load.epoch },
    })
    if (typeof made.perspective !== 'string') throw new NotKept()
    return made
  } catch (error) {
    if (error instanceof EntryNotFoundError) return { absent: 'entry', name: '' }
    if (error instanceof TypeNotFoundError) return { absent: 'type', name: delivery.type }
    throw error
  }
}

/** The fill's context, which also counts what could only be told roughly. */
function telling(load: FillContext, metrics: Metrics): Depends {
  return {
    row: (collection, key) => load.row(collection, key),
    list: (collection, predicate, page = null) => load.list(collection, predicate, page),
    widened: () => metrics.widened(),
  }
}

function readyOf(config: ApiConfig, anonymous: boolean, made: Rendered | Absent): Kept {
  if ('absent' in made) return made
  const body = Buffer.from(made.body)
  const tag = tagOf(body, made.version)
  const vary = `Authorization, Cookie${isWorthCompressing(body.byteLength) && config.compress ? ', Accept-Encoding' : ''}${config.corsOrigins.length > 0 ? ', Origin' : ''}`
  const headers = [
    'content-type',
    json,
    'content-length',
    String(body.byteLength),
    'etag',
    tag,
    'cache-control',
    cacheControlOf(config, anonymous, made.perspective),
    'vary',
    vary,
    'x-content-type-options',
    'nosniff',
    'content-security-policy',
    "default-src 'none'; frame-ancestors 'none'",
    'referrer-policy',
    'no-referrer',
    ...(config.hstsS > 0
      ? ['strict-transport-security', `max-age=${config.hstsS}; includeSubDomains`]
      : []),
  ]
  return { headers, body, tag, hitLines: null }
}

async function compressed(kept: Kept, encoding: Encoding): Promise<Kept> {
  if ('absent' in kept || !isWorthCompressing(kept.body.byteLength)) return kept
  const body = await compressBytes(encoding, kept.body)
  const changed = new Map([
    ['content-length', String(body.byteLength)],
    ['etag', weakTag(kept.tag)],
  ])
  const headers = kept.headers.map(
    (text, at) => (at % 2 === 1 && changed.get(kept.headers[at - 1]!)) || text,
  )
  return {
    headers: [...headers, 'content-encoding', encoding],
    body,
    tag: kept.tag,
    hitLines: null,
  }
}

function send({ request, reply }: Delivery, { value, state, ageMs }: Cached<Kept>): FastifyReply {
  // What somebody may see is part of the response: it is not fresher than that.
  const { staleMs } = request.identity
  const status =
    state === 'stale' || staleMs !== null
      ? staleHeaders(Math.max(ageMs, staleMs ?? 0))
      : ['cache-status', state === 'hit' ? 'stoa; hit' : 'stoa; fwd=miss']
  setPairs(reply, status)
  if ('absent' in value)
    throw value.absent === 'entry' ? new EntryNotFoundError() : new TypeNotFoundError(value.name)
  setPairs(reply, value.headers)
  if (!matchesTag(request.headers['if-none-match'], value.tag)) return reply.send(value.body)
  reply.removeHeader('content-length')
  reply.removeHeader('content-encoding')
  return reply.code(304).send()
}

function setPairs(reply: FastifyReply, pairs: readonly string[]): void {
  for (let at = 0; at < pairs.length; at += 2) reply.header(pairs[at]!, pairs[at + 1]!)
}

/**
 * RFC 9211. A stale response says since how many seconds nobody could tell whether it is still so; in
 * pairs, as `ReadyResponse.headers`.
 */
export function staleHeaders(ageMs: number): string[] {
  const ageS = Math.ceil(ageMs / 1_000)
  return ['cache-status', `stoa; hit; ttl=-${ageS}; detail=stale`, 'age', String(ageS)]
}

/**
 * Browsers ask again each time; shared caches answer for a moment, then refresh behind the reader's
 * back.
 */
function cacheControlOf(
  { sharedCacheS, staleWhileRevalidateS }: ApiConfig,
  anonymous: boolean,
  perspective: Perspective,
): string {
  return anonymous && perspective === 'published'
    ? `public, max-age=0, must-revalidate, s-maxage=${sharedCacheS}, stale-while-revalidate=${staleWhileRevalidateS}`
    : 'private, no-store'
}
