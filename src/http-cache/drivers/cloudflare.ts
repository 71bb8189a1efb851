import { requestEdge } from '#http-cache/edge-request.ts'
import {
  EdgeAwayError,
  EdgeBusyError,
  EdgeRefusedError,
  HttpCacheUrlError,
} from '#http-cache/errors.ts'
import type { Edge, EdgeLimits, EdgePurge, HttpCache } from '#http-cache/http-cache.ts'
import type { ResponseTags } from '#http-cache/tags.ts'

/** Cloudflare reads 16 KB of tags. */
const tagsMax = Math.floor(16_000 / 9)
const tagsPerCall = 100
/** Longer than any node takes to respond. */
const slowestMs = 32_000
/** How long a response is kept unless it is purged, and past that while no node responds. */
const keptS = 86_400
const onErrorS = 3_600
const pauseDefaultMs = 10_000

/** Calls per second and at once, for an account of each plan. */
const plans = new Map([
  ['free', { callsPerS: 5 / 60, burst: 25 }],
  ['pro', { callsPerS: 5, burst: 25 }],
  ['business', { callsPerS: 10, burst: 50 }],
  ['enterprise', { callsPerS: 50, burst: 500 }],
])

export type CloudflareOptions = {
  readonly zone: string
  readonly token: string
  readonly plan: string
  /** Another address of the API, for tests. */
  readonly api?: string
}

/** It knows no soft purge: whatever is purged is gone. */
export class CloudflareHttpCache implements HttpCache {
  readonly driver = 'cloudflare'
  readonly edges: readonly Edge[]
  readonly notKept = ['cdn-cache-control', 'no-store']

  constructor(options: CloudflareOptions) {
    const rate = plans.get(options.plan)
    if (!/^\w+$/.test(options.zone) || options.token === '' || rate === undefined)
      throw new HttpCacheUrlError(
        'STOA_HTTP_CACHE_URL must name the zone, a token and the plan of the account: ' +
          `cloudflare://:TOKEN@ZONE?plan=pro. Plans: ${[...plans.keys()].join(', ')}.`,
      )
    this.edges = [new CloudflareZone(options, rate)]
  }

  kept({ fine, wide, coarse }: ResponseTags): readonly string[] {
    const all = [...coarse, ...fine]
    const tags = all.length <= tagsMax ? all : [...coarse, ...wide]
    const control = `public, max-age=${keptS}, stale-if-error=${onErrorS}`
    return ['cache-tag', tags.join(','), 'cdn-cache-control', control]
  }
}

class CloudflareZone implements Edge {
  readonly id: string
  readonly limits: EdgeLimits
  readonly #options: CloudflareOptions

  constructor(
    options: CloudflareOptions,
    rate: { readonly callsPerS: number; readonly burst: number },
  ) {
    this.id = `cloudflare ${options.zone}`
    this.#options = options
    this.limits = {
      tagsPerCall,
      ...rate,
      repeatsMs: [slowestMs],
      soft: false,
    }
  }

  async purge({ tags }: EdgePurge, signal: AbortSignal): Promise<void> {
    const { api = 'https://api.cloudflare.com/client/v4', zone, token } = this.#options
    const { id } = this
    const response = await requestEdge(id, `${api}/zones/${zone}/purge_cache`, signal, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ tags }),
    })
    const { status, headers, text } = response
    if (status === 200) return
    if (status === 429) throw new EdgeBusyError(id, pauseMs(headers.get('retry-after')))
    if (status >= 500)
      throw new EdgeAwayError(`${id} responded to a purge with ${status}.`, { edge: id })
    throw new EdgeRefusedError(
      `${id} refused a purge (${status}): ${text}. Correct the zone and the token in ` +
        `STOA_HTTP_CACHE_URL; the token needs the permission Cache Purge.`,
      { edge: id, status },
    )
  }
}

function pauseMs(retryAfter: string | null): number {
  const seconds = Number(retryAfter ?? Number.NaN)
  return Number.isFinite(seconds) ? Math.max(1_000, seconds * 1_000) : pauseDefaultMs
}
