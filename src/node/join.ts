import { setTimeout as sleep } from 'node:timers/promises'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import type { Config } from '#config/config.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { systemClock } from '#lib/clock.ts'
import { newId } from '#lib/id.ts'
import type { Logger } from '#lib/logger.ts'
import { admit, isSuccessor } from '#node/admission.ts'
import { bringUpToDate, checkDatabase } from '#node/bring-up-to-date.ts'
import { checkFileStore, claimFileStore } from '#node/file-store-check.ts'
import { knownSecret, secretOf } from '#node/foundation.ts'
import type { Foundation } from '#node/foundation.ts'
import { silentAfterMs } from '#nodes/cluster-status.ts'
import { joinNodes } from '#nodes/join.ts'
import { NodeCalls } from '#nodes/node-calls.ts'
import { nodeLeaseMsDefault, Nodes } from '#nodes/nodes.ts'
import type { NodeInfo } from '#nodes/node-info.ts'

export type NodeCluster = AsyncDisposable & {
  readonly nodes: Nodes
  /** As the others know this node: the configured name, unless it was taken. */
  readonly name: string
  /** No other node was there when it came. */
  readonly first: boolean
  /** The cluster's secret. */
  readonly secret: string
  /** Aborts when this node was asked to drain (`stoa drain`). */
  readonly drainAsked: AbortSignal
  /** Begins to call other nodes; they call this one only after `serve`. */
  startCalls(link: ClusterLink): NodeCalls
  /**
   * From now on other nodes call this one. Resolves when they know. `address`:
   * where people and load balancers find it.
   */
  serve(address: string | null): Promise<void>
  /**
   * Releases the duties and says so; resolves when load balancers have had time to notice, at once
   * if no other node is there to take over.
   */
  handOver(): Promise<void>
}

export type EnterOptions = {
  /** The name of its place under a supervisor. Null: its address is its place. */
  readonly supervisedAs: string | null
  readonly version: string
  readonly signal: AbortSignal
}

type Entry = { readonly id: string; readonly info: NodeInfo; readonly first: boolean }

const hasNodeTable = sql<{ there: boolean }>(`select to_regclass('stoa.node') is not null as there`)
const anyNode = sql<{ id: string }>(`select id from stoa.node limit 1`)

/**
 * Whether a node has certainly ended: a supervisor has seen the end of the process that had the
 * place before, and the owner of an embedded database has released the data folder.
 */
function hasEnded(config: Config, supervisedAs: string | null): (info: NodeInfo) => boolean {
  return ({ place, traits }) =>
    (supervisedAs !== null && place === supervisedAs) ||
    (config.databaseUrl === null && traits?.['database'] === 'embedded')
}

/**
 * This process becomes a node among those on its database, or is refused with a `JoinRefusedError`.
 * It is admitted before it migrates the schema, so a node that is refused has changed nothing; on a
 * database without nodes there is none that could refuse it. Disposing is leaving: duties are
 * released and the row is removed.
 */
export async function enterCluster(
  foundation: Foundation,
  options: EnterOptions,
): Promise<NodeCluster> {
  const { database, config } = foundation
  const logger = foundation.logger.child({ part: 'nodes' })
  await using opened = new AsyncDisposableStack()
  await checkDatabase(foundation)
  const inUse = await isInUse(database)
  if (!inUse) await checkFileStore(foundation)
  const early = inUse
    ? await join(foundation, options, (await knownSecret(foundation)) ?? '')
    : null
  let nodes = early === null ? null : begin(foundation, early, { logger, opened })
  await bringUpToDate(foundation, { id: early?.id ?? '', signal: options.signal })
  await claimFileStore(foundation)
  await foundation.fileStore.refresh()
  const secret = await secretOf(foundation)
  const entry = early ?? (await join(foundation, options, secret))
  nodes ??= begin(foundation, entry, { logger, opened })
  const draining = new AbortController()
  const news = nodes.subscribe((one) => {
    if (one.kind === 'drainAsked') draining.abort()
    else if (one.kind === 'clock') foundation.clock.observe(one)
  })
  opened.defer(() => news[Symbol.dispose]())
  const { id } = entry
  const closing = opened.move()
  const joined = nodes
  return {
    nodes: joined,
    name: entry.info.name,
    first: entry.first,
    secret,
    drainAsked: draining.signal,
    startCalls: (link) => {
      const calls = new NodeCalls({
        nodes: joined,
        database: database.control ?? database,
        link,
        clock: systemClock,
        logger,
      })
      closing.defer(() => calls.stop())
      return calls
    },
    serve: async (address) => {
      await joined.describe({ address, starting: undefined })
    },
    handOver: async () => {
      joined.drain()
      const others = joined.live().filter((node) => node.id !== id)
      if (others.some((node) => !node.draining && node.starting !== true))
        await sleep(config.drainGraceMs)
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

/** True if there are nodes that this one has to fit; the secret was made before they came. */
async function isInUse(database: Database): Promise<boolean> {
  const [schema] = await database.run(hasNodeTable)
  if (schema?.there !== true) return false
  return (await database.run(anyNode)).length > 0
}

async function join(
  { config, database, fileStore, logger }: Foundation,
  { supervisedAs, version }: EnterOptions,
  secret: string,
): Promise<Entry> {
  const id = newId()
  let first = true
  const info = await joinNodes({
    id,
    database,
    leaseMs: nodeLeaseMsDefault,
    ended: hasEnded(config, supervisedAs),
    admit: async (others) => {
      const checkFiles = (): Promise<void> => checkFileStore({ database, fileStore })
      const joining = { config, supervisedAs, secret, checkFiles, version, logger }
      const mine = await admit(joining, others)
      first = others.every(
        (other) => other.silentMs > silentAfterMs || isSuccessor(mine.place, other.info),
      )
      return { ...mine, starting: true }
    },
  })
  return { id, info, first }
}

function begin(
  { database }: Foundation,
  { id, info }: Entry,
  { logger, opened }: { readonly logger: Logger; readonly opened: AsyncDisposableStack },
): Nodes {
  const beats = database.feed ?? database
  const nodes = new Nodes({ id, database, beats, info, clock: systemClock, logger })
  opened.defer(() => nodes.leave())
  return nodes
}
