import { callerOf } from '#api/http/caller.ts'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ApiConfig, ApiContext } from '#api/api-context.ts'
import { chooseEncoding, compressBytes, isWorthCompressing } from '#api/delivery/compression.ts'
import type { Encoding } from '#api/delivery/compression.ts'
import { matchesTag, tagOf, weakTag } from '#api/delivery/entity-tag.ts'
import { staleHeaders } from '#api/delivery/stale-headers.ts'
import { isAnonymous } from '#api/http/identity.ts'
import { securityHeadersOf } from '#api/http/security-headers.ts'
import type { Metrics } from '#api/metrics.ts'
import { tokenToSee } from '#api/writes/token-header.ts'
import type { Cached } from '#cache/cache.ts'
import type { Dependency } from '#cache/dependency.ts'
import type { Codec } from '#cache/envelope.ts'
import { DatabaseAwayError } from '#cache/errors.ts'
import type { FillContext } from '#cache/fill.ts'
import type { Token } from '#change-feed/token.ts'
import type { Call } from '#content/content.ts'
import { EntryNotFoundError, TypeNotFoundError } from '#content/errors.ts'
import type { Depends } from '#content/query/dependencies.ts'
import type { Perspective } from '#content/query/query.ts'
import { tagsOfResponse } from '#http-cache/tags.ts'

/**
 * Whole responses as bytes. Each is kept in the cluster's cache under everything that can change
 * it: what the caller may see, the URL, the encoding. The change feed drops it when something that
 * it depends on changes.
 */

/** The result of a read of content. `version`: locale and version of an entry, for its tag. */
export type Rendered = {
  readonly body: string
  readonly version?: string
  readonly perspective: Perspective
}

/** `headers` in pairs, ready to be written; all but those that differ between requests. */
export type CachedResponse = {
  readonly headers: readonly string[]
  /** More of them, by which the HTTP cache may keep the response; null: it must not. */
  readonly edge: readonly string[] | null
  readonly body: Buffer
  readonly tag: string
  /** The lines of the head of a fresh response from memory, made when they are first needed. */
  hitLines: string | null
}

/** A missing entry or type is kept too. */
type Absent = { readonly absent: 'entry' | 'type'; readonly name: string }
type Kept = CachedResponse | Absent

const json = 'application/json; charset=utf-8'
/** The memory of a response besides its body, in bytes. */
const responseBytes = 1_000

export type ContentRead = {
  readonly context: ApiContext
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly type: string
  readonly perspective: Perspective
  readonly render: (call: Call) => Promise<Rendered>
  /** The response depends on more than what the caller may read: on all their rights. */
  readonly byRights?: boolean
}

/** Responds to a read of content: from the cache, or by rendering it, which is then kept. */
export async function respondCached(read: ContentRead): Promise<FastifyReply> {
  const { context, request, perspective } = read
  if (typeof perspective !== 'string') return respondUncached(read)
  const { authority } = request.identity
  const encoding = context.config.compress
    ? chooseEncoding(request.headers['accept-encoding'])
    : null
  const url = read.byRights === true ? `${request.url} ${request.identity.rightsHash}` : request.url
  const keys = {
    plain: context.responseKeys.of(authority, url, null),
    encoded: context.responseKeys.of(authority, url, encoding),
  }
  try {
    return send(read, await lookUp(read, keys, encoding, tokenToSee(request)))
  } catch (error) {
    if (error instanceof UncachedPerspective) return respondUncached(read)
    throw error
  }
}

/** The query turned out to be one whose responses are not kept. */
class UncachedPerspective extends Error {}

/**
 * Reads the database. Responses in the perspective of a release depend on its items and its state,
 * which the change feed does not carry.
 */
async function respondUncached({
  context,
  request,
  reply,
  render,
}: ContentRead): Promise<FastifyReply> {
  const { authority } = request.identity
  const rendered = await render({ db: context.database, authority, caller: callerOf(request) })
  const tag = tagOf(rendered.body, rendered.version)
  reply.headers({
    etag: tag,
    'cache-control': cacheControlOf(context.config, request, rendered.perspective),
    vary: varyOf(context.config, false),
  })
  if (matchesTag(request.headers['if-none-match'], tag)) return reply.code(304).send()
  return reply.header('content-type', json).send(rendered.body)
}

type Keys = { readonly plain: string; readonly encoded: string }

async function lookUp(
  read: ContentRead,
  keys: Keys,
  encoding: Encoding | null,
  since: Token | null,
): Promise<Cached<Kept>> {
  const { cache } = read.context.cluster
  const options = { since, bytesOf, codec }
  const fill = (load: FillContext): Promise<Kept> => renderOrAbsent(read, load)
  if (encoding === null) return cache.get(keys.plain, fill, options)
  try {
    return await cache.get(
      keys.encoded,
      async (load) => compressed(await load.get(keys.plain, fill, { bytesOf }), encoding),
      options,
    )
  } catch (error) {
    if (!(error instanceof DatabaseAwayError)) throw error
    // While the database is away, a response in another encoding is better than none.
    return cache.get(keys.plain, fill, options)
  }
}

/** For the second level: the head as JSON, a zero byte, the body. */
const codec: Codec<Kept> = {
  encode: (kept) =>
    'absent' in kept
      ? Buffer.from(`${JSON.stringify(kept)}\0`)
      : Buffer.concat([
          Buffer.from(
            `${JSON.stringify({ headers: kept.headers, edge: kept.edge, tag: kept.tag })}\0`,
          ),
          kept.body,
        ]),
  decode: (bytes) => {
    const end = bytes.indexOf(0)
    if (end < 0) return null
    const head: unknown = JSON.parse(bytes.toString('utf8', 0, end))
    if (isAbsent(head)) return head
    return isHead(head) ? { ...head, body: bytes.subarray(end + 1), hitLines: null } : null
  },
}

