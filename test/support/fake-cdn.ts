import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'

/**
 * Fastly and Cloudflare as their documentation describes them, in front of a server: the
 * interface for purges with its limits, and caches at several places that a purge reaches one after
 * the other. Fastly has a shield between those and the server, so a place that was purged early may
 * get the old response from it. Whatever is fetched is kept at its end, also if purged meanwhile.
 */
export type CdnOptions = {
  readonly vendor: 'fastly' | 'cloudflare'
  readonly origin: string
  /** How long a purge takes to each place, the shield last. */
  readonly purgeMs?: readonly number[]
  readonly callsPerS: number
  readonly burst: number
}

type Kept = {
  readonly status: number
  readonly headers: Headers
  readonly body: string
  readonly tags: ReadonlySet<string>
  freshUntilMs: number
  readonly onErrorMs: number
}

const token = 'token'
const fastlyHeaderMax = 16_384
const fastlyKeyMax = 1_024
const fastlyKeysMax = 256
const cloudflareHeaderMax = 16_384
const cloudflareTagsMax = 100

export class FakeCdn implements AsyncDisposable {
  readonly #options: CdnOptions
  readonly #servers: Server[] = []
  readonly #shield: Place | null
  readonly #places: readonly Place[]
  readonly #timers = new Set<NodeJS.Timeout>()
  /** Purges that were accepted. */
  readonly calls: {
    readonly atMs: number
    readonly tags: readonly string[]
    readonly soft: boolean
  }[] = []
  /** Purges that were refused because there were too many. */
  tooMany = 0
  /** So many of the next purges fail: every other one after it was accepted. */
  failures = 0
  away = false
  #bucket: number
  #bucketAtMs = Date.now()

