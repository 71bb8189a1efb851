import { requestEdge } from '#http-cache/edge-request.ts'
import {
  EdgeAwayError,
  EdgeBusyError,
  EdgeRefusedError,
  HttpCacheUrlError,
} from '#http-cache/errors.ts'
import type { Edge, EdgeLimits, EdgePurge, HttpCache } from '#http-cache/http-cache.ts'
import type { ResponseTags } from '#http-cache/tags.ts'

/** Fastly reads 16,384 bytes of keys and ignores the rest without a word. */
const tagsMax = Math.floor(16_000 / 9)
const keysPerCall = 256
/** 100,000 purges an hour for a service. */
const callsPerHour = 100_000
const burst = 100
/** A shield may hand the old object to a POP that was purged before it. */
const shieldMs = 2_000
/** Longer than any node takes to respond. */
const slowestMs = 32_000
/** How long a response is kept unless it is purged, and after a purge while no node responds. */
const keptS = 86_400
const onErrorS = 3_600
const pauseDefaultMs = 10_000

export type FastlyOptions = {
  readonly service: string
  readonly token: string
  /** Another address of the API, for tests. */
  readonly api?: string
}

export class FastlyHttpCache implements HttpCache {
  readonly driver = 'fastly'
  readonly edges: readonly Edge[]
  readonly notKept = ['surrogate-control', 'no-store']

  constructor(options: FastlyOptions) {
    if (!/^\w+$/.test(options.service) || options.token === '')
      throw new HttpCacheUrlError(
        'STOA_HTTP_CACHE_URL must name the service and a token: fastly://:TOKEN@SERVICE.',
      )
    this.edges = [new FastlyService(options)]
  }

  /** No `stale-while-revalidate`: after a purge a node is asked while one responds. */
  kept({ fine, wide, coarse }: ResponseTags): readonly string[] {
    const all = [...coarse, ...fine]
    const tags = all.length <= tagsMax ? all : [...coarse, ...wide]
    const control = `max-age=${keptS}, stale-if-error=${onErrorS}`
    return ['surrogate-key', tags.join(' '), 'surrogate-control', control]
  }
}

class FastlyService implements Edge {
  readonly id: string
  readonly limits: EdgeLimits = {
    tagsPerCall: keysPerCall,
    callsPerS: callsPerHour / 3_600,
    burst,
    repeatsMs: [shieldMs, slowestMs],
    soft: true,
  }
  readonly #options: FastlyOptions

  constructor(options: FastlyOptions) {
    this.id = `fastly ${options.service}`
    this.#options = options
  }

  async purge({ tags, hard }: EdgePurge, signal: AbortSignal): Promise<void> {
    const { api = 'https://api.fastly.com', service, token } = this.#options
    const { id } = this
    const response = await requestEdge(id, `${api}/service/${service}/purge`, signal, {
      method: 'POST',
      headers: {
        'fastly-key': token,
        'content-type': 'application/json',
        accept: 'application/json',
        ...(hard ? {} : { 'fastly-soft-purge': '1' }),
      },
      body: JSON.stringify({ surrogate_keys: tags }),
    })
    const { status, headers, text } = response
    if (status === 200) return
    if (status === 429) throw new EdgeBusyError(id, pauseMs(headers.get('fastly-ratelimit-reset')))
    if (status >= 500)
      throw new EdgeAwayError(`${id} responded to a purge with ${status}.`, { edge: id })
    throw new EdgeRefusedError(
      `${id} refused a purge (${status}): ${text}. Correct the service and the token in ` +
        `STOA_HTTP_CACHE_URL; the token needs the scope purge_select.`,
      { edge: id, status },
    )
  }
}

/** `reset`: the second, since 1970, from which on calls are accepted again. */
function pauseMs(reset: string | null): number {
  const ms = Number(reset ?? Number.NaN) * 1_000 - Date.now()
  return Number.isFinite(ms) ? Math.max(1_000, ms) : pauseDefaultMs
}
