import { hostname } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ClusterParts } from '#api/api-context.ts'
import { AppliedLog } from '#change-feed/applied-log.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import { openSecondLevelStore, wireFeed } from '#cluster.ts'
import type { Config } from '#config/config.ts'
import { RowTexts } from '#content/query/row-texts.ts'
import type { Database } from '#database/database.ts'
import { onEachHost } from '#database/postgres/each-host.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import type { LaneOptions } from '#database/postgres/postgres-database.ts'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import type { FileStore } from '#file-store/file-store.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { parseHttpCacheUrl } from '#http-cache/parse-url.ts'
import { systemClock } from '#lib/clock.ts'
import type { Clock } from '#lib/clock.ts'
import type { Standby } from '#doctor/check.ts'
import { silentLogger } from '#lib/logger.ts'
import type { Logger } from '#lib/logger.ts'
import { parseS3Url } from '#lib/s3-url.ts'
import { nodeLeaseMsDefault } from '#nodes/nodes.ts'

/**
 * The composition root's choice of drivers: beside `src/cluster.ts`, only this file imports any.
 */

export { identityOf, openLink } from '#cluster.ts'

/** For a connection to a standby, and for one statement there. */
const replicaTimeoutMs = 1_000
/**
 * Each of the node's own kinds of statements has connections of its own, so that none of them waits
 * for ordinary work: the poll of the change feed, its heartbeat, and the heartbeat of the node, of
 * which the latter two may hang where a synchronous standby is away; health checks and calls
 * between nodes; notifications of Cluster Link.
 */
const feedConnections = 3
const controlConnections = 1
const linkConnections = 1
const ownConnections = feedConnections + controlConnections + linkConnections
/** Share of the cache reserved for the row texts of lists. */
const rowTextsShare = 0.125
/** Responses larger than this are not kept. */
const entryBytesMax = 4 * 1024 * 1024

export type DriverOptions = {
  readonly config: Config
  /** The URL of the primary, be it embedded or not. */
  readonly url: string
  readonly logger: Logger
}

export function nodeNameOf(config: Config): string {
  return config.node ?? hostname()
}

export function commandNameOf(): string {
  return `stoa command on ${hostname()}`
}

/** The database of a node; all its connections together are `databaseConnections`. */
export function openDatabase({ config, url, logger }: DriverOptions): Database {
  const { databaseTimeoutMs, databaseDirectUrl } = config
  return new PostgresDatabase({
    url,
    directUrl: databaseDirectUrl,
    connectionsMax: workConnections(config),
    statementTimeoutMs: databaseTimeoutMs,
    connectTimeoutMs: databaseTimeoutMs,
    feed: lane(feedConnections),
    control: lane(controlConnections),
    applicationName: `stoa ${nodeNameOf(config)}`,
    logger: logger.child({ part: 'database' }),
  })
}

/** A statement of the node itself that waits longer than the node lease is of no use. */
function lane(connectionsMax: number): LaneOptions {
  return {
    connectionsMax,
    statementTimeoutMs: nodeLeaseMsDefault,
    connectTimeoutMs: nodeLeaseMsDefault,
  }
}

/** The connections that are left for requests and background work. */
function workConnections({ databaseConnections }: Config): number {
  return databaseConnections - ownConnections
}

/** For commands that look at the cluster from outside. */
export function openCommandDatabase(
  { config, url, logger }: DriverOptions,
  connectionsMax: number,
): Database {
  return new PostgresDatabase({
    url,
    directUrl: config.databaseDirectUrl,
    connectionsMax,
    statementTimeoutMs: config.databaseTimeoutMs,
    connectTimeoutMs: config.databaseTimeoutMs,
    applicationName: commandNameOf(),
    logger,
  })
}

/** The SDK for S3 is loaded only where a bucket is used. */
export async function openFileStore(
  url: string | null,
  { dataDir, clock }: { readonly dataDir: string; readonly clock: Clock },
): Promise<FileStore> {
  if (url?.startsWith('s3:') !== true) {
    const folder = url === null ? join(dataDir, 'files') : fileURLToPath(url)
    return new DiskFileStore({ folder, mayCreateFolder: url === null, clock })
  }
  const { S3FileStore } = await import('#file-store/drivers/s3.ts')
  return new S3FileStore({ place: parseS3Url(url), spoolFolder: join(dataDir, 'spool'), clock })
}

/** Null: none is configured. */
export async function openSecondLevel(
  url: string | null,
  database: Database | null,
): Promise<SecondLevel | null> {
  return url === null ? null : openSecondLevelStore(url, database, silentLogger)
}

