import type { ClusterParts } from '#api/api-context.ts'
import type { NodeReport } from '#nodes/cluster-status.ts'

/**
 * How this node is, as it tells the others. `refusals`: what it refused requests for lately, in
 * words.
 */
export function reportOf(cluster: ClusterParts | null, refusals: readonly string[]): NodeReport {
  if (cluster === null) return { feedLagMs: null, cache: null, degraded: refusals }
  const { feed, cache, link } = cluster
  const { hits, misses, entries, bytes } = cache.counts
  const lagMs = feed.nowMs() - feed.state.polledAtMs
  return {
    feedLagMs: Number.isFinite(lagMs) ? Math.round(lagMs) : null,
    cache: {
      hits,
      misses,
      hitRate: hits + misses === 0 ? null : hits / (hits + misses),
      entries,
      bytes: Math.round(bytes),
      bytesMax: cache.config.bytesMax,
    },
    degraded: [
      ...(link.connected ? [] : ['Cluster Link is down; changes are found by polling']),
      ...(cache.missing.secondLevel
        ? ['the second level of the cache is not to be had; the database is asked instead']
        : []),
      ...(cache.missing.replica
        ? ['the standby for reads does not answer; the primary is asked instead']
        : []),
      ...(cache.leased
        ? []
        : ['the database has not answered within the lease; what is cached is served as stale']),
      ...refusals,
    ],
  }
}
