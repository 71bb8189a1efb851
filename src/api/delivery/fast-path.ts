import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ApiContext } from '#api/api-context.ts'
import { responseKey, staleHeaders } from '#api/delivery/response-cache.ts'
import type { ReadyResponse } from '#api/delivery/response-cache.ts'
import { cookieToken } from '#api/writes/token-header.ts'
import { chooseEncoding } from '#api/delivery/compression.ts'
import { matchesTag } from '#api/delivery/entity-tag.ts'
import { headLines, HeadWriter } from '#api/delivery/raw-head.ts'
import { nextRequestId, requestIdOf } from '#api/http/request-id.ts'
import { sessionCookieIn } from '#api/http/session-cookie.ts'
import { parseToken } from '#change-feed/token.ts'
import { memoizeBounded } from '#lib/memoize-bounded.ts'

const prefix = '/api/content/'
const bearerPattern = /^Bearer +([\x21-\x7e]{1,512})$/i

/** Headers of a request that decide its response; null: it has not got it. */
type Asked = {
  authorization: string | null
  cookie: string | null
  token: string | null
  ifNoneMatch: string | null
  acceptEncoding: string | null
  requestId: string | null
  origin: boolean
}

/**
 * Answers a read whose response is ready, before the router and the hooks: who asks, what they may
 * see and what they have to see are looked up in memory, and the bytes are written. Returns false,
 * having done nothing, whenever anything is not at hand; the routes then answer the same.
 */
export function fastPath(
  context: ApiContext,
  answered: () => void,
): (request: IncomingMessage, response: ServerResponse) => boolean {
  const { cluster, config, access, state } = context
  if (cluster === null) return () => false
  const secure = config.secureCookies
  const heads = new HeadWriter(config.keepAliveTimeoutMs)
  return (request, response) => {
    const { url = '', method } = request
    if (
      method !== 'GET' ||
      !url.startsWith(prefix) ||
      url.length > config.urlBytesMax ||
      state.draining
    )
      return false
    const asked = headersOf(request.rawHeaders)
    // What a browser of another site may read is decided by the hooks.
    if (asked === null || (asked.origin && config.corsOrigins.length > 0)) return false
    const bearer = asked.authorization === null ? null : bearerIn(asked.authorization)
    const session =
      bearer === null && asked.cookie !== null && asked.cookie.includes('stoa_session')
    // Which cookie counts depends on whether the proxy in front was reached by TLS.
    if (session && config.trustProxy !== false && !secure) return false
    const nowMs = cluster.cache.nowMs()
    const authority = access.peek(
      { bearer, sessionCookie: session ? sessionCookieIn(asked.cookie ?? '', { secure }) : null },
      nowMs,
    )
    if (authority === null) return false
    const encoding = config.compress ? chooseEncoding(asked.acceptEncoding ?? undefined) : null
    const since =
      (asked.token === null ? null : tokenIn(asked.token)) ??
      (asked.cookie === null ? null : cookieToken(asked.cookie))
    const kept = cluster.cache.peek(responseKey(authority, url, encoding), nowMs, since) as
      | ReadyResponse
      | undefined
    if (kept === undefined || !('body' in kept)) return false
    answered()
    write(response, heads, kept, asked, nowMs, cluster.cache.staleForMs(nowMs))
    return true
  }
}

function write(
  response: ServerResponse,
  heads: HeadWriter,
  kept: ReadyResponse,
  asked: Asked,
  nowMs: number,
  staleForMs: number | null,
): void {
  const requestId = asked.requestId === null ? nextRequestId() : requestIdOf(asked.requestId)
  const matches = asked.ifNoneMatch !== null && matchesTag(asked.ifNoneMatch, kept.tag)
  if (
    !matches &&
    staleForMs === null &&
    heads.write(
      response,
      (kept.hitLines ??= headLines([...kept.headers, ...hitStatus])),
      requestId,
      nowMs,
    )
  ) {
    response.end(kept.body)
    return
  }
  const headers = [
    ...kept.headers,
    ...(staleForMs === null ? hitStatus : staleHeaders(staleForMs)),
    'x-request-id',
    requestId,
  ]
  if (matches)
    response
      .writeHead(
        304,
        headers.filter(
          (_, at) => !/^content-(?:length|encoding|type)$/.test(headers[at - (at % 2)]!),
        ),
      )
      .end()
  else response.writeHead(200, headers).end(kept.body)
}

const hitStatus = ['cache-status', 'stoa; hit']

/**
 * A client sends its credentials, and the token of its last write, with each request that follows.
 */
const textsMax = 1_000
const bearerIn = memoizeBounded(
  textsMax,
  (authorization) => bearerPattern.exec(authorization)?.[1] ?? '',
)
const tokenIn = memoizeBounded(textsMax, parseToken)

/**
 * Looks at the raw pairs, since to make an object of all headers takes as long as everything else
 * here. Null: one came twice.
 */
function headersOf(raw: readonly string[]): Asked | null {
  const asked: Asked = {
    authorization: null,
    cookie: null,
    token: null,
    ifNoneMatch: null,
    acceptEncoding: null,
    requestId: null,
    origin: false,
  }
  for (let at = 0; at < raw.length; at += 2) {
    const field = fieldOf(raw[at]!)
    if (field === null) continue
    if (field === 'origin') asked.origin = true
    else if (asked[field] !== null) return null
    else asked[field] = raw[at + 1]!
  }
  return asked
}

const wanted = new Map<string, keyof Asked>([
  ['authorization', 'authorization'],
  ['cookie', 'cookie'],
  ['stoa-token', 'token'],
  ['if-none-match', 'ifNoneMatch'],
  ['accept-encoding', 'acceptEncoding'],
  ['x-request-id', 'requestId'],
  ['origin', 'origin'],
])

/** What a header is here, by its name as a client spells it; null: nothing. */
const namesMax = 500
const fieldOf = memoizeBounded(namesMax, (name) => wanted.get(name.toLowerCase()) ?? null)