/** The servers that STOA_DATABASE_READ_URL names, as they are now. */
export async function readStandbys({ databaseReadUrl }: Config): Promise<readonly Standby[]> {
  if (databaseReadUrl === null) return []
  const hosts = await onEachHost<{ standby: boolean; feedback: string; system: string }>(
    databaseReadUrl,
    `select pg_is_in_recovery() as standby, current_setting('hot_standby_feedback') as feedback,
       system_identifier::text as system from pg_control_system()`,
  )
  return hosts.map((found) => {
    if ('error' in found) return found
    const { standby, feedback, system } = found.rows[0]!
    return { host: found.host, isStandby: standby, feedback: feedback === 'on', system }
  })
}

/** The options that each HTTP cache knows in its URL. */
const httpCacheOptions = {
  varnish: ['firstByteTimeout'],
  fastly: ['api'],
  cloudflare: ['api', 'plan'],
} as const

/** The HTTP cache that the setting names; null: none. Errors: `HttpCacheUrlError`. */
export async function openHttpCache(
  { httpCacheUrl }: Config,
  purgeKey: string,
): Promise<HttpCache | null> {
  if (httpCacheUrl === null) return null
  const { scheme, hosts, password, options } = parseHttpCacheUrl(httpCacheUrl, httpCacheOptions)
  const api = options.get('api')
  const vendor = { token: password, ...(api === undefined ? {} : { api }) }
  if (scheme === 'varnish') {
    const { VarnishHttpCache } = await import('#http-cache/drivers/varnish.ts')
    return new VarnishHttpCache({
      hosts,
      purgeKey,
      firstByteTimeoutS: options.get('firstByteTimeout') ?? null,
    })
  }
  if (scheme === 'fastly') {
    const { FastlyHttpCache } = await import('#http-cache/drivers/fastly.ts')
    return new FastlyHttpCache({ ...vendor, service: hosts.join(',') })
  }
  const { CloudflareHttpCache } = await import('#http-cache/drivers/cloudflare.ts')
  return new CloudflareHttpCache({
    ...vendor,
    zone: hosts.join(','),
    plan: options.get('plan') ?? 'free',
  })
}

export type OpenedCluster = AsyncDisposable &
  Omit<ClusterParts, 'calls' | 'duties' | 'findings' | 'files'> & {
    readonly secondLevel: SecondLevel | null
  }

export type ClusterOptions = DriverOptions & {
  readonly database: Database
  /** The cluster's secret. */
  readonly secret: string
  readonly version: string
}

/** The change feed and the cache of one node, as its configuration has them. */
export async function openCluster(options: ClusterOptions): Promise<OpenedCluster> {
  const { config, url, database, secret, version } = options
  const { leaseMs, pollGapMs, staleMs, cacheBytes, cacheUrl, linkUrl } = config
  await using opened = new AsyncDisposableStack()
  const replica = openReplica(options)
  opened.defer(async () => replica?.close())
  const bytesMax = Math.floor(cacheBytes * (1 - rowTextsShare))
  const wired = await wireFeed(config.databaseDirectUrl ?? url, {
    database,
    replica,
    leaseMs,
    pollGapMs,
    linkUrl,
    secondLevel: cacheUrl === null ? null : { url: cacheUrl, secret, level: version },
    cache: { staleMs, bytesMax, entryBytesMax: Math.min(entryBytesMax, bytesMax) },
    applicationName: `stoa ${nodeNameOf(config)}`,
    logger: options.logger.child({ part: 'cluster' }),
  })
  opened.use(wired)
  const applied = opened.use(new AppliedLog(wired.feed, systemClock))
  const texts = new RowTexts(cacheBytes * rowTextsShare)
  const closing = opened.move()
  const { feed, cache, link, secondLevel } = wired
  return {
    feed,
    cache,
    link,
    secondLevel,
    applied,
    texts,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

/** Short deadlines: when a standby does not respond soon, the primary is read. */
function openReplica({ config, logger }: DriverOptions): Database | null {
  if (config.databaseReadUrl === null) return null
  return new PostgresDatabase({
    url: config.databaseReadUrl,
    wanted: 'standby',
    connectionsMax: workConnections(config),
    statementTimeoutMs: replicaTimeoutMs,
    connectTimeoutMs: replicaTimeoutMs,
    applicationName: `stoa ${nodeNameOf(config)} reads`,
    logger: logger.child({ part: 'replica' }),
  })
}
