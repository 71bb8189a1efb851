import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ApiContext } from '#api/api-context.ts'
import { chooseEncoding } from '#api/delivery/compression.ts'
import { matchesTag } from '#api/delivery/entity-tag.ts'
import { headLines, HeadWriter } from '#api/delivery/raw-head.ts'
import type { CachedResponse } from '#api/delivery/response-cache.ts'
import { staleHeaders } from '#api/delivery/stale-headers.ts'
import { RequestIds, requestIdOf } from '#api/http/request-id.ts'
import { sessionCookieIn } from '#api/http/session-cookie.ts'
import { readToken, cookieToken } from '#api/writes/token-header.ts'
import { AsOfText } from '#http-cache/as-of.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { memoizeBounded } from '#lib/memoize-bounded.ts'

const prefix = '/api/content/'
const bearerPattern = /^Bearer +([\x21-\x7e]{1,512})$/i
const hitStatus = ['cache-status', 'stoa; hit']
/** Clients send their credentials, and the token of their last write, again with each request. */
const textsMax = 1_000
/** Spellings of header names that are remembered. */
const namesMax = 500

/** Headers of a request that decide its response; null: the request does not have it. */
type RequestHeaders = {
  authorization: string | null
  cookie: string | null
  token: string | null
  ifNoneMatch: string | null
  acceptEncoding: string | null
  requestId: string | null
  host: string | null
  transferEncoding: string | null
  origin: boolean
}

type Respond = (request: IncomingMessage, response: ServerResponse) => boolean

/**
 * Responds to a read whose response is in memory, before the router and the hooks: the caller, what
 * it may see and what it has to see are looked up, and the bytes are written. Returns false, having
 * done nothing, whenever something is not at hand; the routes then respond the same.
 */
export function fastPath(context: ApiContext, responded: () => void): Respond {
  const { cluster, config, access, state, responseKeys, httpCache } = context
  const { cache } = cluster
  const secure = config.secureCookies
  const writer = new ResponseWriter(config.keepAliveTimeoutMs, httpCache)
  const asOf = new AsOfText()
  const headersOf = headerReader()
  const bearerIn = memoizeBounded(textsMax, (text) => bearerPattern.exec(text)?.[1] ?? '')
  const tokenIn = memoizeBounded(textsMax, readToken)
  return (request, response) => {
    const { url = '', method } = request
    const isCandidate =
      method === 'GET' &&
      url.startsWith(prefix) &&
      url.length <= config.urlBytesMax &&
      !state.draining
    const headers = isCandidate ? headersOf(request.rawHeaders) : null
    if (headers === null || headers.host === null || headers.transferEncoding !== null) return false
    // The hooks decide about requests from other origins.
    if (headers.origin && config.corsOrigins.length > 0) return false
    const bearer = headers.authorization === null ? null : bearerIn(headers.authorization)
    const session =
      bearer === null && headers.cookie !== null && headers.cookie.includes('stoa_session')
    // Which cookie counts depends on whether the proxy in front was reached by TLS.
    if (session && config.trustProxy !== false && !secure) return false
    const nowMs = cache.nowMs()
    const sessionCookie = session ? sessionCookieIn(headers.cookie ?? '', { secure }) : null
    const authority = access.peek({ bearer, sessionCookie }, nowMs)
    if (authority === null) return false
    const encoding = config.compress ? chooseEncoding(headers.acceptEncoding ?? undefined) : null
    const token = headers.token === null ? null : tokenIn(headers.token)
    // The routes refuse a malformed token.
    if (token === 'mangled') return false
    const since = token ?? (headers.cookie === null ? null : cookieToken(headers.cookie))
    const kept = cache.peek(responseKeys.of(authority, url, encoding), nowMs, since) as
      | CachedResponse
      | undefined
    if (kept === undefined || !('body' in kept)) return false
    responded()
    const asOfLine = httpCache === null ? '' : asOf.line(cluster.feed.state)
    writer.write(response, kept, headers, {
      nowMs,
      staleForMs: cache.staleForMs(nowMs),
      asOfLine,
    })
    return true
  }
}

