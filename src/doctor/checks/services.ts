import { check, nodesWhere, onNodes } from '#doctor/check.ts'
import type { Check } from '#doctor/check.ts'
import type { SecondLevelExamination } from '#cache/second-level.ts'

/** Each link probes its server within this time, and so shows that its cluster is there. */
const listenMs = 5_500

const link = check<{ readonly connected: boolean; readonly server: string }>({
  name: 'link',
  looksAt: 'Cluster Link: its server is not reached, so changes are found by polling',
  where: 'node',
  inspect: async ({ link: one, config }) => ({
    connected: one?.connected ?? true,
    server: config.linkUrl === null ? 'the database' : 'the server of STOA_LINK_URL',
  }),
  evaluate: (inspected) =>
    onNodes(
      inspected,
      ({ connected }) => !connected,
      ({ server }) => ({
        severity: 'warning',
        message: `Cluster Link does not reach ${server}: changes arrive later.`,
        cure: 'See that the server runs, that its address and account are right, and the network.',
      }),
    ),
})

const linkShared = check<{ readonly clusters: readonly string[] }>({
  name: 'link-shared',
  looksAt: 'other clusters on the Redis, Valkey or NATS of STOA_LINK_URL',
  where: 'once',
  inspect: async ({ link: one }) => ({ clusters: (await one?.otherClusters?.(listenMs)) ?? [] }),
  evaluate: ([seen]) =>
    seen === undefined || seen.facts.clusters.length === 0
      ? []
      : [
          {
            severity: 'warning',
            message:
              `Other clusters use the server of STOA_LINK_URL: ` +
              `${seen.facts.clusters.join(', ')}.`,
            cure:
              'Nothing mixes, but they share its load. Give each cluster its own server, ' +
              'or leave it if that is meant; if they should be one cluster, their databases ' +
              'differ.',
          },
        ],
})

type SecondLevelFacts = {
  readonly state: 'none' | 'away' | 'there'
  readonly examined: SecondLevelExamination | null
}

const secondLevel = check<SecondLevelFacts>({
  name: 'second-level',
  looksAt:
    'the Redis or Valkey of STOA_CACHE_URL: not reached, another one on another node, shared ' +
    'with other clusters, or full and refusing',
  where: 'node',
  inspect: async ({ secondLevel: level }) => {
    if (level === null) return { state: 'none', examined: null }
    if (!level.connected) return { state: 'away', examined: null }
    return { state: 'there', examined: (await level.examine?.()) ?? null }
  },
  evaluate: (inspected) => {
    const servers = new Set(
      inspected.flatMap(({ facts }) => (facts.examined === null ? [] : [facts.examined.serverId])),
    )
    const inUse = inspected.filter(({ facts }) => facts.examined !== null)
    return [
      ...onNodes(
        inspected,
        ({ state }) => state === 'away',
        () => ({
          severity: 'warning',
          message: 'The server of STOA_CACHE_URL is not reached: the database is read instead.',
          cure: 'See that it runs, that its address and account are right, and the network.',
        }),
      ),
      ...(servers.size > 1
        ? [
            {
              severity: 'warning' as const,
              nodes: inUse.map(({ node }) => node),
              message: `The nodes use ${servers.size} different servers as the second level.`,
              cure: 'Set the same STOA_CACHE_URL on every node.',
            },
          ]
        : []),
      ...onNodes(
        inUse,
        ({ examined }) => examined!.otherClusters.length > 0,
        ({ examined }) => ({
          severity: 'warning',
          message:
            'Other clusters use the server of STOA_CACHE_URL: ' +
            `${examined!.otherClusters.join(', ')}.`,
          cure:
            'Nothing mixes, but each pushes out what the others keep. Give each cluster its own ' +
            'server, or leave it if that is meant.',
        }),
      ),
      ...onNodes(
        inUse,
        ({ examined }) => examined!.memoryBytesMax > 0 && examined!.refusesWhenFull,
        () => ({
          severity: 'warning',
          message: 'The server of STOA_CACHE_URL refuses new values when it is full (noeviction).',
          cure: 'config set maxmemory-policy allkeys-lru, and the same in its configuration file.',
        }),
      ),
    ]
  },
})

const files = check<{ readonly problem: string | null }>({
  name: 'files',
  looksAt: 'the file store: away, or not the one that the database remembers',
  where: 'node',
  inspect: async ({ checkFiles }) => {
    try {
      await checkFiles()
      return { problem: null }
    } catch (error) {
      return { problem: error instanceof Error ? error.message : String(error) }
    }
  },
  evaluate: (inspected) =>
    [...new Set(inspected.flatMap(({ facts }) => facts.problem ?? []))].map((problem) => ({
      severity: 'error' as const,
      nodes: nodesWhere(inspected, (facts) => facts.problem === problem),
      message: problem,
      cure: 'Mount the folder again, or set STOA_FILES_URL on every node to the same place.',
    })),
})

export const serviceChecks: readonly Check[] = [link, linkShared, secondLevel, files]