function isAbsent(head: unknown): head is Absent {
  const { absent, name } = (head ?? {}) as Partial<Absent>
  return (absent === 'entry' || absent === 'type') && typeof name === 'string'
}

function isHead(head: unknown): head is Pick<CachedResponse, 'headers' | 'edge' | 'tag'> {
  const { headers, edge, tag } = (head ?? {}) as Partial<CachedResponse>
  return typeof tag === 'string' && arePairs(headers) && (edge === null || arePairs(edge))
}

function arePairs(headers: unknown): headers is string[] {
  return Array.isArray(headers) && headers.length % 2 === 0 && headers.every(isHeaderText)
}

/** A line break would begin another header. */
function isHeaderText(value: unknown): boolean {
  return typeof value === 'string' && !/[\r\n]/.test(value)
}

function bytesOf(kept: Kept): number {
  return responseBytes + ('absent' in kept ? 0 : kept.body.byteLength)
}

async function renderOrAbsent(read: ContentRead, load: FillContext): Promise<Kept> {
  const { context, request } = read
  try {
    const rendered = await read.render({
      db: load,
      authority: request.identity.authority,
      caller: callerOf(request),
      depends: dependenciesOf(load, request.server.metrics),
      known: { texts: context.cluster.texts, life: () => load.epoch },
    })
    if (typeof rendered.perspective !== 'string') throw new UncachedPerspective()
    return cachedResponse(context, request, rendered, load.dependencies)
  } catch (error) {
    if (error instanceof EntryNotFoundError) return { absent: 'entry', name: '' }
    if (error instanceof TypeNotFoundError) return { absent: 'type', name: read.type }
    throw error
  }
}

/** Records in a fill what its value depends on, and counts what is wider than the query. */
export function dependenciesOf(load: FillContext, metrics: Metrics): Depends {
  return {
    row: (collection, key) => load.row(collection, key),
    list: (collection, predicate, page = null) => load.list(collection, predicate, page),
    widened: () => metrics.inexactDependency(),
  }
}

function cachedResponse(
  { config, httpCache }: ApiContext,
  request: FastifyRequest,
  rendered: Rendered,
  dependencies: readonly Dependency[],
): CachedResponse {
  const body = Buffer.from(rendered.body)
  const tag = tagOf(body, rendered.version)
  const headers = [
    'content-type',
    json,
    'content-length',
    String(body.byteLength),
    'etag',
    tag,
    'cache-control',
    cacheControlOf(config, request, rendered.perspective),
    'vary',
    varyOf(config, isWorthCompressing(body.byteLength) && config.compress),
    ...securityHeadersOf(config),
  ]
  const isShared = httpCache !== null && isForAll(request, rendered.perspective)
  const tags = isShared ? tagsOfResponse(dependencies) : null
  const edge = tags === null || httpCache === null ? null : httpCache.kept(tags)
  return { headers, edge, body, tag, hitLines: null }
}

/**
 * A reader with a token has to see its write, so a shared cache must not give it another's copy.
 */
function varyOf({ corsOrigins }: ApiConfig, compressed: boolean): string {
  const names = ['Authorization', 'Cookie', 'Stoa-Token']
  if (compressed) names.push('Accept-Encoding')
  if (corsOrigins.length > 0) names.push('Origin')
  return names.join(', ')
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
    edge: kept.edge,
    body,
    tag: kept.tag,
    hitLines: null,
  }
}

function send({ request, reply }: ContentRead, cached: Cached<Kept>): FastifyReply {
  const { value, state, ageMs } = cached
  // The grants of the caller are part of the response, so it is not fresher than they are.
  const { staleMs } = request.identity
  if (state === 'stale' || staleMs !== null) markStale(reply, Math.max(ageMs, staleMs ?? 0))
  else reply.header('cache-status', state === 'hit' ? 'stoa; hit' : 'stoa; fwd=miss')
  if ('absent' in value)
    throw value.absent === 'entry' ? new EntryNotFoundError() : new TypeNotFoundError(value.name)
  const { headers } = value
  request.edge = value.edge
  for (let at = 0; at < headers.length; at += 2) reply.header(headers[at]!, headers[at + 1]!)
  if (!matchesTag(request.headers['if-none-match'], value.tag)) return reply.send(value.body)
  reply.removeHeader('content-length')
  reply.removeHeader('content-encoding')
  return reply.code(304).send()
}

export function markStale(reply: FastifyReply, ageMs: number): void {
  const [status, age] = staleHeaders(ageMs)
  reply.header('cache-status', status).header('age', age)
}

/**
 * Browsers ask each time. A shared cache that is not purged keeps a response for a moment, which
 * takes a rush of readers off the nodes, and asks after that. The HTTP cache of this site has
 * headers of its own.
 */
function cacheControlOf(
  { sharedCacheS }: ApiConfig,
  request: FastifyRequest,
  perspective: Perspective,
): string {
  return isForAll(request, perspective)
    ? `public, max-age=0, s-maxage=${sharedCacheS}`
    : 'private, no-store'
}

/** True of a response that every reader without credentials may see. */
function isForAll({ identity }: FastifyRequest, perspective: Perspective): boolean {
  return isAnonymous(identity) && perspective === 'published'
}
