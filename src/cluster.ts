import { Cache } from '#cache/cache.ts'
import type { CacheOptions } from '#cache/cache.ts'
import { RedisSecondLevel } from '#cache/drivers/redis.ts'
import { ChangeFeed } from '#change-feed/feed.ts'
import type { Token } from '#change-feed/token.ts'
import { PostgresLink } from '#cluster-link/drivers/postgres.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { primaryConnector } from '#database/postgres/primary-connector.ts'
import { migrate } from '#database/migrate.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
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
export type { LiveNode, NodeInfo, NodesNews, NodesOptions } from '#nodes/nodes.ts'

export type ClusterOptions = {
  /** Any PostgreSQL ≥ 15; several hosts after commas, of which the writable one is used. */
  readonly url: string
  /** How long a node may trust its cache without hearing from the primary, in milliseconds. */
  readonly leaseMs?: number
  /**
   * At least so long between two polls that writes ask for, and between two hints: longer costs the
   * primary less, and shows changes later by as much.
   */
  readonly pollGapMs?: number
  readonly connectionsMax?: number
  readonly cache?: CacheOptions['config']
  /** Redis or Valkey as a second level of the cache, for values that are got with a `codec`. */
  readonly secondLevelUrl?: string
  readonly logger?: Logger
}

/** One node: everything that shares `url` is one cluster, and nobody lists its nodes. */
export type Cluster = AsyncDisposable & {
  readonly database: Database
  readonly feed: ChangeFeed
  readonly cache: Cache
  /**
   * Makes a table tell its changes, from every writer and for good. The application may only call
   * it where it owns the table.
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
const connectTimeoutMs = 5_000
const statementTimeoutMs = 10_000
const leaseMsDefault = 1_000

/**
 * Joins the cluster on this database, making its tables in the schema `stoa` at the first start.
 * Errors: those of the database and of migrations.
 */
export async function joinCluster(options: ClusterOptions): Promise<Cluster> {
  const { url, leaseMs = leaseMsDefault, connectionsMax = 10, logger = silentLogger } = options
  const database = new PostgresDatabase({
    url,
    connectionsMax,
    statementTimeoutMs,
    connectTimeoutMs,
    logger,
  })
  try {
    await migrate(database, { set: 'cluster' })
  } catch (error) {
    await database.close()
    throw error
  }
  const feedDatabase = new PostgresDatabase({
    url,
    connectionsMax: 3,
    statementTimeoutMs: leaseMs,
    connectTimeoutMs: leaseMs,
    logger,
  })
  const link = new PostgresLink({
    connect: primaryConnector({ url, applicationName: 'stoa link' }),
    logger,
  })
  const feed = new ChangeFeed({
    database: feedDatabase,
    link,
    clock: systemClock,
    logger,
    config: {
      leaseMs,
      pollTimeoutMs: leaseMs,
      ...(options.pollGapMs === undefined
        ? {}
        : { pollGapMs: options.pollGapMs, hintGapMs: options.pollGapMs }),
    },
  })
  const secondLevel =
    options.secondLevelUrl === undefined
      ? null
      : new RedisSecondLevel({ url: options.secondLevelUrl, logger })
  const cache = new Cache({
    feed,
    database,
    ...(secondLevel === null ? {} : { secondLevel }),
    ...(options.cache === undefined ? {} : { config: options.cache }),
  })
  return {
    database,
    feed,
    cache,
    attach: async (table, { collection, key, filterColumns = [] }) =>
      void (await database.run(attachTable, [table, collection, key, filterColumns])),
    write: async (work) => feed.write(database, work),
    [Symbol.asyncDispose]: async () => {
      cache.close()
      await secondLevel?.close()
      await feed.stop()
      await link.close()
      await feedDatabase.close()
      await database.close()
    },
  }
}
