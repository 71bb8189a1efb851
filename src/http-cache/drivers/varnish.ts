import { EdgeAwayError, EdgeRefusedError, HttpCacheUrlError } from '#http-cache/errors.ts'
import { allTag } from '#http-cache/tags.ts'
import type { Edge, EdgeLimits, EdgePurge, HttpCache } from '#http-cache/http-cache.ts'
import { requestEdge } from '#http-cache/edge-request.ts'
import type { ResponseTags } from '#http-cache/tags.ts'
import { fenceGroup, firstByteTimeoutS, groupsMax, vclLevel } from '#http-cache/varnish-vcl.ts'

/** Varnish takes headers of up to 8 KB unless it is set to more: eight characters and a space. */
const tagsMax = Math.floor(7_000 / 9)
/** There is no limit; this many purges per second are more than one purger sends. */
const callsPerS = 200
const hostPattern = /^(?:[\w.-]+|\[[\da-f:]+\]):\d{1,5}$/i

export type VarnishOptions = {
  /** HOST:PORT of each Varnish. */
  readonly hosts: readonly string[]
  /** Only requests with this key purge; the VCL has it too. */
  readonly purgeKey: string
  /** As in the VCL, in seconds, where it was changed there; null: it was not. */
  readonly firstByteTimeoutS: string | null
}

/** One or several Varnish with the VCL of varnish-vcl.ts; each of them gets each purge. */
export class VarnishHttpCache implements HttpCache {
  readonly driver = 'varnish'
  readonly edges: readonly Edge[]
  /** The VCL keeps nothing that has no tags. */
  readonly notKept: readonly string[] = []

  constructor({ hosts, purgeKey, firstByteTimeoutS: timeoutS }: VarnishOptions) {
    if (hosts.some((host) => !hostPattern.test(host)))
      throw new HttpCacheUrlError(
        'STOA_HTTP_CACHE_URL must name each Varnish with its port: varnish://cache1:80,cache2:80.',
      )
    if (timeoutS !== null && !/^[1-9]\d{0,3}$/.test(timeoutS))
      throw new HttpCacheUrlError(
        'firstByteTimeout in STOA_HTTP_CACHE_URL must be a whole number of seconds, up to 9999.',
      )
    const limits: EdgeLimits = {
      tagsPerCall: tagsMax,
      callsPerS,
      burst: callsPerS,
      repeatsMs: [(Number(timeoutS ?? firstByteTimeoutS) + 1) * 1_000],
      soft: true,
    }
    this.edges = hosts.map((host) => new Varnish(host, purgeKey, limits))
  }

  kept({ fine, wide, coarse }: ResponseTags): readonly string[] {
    const all = [...coarse, ...fine]
    const tags = all.length <= tagsMax ? all : [...coarse, ...wide]
    return ['xkey', tags.join(' '), 'stoa-groups', groupsOfResponse(coarse)]
  }
}

class Varnish implements Edge {
  readonly id: string
  readonly limits: EdgeLimits
  readonly #purgeKey: string

  constructor(host: string, purgeKey: string, limits: EdgeLimits) {
    this.id = host
    this.limits = limits
    this.#purgeKey = purgeKey
  }

  async purge(purge: EdgePurge, signal: AbortSignal): Promise<void> {
    const response = await requestEdge(this.id, `http://${this.id}/`, signal, {
      method: 'PURGE',
      headers: {
        'stoa-purge-key': this.#purgeKey,
        'stoa-purge': purge.hard ? 'hard' : 'soft',
        'stoa-tags': purge.tags.join(' '),
        'stoa-groups': groupsOfPurge(purge.coarse),
        'stoa-epoch': purge.epoch,
        'stoa-count': String(purge.count),
      },
    })
    if (response.status === 200 && response.headers.get('stoa-vcl') === vclLevel) return
    if (response.status >= 500)
      throw new EdgeAwayError(`${this.id} responded to a purge with ${response.status}.`, {
        edge: this.id,
      })
    throw new EdgeRefusedError(
      `${this.id} responded to a purge with ${response.status}: it does not run the VCL of this ` +
        `version and secret. Load what "stoa http-cache vcl" prints.`,
      { edge: this.id, status: response.status },
    )
  }
}

/** The groups of types whose purges concern a response. */
function groupsOfResponse(coarse: readonly string[]): string {
  const types = coarse.filter((tag) => tag !== allTag)
  return types.length === 0 ? 'all' : joined(types)
}

function groupsOfPurge(coarse: readonly string[]): string {
  return coarse.includes(allTag) ? 'all' : joined(coarse)
}

/** `all` where they are more than the VCL looks at. */
function joined(coarse: readonly string[]): string {
  const groups = [...new Set(coarse.map(fenceGroup))]
  return groups.length > groupsMax ? 'all' : groups.join(' ')
}
