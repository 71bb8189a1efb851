import { Cache } from '#cache/cache.ts'
import type { CacheOptions } from '#cache/cache.ts'
import { ChangeFeed } from '#change-feed/feed.ts'
import type { Token } from '#change-feed/token.ts'
import type { SealOptions } from '#cache/envelope.ts'
import type { SealedLevelOptions } from '#cache/sealed-level.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { PostgresClusterLink } from '#cluster-link/drivers/postgres.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import type { LaneOptions } from '#database/postgres/postgres-database.ts'
import { primaryConnector } from '#database/postgres/primary-connector.ts'
import { migrate } from '#database/migrate.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { parseNatsUrl } from '#lib/nats-url.ts'
import { parseRedisUrl } from '#lib/redis-url.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * `stoa/cluster`: the cluster half of Stoa for any Node.js application on PostgreSQL. It knows
 * nothing of content.
 */

export { Cache } from '#cache/cache.ts'
export type { Cached, CacheOptions, GetOptions } from '#cache/cache.ts'
export type { Codec } from '#cache/envelope.ts'
export type { Dependency } from '#cache/dependency.ts'
export {
  CacheDeadlineError,
  CacheOverloadError,
  DatabaseAwayError,
  TokenNotSeenError,
} from '#cache/errors.ts'
export type { FillContext } from '#cache/fill.ts'
export type { Atom, PageBound, Predicate } from '#cache/predicate.ts'
export { ChangeFeed } from '#change-feed/feed.ts'
export { formatToken, laterToken, parseToken } from '#change-feed/token.ts'
export type { Token } from '#change-feed/token.ts'
export { sql } from '#database/database.ts'
export type { Database, Queryable, Statement } from '#database/database.ts'
export type { CallReply, CallHandler, CallOptions, Calls } from '#nodes/calls.ts'
export { FenceLostError } from '#nodes/errors.ts'
export { NodeCalls } from '#nodes/node-calls.ts'
export type { NodeCallsOptions } from '#nodes/node-calls.ts'
export { Nodes } from '#nodes/nodes.ts'
export type { NodeInfo } from '#nodes/node-info.ts'
export type { LiveNode, NodesNews, NodesOptions } from '#nodes/nodes.ts'

export type ClusterOptions = {
  /** Any PostgreSQL ≥ 15; several hosts after commas, of which the writable one is used. */
  readonly url: string
  /** How long a node may trust its cache without contact to the primary, in milliseconds. */
  readonly leaseMs?: number
  /**
   * At least so long between two polls that writes ask for, and between two hints: longer costs the
   * primary less, and shows changes later by as much.
   */
  readonly pollGapMs?: number
  /** All connections of this node together: at least 6, of which 5 are its own. */
  readonly connectionsMax?: number
  readonly cache?: CacheOptions['config']
  /** Redis, Valkey or NATS for hints between the nodes. Left out: NOTIFY of PostgreSQL. */
  readonly linkUrl?: string
  /** Redis or Valkey as a second level of the cache, for values that are read with a `codec`. */
  readonly secondLevelUrl?: string
  /**
   * Signs what is kept there; the same on every node. Left out: one that the database keeps. Values
   * of programs with different `level`s (a version, say) are kept apart.
   */
  readonly secret?: string
  readonly level?: string
  readonly logger?: Logger
}

/** One node. Everything that shares `url` is one cluster; its nodes are listed nowhere. */
export type Cluster = AsyncDisposable & {
  readonly database: Database
  readonly feed: ChangeFeed
  readonly cache: Cache
  /**
   * Records the changes of a table, from every writer and for good. The application must own the
   * table.
   */
  attach(
    table: string,
    options: {
      readonly collection: string
      readonly key: readonly string[]
      readonly filterColumns?: readonly string[]
    },
  ): Promise<void>
  /** Runs a writing transaction; its token makes a reader on any node see it. */
  write<T>(
    work: (tx: Queryable) => Promise<T>,
  ): Promise<{ readonly value: T; readonly token: Token | null }>
}