/** `asOfLine`: how new the response is at least; empty: no HTTP cache asks for it. */
type Moment = {
  readonly nowMs: number
  readonly staleForMs: number | null
  readonly asOfLine: string
}

class ResponseWriter {
  readonly #heads: HeadWriter
  readonly #ids = new RequestIds()
  readonly #notKept: readonly string[]

  constructor(keepAliveTimeoutMs: number, httpCache: HttpCache | null) {
    this.#heads = new HeadWriter(keepAliveTimeoutMs)
    this.#notKept = httpCache?.notKept ?? []
  }

  write(
    response: ServerResponse,
    kept: CachedResponse,
    headers: RequestHeaders,
    { nowMs, staleForMs, asOfLine }: Moment,
  ): void {
    const requestId = headers.requestId === null ? this.#ids.next() : requestIdOf(headers.requestId)
    const matches = headers.ifNoneMatch !== null && matchesTag(headers.ifNoneMatch, kept.tag)
    if (!matches && staleForMs === null) {
      kept.hitLines ??= headLines([...kept.headers, ...(kept.edge ?? this.#notKept), ...hitStatus])
      if (this.#heads.write(response, kept.hitLines + asOfLine, requestId, nowMs)) {
        response.end(kept.body)
        return
      }
    }
    const isKept = kept.edge !== null && staleForMs === null
    const pairs = [
      ...kept.headers,
      ...(isKept ? kept.edge : this.#notKept),
      ...pairIn(asOfLine),
      ...statusOf(staleForMs),
      'x-request-id',
      requestId,
    ]
    if (matches) response.writeHead(304, withoutContent(pairs)).end()
    else response.writeHead(200, pairs).end(kept.body)
  }
}

/** The name and the value of a header that stands in a line of its own. */
function pairIn(line: string): string[] {
  const colon = line.indexOf(':')
  return colon < 0 ? [] : [line.slice(0, colon), line.slice(colon + 2, -2)]
}

function statusOf(staleForMs: number | null): string[] {
  if (staleForMs === null) return hitStatus
  const [status, age] = staleHeaders(staleForMs)
  return ['cache-status', status, 'age', age]
}

function withoutContent(pairs: readonly string[]): string[] {
  return pairs.filter((_, at) => !/^content-(?:length|encoding|type)$/.test(pairs[at - (at % 2)]!))
}

const decisive = new Map<string, keyof RequestHeaders>([
  ['authorization', 'authorization'],
  ['cookie', 'cookie'],
  ['stoa-token', 'token'],
  ['if-none-match', 'ifNoneMatch'],
  ['accept-encoding', 'acceptEncoding'],
  ['x-request-id', 'requestId'],
  ['host', 'host'],
  ['transfer-encoding', 'transferEncoding'],
  ['origin', 'origin'],
])

/**
 * Reads the raw pairs, since an object of all headers would take as long as the rest of the fast
 * path. Null: one of them came twice.
 */
function headerReader(): (raw: readonly string[]) => RequestHeaders | null {
  const fieldOf = memoizeBounded(namesMax, (name) => decisive.get(name.toLowerCase()) ?? null)
  return (raw) => {
    const headers: RequestHeaders = {
      authorization: null,
      cookie: null,
      token: null,
      ifNoneMatch: null,
      acceptEncoding: null,
      requestId: null,
      host: null,
      transferEncoding: null,
      origin: false,
    }
    for (let at = 0; at < raw.length; at += 2) {
      const field = fieldOf(raw[at]!)
      if (field === null) continue
      if (field === 'origin') headers.origin = true
      else if (headers[field] !== null) return null
      else headers[field] = raw[at + 1]!
    }
    return headers
  }
}
