import type { ClusterParts } from '#api/api-context.ts'
import type { FileStoreState } from '#file-store/file-store-watch.ts'
import type { NodeReport, PartReports } from '#nodes/cluster-status.ts'
import type { Nodes } from '#nodes/nodes.ts'

/**
 * How this node is, for `stoa status` and `/api/cluster`. `parts`: as `partsOf` has them.
 * `problems`: whatever else does not work, each in a sentence.
 */
export function reportOf(
  cluster: ClusterParts,
  nodes: Nodes,
  { parts, problems }: { readonly parts: PartReports; readonly problems: readonly string[] },
): NodeReport {
  const { feed, cache } = cluster
  const files = cluster.files?.now ?? null
  const { hits, misses, entries, bytes } = cache.counts
  const lagMs = feed.nowMs() - feed.state.polledAtMs
  return {
    feedLagMs: Number.isFinite(lagMs) ? Math.round(lagMs) : null,
    clockSkewMs: Math.round(nodes.clockSkewMs),
    cache: {
      hits,
      misses,
      hitRate: hits + misses === 0 ? null : hits / (hits + misses),
      entries,
      bytes: Math.round(bytes),
      bytesMax: cache.config.bytesMax,
    },
    parts,
    degraded: [
      ...degradedParts(cluster),
      ...fileProblem(files),
      ...clockProblem(nodes),
      ...problems,
    ],
  }
}

function fileProblem(files: FileStoreState | null): string[] {
  if (files === null || files.problem === null) return []
  return [`the file store is down (${files.problem}); uploads are refused`]
}

function degradedParts({ cache, link }: ClusterParts): string[] {
  const problems: readonly (readonly [is: boolean, text: string])[] = [
    [!link.connected, 'Cluster Link is down; changes are found by polling'],
    [
      cache.missing.secondLevel,
      'the second level of the cache cannot be reached; the database is read instead',
    ],
    [cache.missing.replica, 'the standby for reads does not respond; the primary is read instead'],
    [
      !cache.leased,
      'the database has not responded within the lease; cached content is served as stale',
    ],
  ]
  return problems.flatMap(([is, text]) => (is ? [text] : []))
}

function clockProblem({ isClockOff, clockSkewMs }: Nodes): string[] {
  if (!isClockOff) return []
  const seconds = (Math.abs(clockSkewMs) / 1_000).toFixed(1)
  const direction = clockSkewMs > 0 ? 'ahead of' : 'behind'
  return [
    `its clock is ${seconds} s ${direction} the database's; it leads nothing until that is ` +
      `corrected`,
  ]
}