const attachTable = sql(`select stoa.attach($1::regclass, $2, $3::text[], $4::text[])`)
const readIdentity = sql<{ identity: string }>(`select identity::text from stoa.epoch`)
/** The part of an epoch's name that stays the same through failovers, and that no copy shares. */
const readPlace = sql<{ place: string }>(`select split_part(stoa.begin_epoch(), '.', 1) as place`)
const connectTimeoutMs = 5_000
const statementTimeoutMs = 10_000
const leaseMsDefault = 1_000
const connectionsMaxDefault = 10
/** For polls, heartbeats and trimming, which must never wait for other work. */
const feedConnections = 3
/** The other two are for the reserve (`control`) and for notifications. */
const ownConnections = feedConnections + 2

export type SecondLevelWiring = SealOptions & { readonly url: string }

/** The options of `wireFeed` beside the URL of the primary. */
export type FeedWiring = {
  /** Where fills read, and where the feed has its own connections: the writable primary. */
  readonly database: Database
  /** Hot standbys that fills may read from. */
  readonly replica?: Database | null
  readonly leaseMs?: number
  readonly pollGapMs?: number
  readonly linkUrl?: string | null
  readonly cache?: CacheOptions['config']
  /** Redis or Valkey, with the key that signs what is kept there and the program's version. */
  readonly secondLevel?: SecondLevelWiring | null
  /** The name of its connections in `pg_stat_activity`, with the purpose after it. */
  readonly applicationName: string
  readonly logger: Logger
}

/** A change feed with the link that hints to it and the cache that it invalidates. */
export type WiredFeed = AsyncDisposable & {
  readonly feed: ChangeFeed
  readonly cache: Cache
  readonly link: ClusterLink
  readonly secondLevel: SecondLevel | null
}

/**
 * Follows the change feed of the database, and keeps what it allows. Hints travel through
 * `linkUrl`, or through `url`, which leads to the server itself. Connects in the background; never
 * fails because something cannot be reached.
 */