  private constructor(options: CdnOptions) {
    this.#options = options
    this.#bucket = options.burst
    const ask = (path: string, headers: Headers): Promise<Kept> => this.#ask(path, headers)
    this.#shield = options.vendor === 'fastly' ? new Place(ask) : null
    const up = this.#shield
    this.#places = [0, 1].map(
      () => new Place(up === null ? ask : (path, headers) => up.get(path, headers)),
    )
  }

  static async start(options: CdnOptions): Promise<FakeCdn> {
    const cdn = new FakeCdn(options)
    await cdn.#listen((request, response) => void cdn.#api(request, response))
    for (const place of cdn.#places)
      await cdn.#listen((request, response) => void cdn.#serve(place, request, response))
    return cdn
  }

  get api(): string {
    return `http://127.0.0.1:${(this.#servers[0]!.address() as AddressInfo).port}`
  }

  /** The address of a place, for readers. */
  place(at: 0 | 1): string {
    return `http://127.0.0.1:${(this.#servers[1 + at]!.address() as AddressInfo).port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer)
    for (const server of this.#servers) {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  }

  async #listen(handler: (request: IncomingMessage, response: ServerResponse) => void) {
    const server = createServer(handler)
    this.#servers.push(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  }

  async #ask(path: string, headers: Headers): Promise<Kept> {
    const response = await fetch(`${this.#options.origin}${path}`, { headers })
    const body = await response.text()
    const control =
      response.headers.get(
        this.#options.vendor === 'fastly' ? 'surrogate-control' : 'cdn-cache-control',
      ) ??
      response.headers.get('cache-control') ??
      ''
    return {
      status: response.status,
      headers: response.headers,
      body,
      tags: tagsIn(this.#options.vendor, response.headers),
      freshUntilMs: Date.now() + keptMs(control),
      onErrorMs: secondsOf(control, 'stale-if-error') * 1_000,
    }
  }

  async #serve(place: Place, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const stoaToken = request.headers['stoa-token']
    const headers = new Headers(typeof stoaToken === 'string' ? { 'stoa-token': stoaToken } : {})
    try {
      const { status, body } = await place.get(request.url ?? '/', headers)
      response.writeHead(status).end(body)
    } catch {
      response.writeHead(503).end()
    }
  }

  async #api(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(request)
    if (this.away) {
      request.socket.destroy()
      return
    }
    const { vendor } = this.#options
    const send = (status: number, value: object, headers: Record<string, string> = {}): void =>
      void response
        .writeHead(status, { 'content-type': 'application/json', ...headers })
        .end(JSON.stringify(value))
    const refusal = this.#refusalOf(request)
    if (refusal !== null) {
      send(refusal.status, { msg: refusal.message, success: false }, refusal.headers)
      return
    }
    const tags = purgedTags(vendor, body)
    if (tags === null) {
      send(400, { msg: 'Bad request', success: false })
      return
    }
    const soft = request.headers['fastly-soft-purge'] !== undefined
    this.calls.push({ atMs: Date.now(), tags, soft })
    this.#purge(new Set(tags), soft)
    if (this.failures > 0) {
      this.failures -= 1
      if (this.failures % 2 === 0) send(503, { msg: 'Service Unavailable' })
      else request.socket.destroy()
      return
    }
    send(200, { status: 'ok', success: true, result: { id: String(this.calls.length) } })
  }

  #refusalOf(request: IncomingMessage): {
    readonly status: number
    readonly message: string
    readonly headers?: Record<string, string>
  } | null {
    const { vendor, callsPerS, burst } = this.#options
    const path = vendor === 'fastly' ? '/service/svc/purge' : '/zones/zone/purge_cache'
    const given =
      vendor === 'fastly' ? request.headers['fastly-key'] : request.headers.authorization
    if (given !== (vendor === 'fastly' ? token : `Bearer ${token}`))
      return {
        status: vendor === 'fastly' ? 401 : 403,
        message: 'Provided credentials are invalid',
      }
    if (request.url !== path || request.method !== 'POST')
      return { status: 404, message: 'Record not found' }
    const nowMs = Date.now()
    this.#bucket = Math.min(burst, this.#bucket + ((nowMs - this.#bucketAtMs) / 1_000) * callsPerS)
    this.#bucketAtMs = nowMs
    if (this.#bucket < 1) {
      this.tooMany += 1
      const waitS = Math.ceil((1 - this.#bucket) / callsPerS)
      const headers: Record<string, string> =
        vendor === 'fastly'
          ? { 'fastly-ratelimit-reset': String(Math.ceil(nowMs / 1_000) + waitS) }
          : { 'retry-after': String(waitS) }
      return { status: 429, message: 'Too Many Requests', headers }
    }
    this.#bucket -= 1
    return null
  }

  #purge(tags: ReadonlySet<string>, soft: boolean): void {
    const { purgeMs = [0, 0, 0] } = this.#options
    const all = [...this.#places, ...(this.#shield === null ? [] : [this.#shield])]
    all.forEach((place, at) => {
      const timer = setTimeout(() => {
        this.#timers.delete(timer)
        place.purge(tags, soft)
      }, purgeMs[at] ?? 0)
      this.#timers.add(timer)
    })
  }
}

class Place {
  readonly #ask: (path: string, headers: Headers) => Promise<Kept>
  readonly #kept = new Map<string, Kept>()

  constructor(ask: (path: string, headers: Headers) => Promise<Kept>) {
    this.#ask = ask
  }

  async get(path: string, headers: Headers): Promise<Kept> {
    const key = `${path} ${headers.get('stoa-token') ?? ''}`
    const kept = this.#kept.get(key)
    if (kept !== undefined && kept.freshUntilMs > Date.now()) return kept
    const mayServe = kept !== undefined && kept.freshUntilMs + kept.onErrorMs > Date.now()
    try {
      const fetched = await this.#ask(path, headers)
      if (fetched.status >= 500 && mayServe) return kept
      if (fetched.status === 200 && fetched.freshUntilMs > Date.now())
        this.#kept.set(key, { ...fetched })
      return fetched
    } catch (error) {
      if (mayServe) return kept
      throw error
    }
  }

  purge(tags: ReadonlySet<string>, soft: boolean): void {
    for (const [key, kept] of this.#kept) {
      if (![...kept.tags].some((tag) => tags.has(tag))) continue
      if (soft) kept.freshUntilMs = Math.min(kept.freshUntilMs, Date.now())
      else this.#kept.delete(key)
    }
  }
}

/** The tags that the vendor reads; what does not fit is ignored without a word. */
function tagsIn(vendor: CdnOptions['vendor'], headers: Headers): ReadonlySet<string> {
  const tags = new Set<string>()
  if (vendor === 'fastly') {
    let bytes = 0
    for (const key of (headers.get('surrogate-key') ?? '').split(' ')) {
      bytes += key.length + 1
      if (key.length > fastlyKeyMax || bytes - 1 > fastlyHeaderMax) break
      if (key !== '') tags.add(key)
    }
    return tags
  }
  const value = (headers.get('cache-tag') ?? '').slice(0, cloudflareHeaderMax)
  for (const tag of value.split(',')) if (tag.trim() !== '') tags.add(tag.trim().toLowerCase())
  return tags
}

/** Null: the vendor does not accept this. */
function purgedTags(vendor: CdnOptions['vendor'], body: string): readonly string[] | null {
  try {
    const { surrogate_keys: keys, tags } = JSON.parse(body) as {
      readonly surrogate_keys?: readonly string[]
      readonly tags?: readonly string[]
    }
    const named = vendor === 'fastly' ? keys : tags
    const max = vendor === 'fastly' ? fastlyKeysMax : cloudflareTagsMax
    if (!Array.isArray(named) || named.length === 0 || named.length > max) return null
    return named.map((tag) => (vendor === 'fastly' ? String(tag) : String(tag).toLowerCase()))
  } catch {
    return null
  }
}

function keptMs(control: string): number {
  if (/no-store|private/.test(control)) return 0
  return (secondsOf(control, 's-maxage') || secondsOf(control, 'max-age')) * 1_000
}

function secondsOf(control: string, name: string): number {
  return Number(new RegExp(`(?:^|[ ,])${name}=(\\d+)`).exec(control)?.[1] ?? 0)
}
