import { setTimeout as sleep } from 'node:timers/promises'
import { backgroundDuties } from '#node/background-work.ts'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import type { Config } from '#config/config.ts'
import type { Database } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import type { FileStore } from '#file-store/file-store.ts'
import { systemClock } from '#lib/clock.ts'
import { newId } from '#lib/id.ts'
import type { Logger } from '#lib/logger.ts'
import { admit, isSuccessor } from '#node/admission.ts'
import { silentAfterMs } from '#nodes/cluster-status.ts'
import { joinNodes } from '#nodes/join.ts'
import { NodeCalls } from '#nodes/node-calls.ts'
import { nodeLeaseMsDefault, Nodes } from '#nodes/nodes.ts'
import type { NodeInfo } from '#nodes/nodes.ts'

/** For calls of other nodes and to them. Beats have the pool's own reserve. */
const connectionsMax = 3

export type NodeCluster = AsyncDisposable & {
  readonly nodes: Nodes
  readonly calls: NodeCalls
  /** As the others know this node: the configured one, unless it was taken. */
  readonly name: string
  /** No other node was there when it came. */
  readonly first: boolean
  /** Aborts when somebody has asked this node to drain (`stoa drain`). */
  readonly drainAsked: AbortSignal
  /**
   * Gives up the duties and tells the others; resolves when load balancers have had time to notice,
   * at once if no other node is there to take over.
   */
  handOver(): Promise<void>
}

/**
 * A supervisor has seen the end of whoever had the place before; whoever embedded the database has
 * let go of the data folder, which this process holds.
 */
function hasEnded(config: Config, supervisedAs: string | null): (info: NodeInfo) => boolean {
  return ({ place, traits }) =>
    (supervisedAs !== null && place === supervisedAs) ||
    (config.databaseUrl === null && traits?.['database'] === 'embedded')
}

export type EnterOptions = {
  readonly config: Config
  readonly supervisedAs: string | null
  /** Of the database, whoever started it. */
  readonly url: string
  readonly database: Database
  readonly link: ClusterLink | null
  readonly fileStore: FileStore
  readonly secret: string
  readonly version: string
  readonly logger: Logger
}

/**
 * This process becomes a node among those on its database, or is refused with a `JoinRefusedError`.
 * Disposing is leaving: duties are given up and the row is removed.
 */
export async function enterCluster(options: EnterOptions): Promise<NodeCluster> {
  const { config, url, link } = options
  const logger = options.logger.child({ part: 'nodes' })
  const id = newId()
  let first = true
  const info = await joinNodes({
    id,
    database: options.database,
    leaseMs: nodeLeaseMsDefault,
    ended: hasEnded(config, options.supervisedAs),
    admit: async (others) => {
      const mine = await admit({ ...options, logger }, others)
      first = others.every(
        (other) => other.silentMs > silentAfterMs || isSuccessor(mine.place, other.info),
      )
      return mine
    },
  })
  const database = new PostgresDatabase({
    url,
    connectionsMax,
    // Whoever waits longer has lost its lease in any case.
    statementTimeoutMs: nodeLeaseMsDefault,
    connectTimeoutMs: nodeLeaseMsDefault,
    applicationName: `stoa ${info.name} nodes`,
    logger,
  })
  const nodes = new Nodes({
    id,
    database,
    info,
    clock: systemClock,
    logger,
    config: { duties: backgroundDuties },
  })
  const calls = new NodeCalls({ nodes, database, link, clock: systemClock, logger })
  const draining = new AbortController()
  const news = nodes.subscribe(({ kind }) => {
    if (kind === 'drainAsked') draining.abort()
  })
  return {
    nodes,
    calls,
    name: info.name,
    first,
    drainAsked: draining.signal,
    handOver: async () => {
      nodes.drain()
      if (nodes.live().some((node) => node.id !== id && !node.draining))
        await sleep(config.drainGraceMs)
    },
    [Symbol.asyncDispose]: async () => {
      news[Symbol.dispose]()
      await calls.stop()
      await nodes.leave()
      await database.close()
    },
  }
}