export async function wireFeed(url: string, wiring: FeedWiring): Promise<WiredFeed> {
  const { database, applicationName, logger, leaseMs = leaseMsDefault, pollGapMs } = wiring
  await using opened = new AsyncDisposableStack()
  const link = await openLink({
    url,
    linkUrl: wiring.linkUrl ?? null,
    identity: identityOf(database.control ?? database),
    applicationName: `${applicationName} link`,
    logger,
  })
  opened.defer(() => link.close())
  const gaps = pollGapMs === undefined ? {} : { pollGapMs, hintGapMs: pollGapMs }
  const feed = new ChangeFeed({
    database: database.feed ?? database,
    link,
    clock: systemClock,
    logger,
    config: { leaseMs, pollTimeoutMs: leaseMs, ...gaps },
  })
  opened.defer(() => feed.stop())
  const secondLevel = await openSecondLevel(wiring)
  opened.defer(async () => secondLevel?.store.close())
  const cache = new Cache({
    feed,
    database,
    ...(wiring.replica ? { replica: wiring.replica } : {}),
    ...(secondLevel === null ? {} : { secondLevel }),
    ...(wiring.cache === undefined ? {} : { config: wiring.cache }),
  })
  opened.defer(async () => cache.close())
  const closing = opened.move()
  return {
    feed,
    cache,
    link,
    secondLevel: secondLevel?.store ?? null,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

function feedLane(timeoutMs: number): LaneOptions {
  return {
    connectionsMax: feedConnections,
    statementTimeoutMs: timeoutMs,
    connectTimeoutMs: timeoutMs,
  }
}

export type LinkWiring = {
  /** The PostgreSQL server itself, for NOTIFY. */
  readonly url: string
  /** Null: NOTIFY of PostgreSQL. */
  readonly linkUrl: string | null
  /** The name of the cluster; see `identityOf`. */
  readonly identity: () => Promise<string>
  readonly applicationName: string
  readonly logger: Logger
}

/** Cluster Link over the server that is configured. Connects in the background. */
export async function openLink(wiring: LinkWiring): Promise<ClusterLink> {
  const { url, linkUrl, identity, applicationName, logger } = wiring
  if (linkUrl === null)
    return new PostgresClusterLink({ connect: primaryConnector({ url, applicationName }), logger })
  // A client library is loaded only where its server is chosen.
  if (linkUrl.startsWith('redis')) {
    const { RedisClusterLink } = await import('#cluster-link/drivers/redis.ts')
    return new RedisClusterLink({ url: linkUrl, identity, logger })
  }
  const { NatsClusterLink } = await import('#cluster-link/drivers/nats.ts')
  return new NatsClusterLink({ url: linkUrl, identity, logger })
}

/**
 * The name of the cluster for others on the same server. The first result is kept, so that a server
 * which comes back is used again while the database is away.
 */
export function identityOf(database: Queryable): () => Promise<string> {
  let known: string | null = null
  return async () => (known ??= (await database.run(readPlace))[0]!.place)
}

async function openSecondLevel({
  secondLevel = null,
  database,
  logger,
}: FeedWiring): Promise<SealedLevelOptions | null> {
  if (secondLevel === null) return null
  const { url, secret, level } = secondLevel
  return { store: await openSecondLevelStore(url, database, logger), secret, level }
}

/** Connects in the background. `database`: null to leave no mark on the server. */
export async function openSecondLevelStore(
  url: string,
  database: Database | null,
  logger: Logger,
): Promise<SecondLevel> {
  const { RedisSecondLevel } = await import('#cache/drivers/redis.ts')
  const identity = database === null ? {} : { identity: identityOf(database.control ?? database) }
  return new RedisSecondLevel({ url, ...identity, logger })
}

/**
 * Joins the cluster on this database, making its tables in the schema `stoa` at the first start.
 * Errors: `RangeError` for an option that cannot work; those of the database and of migrations.
 */
export async function joinCluster(options: ClusterOptions): Promise<Cluster> {
  const { url, leaseMs, pollGapMs, cache, logger = silentLogger } = options
  const { connectionsMax = connectionsMaxDefault } = options
  checkWhole('connectionsMax', connectionsMax, ownConnections + 1)
  checkWhole('leaseMs', leaseMs, 1)
  checkUrl('linkUrl', options.linkUrl, parseLinkUrl)
  checkUrl('secondLevelUrl', options.secondLevelUrl, parseRedisUrl)
  checkWhole('pollGapMs', pollGapMs, 0)
  await using opened = new AsyncDisposableStack()
  const database = new PostgresDatabase({
    url,
    connectionsMax: connectionsMax - ownConnections,
    statementTimeoutMs,
    connectTimeoutMs,
    feed: feedLane(leaseMs ?? leaseMsDefault),
    logger,
  })
  opened.defer(() => database.close())
  await migrate(database, { set: 'cluster' })
  const wired = await wireFeed(url, {
    database,
    applicationName: 'stoa',
    logger,
    secondLevel: await secondLevelOf(options, database),
    linkUrl: options.linkUrl ?? null,
    ...(leaseMs === undefined ? {} : { leaseMs }),
    ...(pollGapMs === undefined ? {} : { pollGapMs }),
    ...(cache === undefined ? {} : { cache }),
  })
  opened.use(wired)
  const { feed } = wired
  const closing = opened.move()
  return {
    database,
    feed,
    cache: wired.cache,
    attach: async (table, { collection, key, filterColumns = [] }) =>
      void (await database.run(attachTable, [table, collection, key, filterColumns])),
    write: async (work) => feed.write(database, work),
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

function checkWhole(name: keyof ClusterOptions, value: number | undefined, least: number): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= least)) return
  throw new RangeError(`${name} is ${value}; it must be a whole number and at least ${least}.`)
}

function checkUrl(
  name: keyof ClusterOptions,
  url: string | undefined,
  parse: (url: string) => unknown,
): void {
  if (url === undefined) return
  try {
    parse(url)
  } catch (error) {
    throw new RangeError(`${name} ${(error as Error).message}.`, { cause: error })
  }
}

const parseLinkUrl = (url: string): unknown =>
  url.startsWith('redis') ? parseRedisUrl(url) : parseNatsUrl(url)

async function secondLevelOf(
  { secondLevelUrl, secret, level = '' }: ClusterOptions,
  database: Database,
): Promise<SecondLevelWiring | null> {
  if (secondLevelUrl === undefined) return null
  const identity = async (): Promise<string> => (await database.run(readIdentity))[0]!.identity
  return { url: secondLevelUrl, secret: secret ?? (await identity()), level }
}
