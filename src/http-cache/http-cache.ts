import type { ResponseTags } from '#http-cache/tags.ts'

/**
 * The shared cache in front of the nodes. It keeps responses under tags until one of them is
 * purged. A driver says in the cache's own words what a response carries, and carries purges to
 * each of its edges; the purger (purger.ts) decides which, when, and how often.
 */
export interface HttpCache {
  readonly driver: 'varnish' | 'fastly' | 'cloudflare'
  /** Each is purged by itself, and has its own line in a receipt. */
  readonly edges: readonly Edge[]
  /** Headers, in pairs, by which the cache may keep a response until one of its tags is purged. */
  kept(tags: ResponseTags): readonly string[]
  /** Headers, in pairs, of a response that it must not keep: it has no tags, or may be stale. */
  readonly notKept: readonly string[]
}

/** One cache, or one network of caches with a single interface for purges. */
export interface Edge {
  /** The same on every node and at every start. */
  readonly id: string
  readonly limits: EdgeLimits
  /**
   * Resolves when the edge has accepted the purge. To purge the same twice does no harm. Errors:
   * `EdgeAwayError`: not known whether it arrived, send it again later. `EdgeBusyError`: not
   * accepted, send it again after that time. `EdgeRefusedError`: it will be refused again until an
   * operator changes something.
   */
  purge(purge: EdgePurge, signal: AbortSignal): Promise<void>
}

export type EdgeLimits = {
  readonly tagsPerCall: number
  /** Calls per second in the long run, and at once after a rest. */
  readonly callsPerS: number
  readonly burst: number
  /**
   * A fetch that was on its way during a purge may be kept as if it came after it. So the purge is
   * sent again, this long after the first time.
   */
  readonly repeatsMs: readonly number[]
  /** It can keep what is purged for the time when no node responds. */
  readonly soft: boolean
}

export type EdgePurge = {
  /** At most `limits.tagsPerCall`. */
  readonly tags: readonly string[]
  /** Coarse tags of what is purged: an edge with a fence refuses older responses of these. */
  readonly coarse: readonly string[]
  /** False: what is purged may be served while no node responds. */
  readonly hard: boolean
  /** Responses that do not show at least this much are older than the purge. */
  readonly epoch: string
  readonly count: number
}
