import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ClusterParts, Server } from '#api/api-context.ts'
import { RefusalLog } from '#api/problems/refusal-log.ts'
import { backgroundWork } from '#node/background-work.ts'
import { ListenError } from '#node/errors.ts'
import type { Site } from '#node/site.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import type { Config } from '#config/config.ts'
import { openDataFolder } from '#node/data-folder.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { startEmbeddedPostgres, urlOfRunning } from '#embedded-postgres/embedded-postgres.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { primaryConnector } from '#database/postgres/primary-connector.ts'
import { DataFolderInUseError } from '#embedded-postgres/errors.ts'
import { migrate } from '#database/migrate.ts'
import type { FileStore } from '#file-store/file-store.ts'
import { systemClock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import { createLogger } from '#lib/pino-logger.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import { addressOf } from '#node/admission.ts'
import { enterCluster } from '#node/join.ts'
import { reportOf } from '#node/report.ts'
import { statusMethod } from '#nodes/cluster-status.ts'
import { takeConnections } from '#node/shared-port.ts'
import type { SharedPort } from '#node/shared-port.ts'

/** How long requests in flight may take to end when the node is told to stop. */
const drainMs = 10_000
/**
 * How long background work may take to end then. What is longer, as building an index, is left, and
 * any node takes it up again.
 */
const backgroundMs = 5_000
/** For polls, heartbeats and trimming, which must never wait for other work. */
const feedConnections = 3
/** For a connection to a standby, and for one statement there. */
const replicaTimeoutMs = 1_000
/** Of the memory of the cache, for texts of rows that lists are made of. */
const rowTextsShare = 0.125
/** Answers larger than this are not kept. */
const entryBytesMax = 4 * 1024 * 1024

const makeSecret = sql(`insert into stoa.secret (value) values ($1) on conflict do nothing`)
const readSecret = sql<{ value: string }>(`select value from stoa.secret`)

const manifest = new URL('../../package.json', import.meta.url)

/**
 * Loaded while the database starts: both take about as long, and one of them waits for a child
 * process.
 */
async function loadParts() {
  const [{ createAccess }, { createContent }, { createMedia }, { DiskFileStore }] =
    await Promise.all([
      import('#access/create-access.ts'),
      import('#content/create-content.ts'),
      import('#media/create-media.ts'),
      import('#file-store/drivers/disk.ts'),
    ])
  return { createAccess, createContent, createMedia, DiskFileStore }
}

async function loadApi() {
  const [{ createServer }, { pageRoutes }, { collectIdempotencyKeys }, { plantStarter }] =
    await Promise.all([
      import('#api/server.ts'),
      import('#api/routes/pages.ts'),
      import('#api/writes/idempotency.ts'),
      import('#node/starter-content.ts'),
    ])
  return { createServer, pageRoutes, collectIdempotencyKeys, plantStarter }
}

/**
 * The site for one command: it logs to standard error, and only what went wrong, so that standard
 * output is its result.
 */
export function openSiteForCommand(config: Config): Promise<Site> {
  return openSite({ ...config, cacheBytes: 0 }, loggerFor(config, 'stderr'), { besideNode: true })
}

function nodeName(config: Config): string {
  return config.node ?? hostname()
}

function loggerFor(config: Config, output: 'stdout' | 'stderr'): Logger {
  return createLogger({
    level: output === 'stderr' && config.sources.logLevel === 'default' ? 'warn' : config.logLevel,
    node: nodeName(config),
    output,
  })
}

/** What a node needs beside the site to be one of several. */
type OpenedSite = Site & {
  readonly cluster: ClusterParts | null
  readonly url: string
  readonly secret: string
  readonly fileStore: FileStore
}

/**
 * `besideNode`: use the embedded database of a node that runs on the data folder. A node itself
 * must not, since that one ends with its owner.
 */
async function openSite(
  config: Config,
  logger: Logger,
  { besideNode, signal }: { readonly besideNode: boolean; readonly signal?: AbortSignal },
): Promise<OpenedSite> {
  const dataDir = await openDataFolder(config)
  await using opened = new AsyncDisposableStack()
  const loading = loadParts()
  const url = config.databaseUrl ?? (await embeddedUrl(dataDir, logger, opened, besideNode))
  const database = new PostgresDatabase({
    url,
    connectionsMax: config.databaseConnections,
    statementTimeoutMs: config.databaseTimeoutMs,
    connectTimeoutMs: config.databaseTimeoutMs,
    applicationName: `stoa ${nodeName(config)}`,
    logger: logger.child({ part: 'database' }),
  })
  opened.defer(() => database.close())
  const applied = await migrate(database, signal === undefined ? {} : { signal })
  if (applied.length > 0) logger.info({ applied }, 'the database schema was brought up to date')
  const secret = config.secret ?? (await keptSecret(database))
  const clock = systemClock
  const { createAccess, createContent, createMedia, DiskFileStore } = await loading
  const content = createContent({ clock, logger })
  opened.defer(() => inTime(content.stop(), logger))
  const cluster =
    config.cacheBytes === 0 ? null : await joinFeed(config, url, { database, logger, opened })
  const access = createAccess({
    database,
    clock,
    logger,
    secret,
    ...(cluster === null ? {} : { cache: cluster.cache }),
  })
  const fileStore = new DiskFileStore({
    folder: config.filesUrl === null ? join(dataDir, 'files') : fileURLToPath(config.filesUrl),
    clock,
  })
  const media = createMedia({
    database,
    fileStore,
    dataDir,
    clock,
    logger,
    limits: { uploadBytesMax: config.uploadBytesMax },
  })
  opened.defer(() => media.stop())
  const closing = opened.move()
  return {
    config,
    logger,
    database,
    cluster,
    content,
    access,
    media,
    url,
    secret,
    fileStore,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

/** Follows the change feed, and keeps what it allows. */
async function joinFeed(
  config: Config,
  url: string,
  parts: {
    readonly database: Database
    readonly logger: Logger
    readonly opened: AsyncDisposableStack
  },
): Promise<ClusterParts> {
  const { database, opened } = parts
  const { leaseMs, pollGapMs, staleMs, cacheBytes } = config
  const logger = parts.logger.child({ part: 'cluster' })
  const [{ Cache }, { ChangeFeed }, { AppliedLog }, { PostgresLink }, { RowTexts }] =
    await Promise.all([
      import('#cache/cache.ts'),
      import('#change-feed/feed.ts'),
      import('#change-feed/applied-log.ts'),
      import('#cluster-link/drivers/postgres.ts'),
      import('#content/query/row-texts.ts'),
    ])
  const feedDatabase = new PostgresDatabase({
    url,
    connectionsMax: feedConnections,
    statementTimeoutMs: leaseMs,
    connectTimeoutMs: leaseMs,
    applicationName: `stoa ${nodeName(config)} feed`,
    logger,
  })
  opened.defer(() => feedDatabase.close())
  const link = new PostgresLink({
    connect: primaryConnector({ url, applicationName: `stoa ${nodeName(config)} link` }),
    logger,
  })
  opened.defer(() => link.close())
  const feed = new ChangeFeed({
    database: feedDatabase,
    link,
    clock: systemClock,
    logger,
    config: { leaseMs, pollTimeoutMs: leaseMs, pollGapMs, hintGapMs: pollGapMs },
  })
  opened.defer(() => feed.stop())
  const secondLevel =
    config.cacheUrl === null
      ? null
      : opened.adopt(await openSecondLevel(config.cacheUrl, logger), (level) => level.close())
  const replica =
    config.databaseReadUrl === null ? null : openReplica(config, config.databaseReadUrl, parts)
  const more = {
    ...(secondLevel === null ? {} : { secondLevel }),
    ...(replica === null ? {} : { replica }),
  }
  const texts = new RowTexts(cacheBytes * rowTextsShare)
  const bytesMax = Math.floor(cacheBytes * (1 - rowTextsShare))
  const cache = new Cache({
    feed,
    database,
    ...more,
    config: { staleMs, bytesMax, entryBytesMax: Math.min(entryBytesMax, bytesMax) },
  })
  opened.defer(async () => cache.close())
  const applied = opened.use(new AppliedLog(feed, systemClock))
  return { feed, cache, link, applied, texts, calls: null }
}

async function openSecondLevel(url: string, logger: Logger): Promise<SecondLevel> {
  const { RedisSecondLevel } = await import('#cache/drivers/redis.ts')
  return new RedisSecondLevel({ url, logger })
}

/** With short deadlines: what a standby does not answer soon, the primary does. */
function openReplica(
  config: Config,
  url: string,
  { logger, opened }: { readonly logger: Logger; readonly opened: AsyncDisposableStack },
): Database {
  const replica = new PostgresDatabase({
    url,
    wanted: 'standby',
    connectionsMax: config.databaseConnections,
    statementTimeoutMs: replicaTimeoutMs,
    connectTimeoutMs: replicaTimeoutMs,
    applicationName: `stoa ${nodeName(config)} reads`,
    logger: logger.child({ part: 'replica' }),
  })
  opened.defer(() => replica.close())
  return replica
}

/**
 * The embedded database: started here, or, for a command beside a running node, the one that node
 * has started.
 */
async function embeddedUrl(
  dataDir: string,
  logger: Logger,
  opened: AsyncDisposableStack,
  besideNode: boolean,
): Promise<string> {
  try {
    return opened.use(await startEmbeddedPostgres({ dataDir, logger })).url
  } catch (error) {
    const running =
      besideNode && error instanceof DataFolderInUseError ? await urlOfRunning(dataDir) : null
    if (running === null) throw error
    return running
  }
}

/** One for the whole cluster, made by whichever node comes first. */
async function keptSecret(database: Database): Promise<string> {
  await database.run(makeSecret, [randomBytes(32).toString('hex')])
  const [kept] = await database.run(readSecret)
  return kept!.value
}

/**
 * `supervised`: its place among several processes behind one port, each of which has an address of
 * its own beside it, and that port. Null: it is by itself.
 */
export type NodeMode = {
  readonly supervised: { readonly place: string; readonly origin: string } | null
  readonly onReady: () => void
}

/**
 * Serves until `signal` aborts, then drains and resolves; if it aborts earlier, at the next step of
 * starting.
 */
export async function runNode(
  config: Config,
  signal: AbortSignal,
  mode: NodeMode = { supervised: null, onReady: () => undefined },
): Promise<void> {
  const logger = loggerFor(config, 'stdout')
  try {
    await startAndServe(config, signal, mode, logger)
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error
    logger.info({}, 'stopped before it was ready')
  }
}

async function startAndServe(
  config: Config,
  signal: AbortSignal,
  mode: NodeMode,
  logger: Logger,
): Promise<void> {
  const startedAtMs = Date.now()
  const loading = loadApi()
  await using site = await openSite(config, logger, { besideNode: false, signal })
  signal.throwIfAborted()
  const { collectIdempotencyKeys, createServer, pageRoutes, plantStarter } = await loading
  const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string }
  const { database, cluster, content, access, media, url: databaseUrl, secret, fileStore } = site
  await using node = await enterCluster({
    config,
    supervisedAs: mode.supervised?.place ?? null,
    url: databaseUrl,
    database,
    link: cluster?.link ?? null,
    fileStore,
    secret,
    version,
    logger,
  })
  signal.throwIfAborted()
  const refusals = new RefusalLog(logger.child({ part: 'api' }))
  node.calls.handle(statusMethod, async () => reportOf(cluster, refusals.now()))
  if (config.starter) await plantStarter(site)
  const pages = pageRoutes({ version, node: node.name, startedAtMs, publicUrl: config.publicUrl })
  const limits = {
    trustProxy: config.trustProxy,
    corsOrigins: config.corsOrigins,
    metricsPublic: config.metricsPublic,
    uploadBytesMax: config.uploadBytesMax,
    secureCookies: config.publicUrl?.startsWith('https:') === true,
  }
  const server = await createServer({
    database,
    calls: node.calls,
    ...(cluster === null ? {} : { cluster: { ...cluster, calls: node.calls } }),
    content,
    access,
    media,
    logger,
    clock: systemClock,
    config: limits,
    version,
    plugins: [pages],
    refusals,
  })
  const tickers = backgroundWork(site, {
    nodes: node.nodes,
    forgetKeys: () => collectIdempotencyKeys(database),
    committed: () => cluster?.feed.committed(),
  })
  let shared: SharedPort | null = null
  try {
    const address = await listen(
      server,
      mode.supervised === null ? config : { host: config.host, port: 0 },
    )
    shared = mode.supervised === null ? null : takeConnections(server)
    const url = config.publicUrl ?? mode.supervised?.origin ?? address
    node.nodes.describe({
      address: addressOf({ host: config.host, port: Number(new URL(address).port) }),
    })
    logger.info({ url, startedInMs: Date.now() - startedAtMs, version }, 'ready')
    if (node.first) await announceFirstAdministrator(site, url)
    mode.onReady()
    for (const ticker of tickers) ticker.run()
    await aborted(AbortSignal.any([signal, node.drainAsked]))
    logger.info({}, 'stopping: finishing the requests in flight')
    server.beginDrain()
    shared?.leave()
    await node.handOver()
  } finally {
    shared?.stopAccepting()
    await closeWithin(server, shared, logger)
    await inTime(Promise.all(tickers.map((ticker) => ticker.stop())), logger)
  }
}

/** Waits for background work, but not for longer than a node has that was told to stop. */
async function inTime(work: Promise<unknown>, logger: Logger): Promise<void> {
  if ((await withTimeout(work, backgroundMs)) === timedOut)
    logger.warn(
      { afterMs: backgroundMs },
      'background work did not end in time; it is left, and taken up again by a node that runs',
    )
}

async function listen(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<string> {
  try {
    return await server.listen({ host, port })
  } catch (error) {
    throw new ListenError({ host, port }, error)
  }
}

async function announceFirstAdministrator({ access, logger }: Site, url: string): Promise<void> {
  const secret = await access.firstAdministratorSecret()
  if (secret === null) return
  logger.info(
    { link: `${url}/first-administrator#${secret}` },
    'nobody has an account yet: open this link once, within 24 hours, to make the first administrator',
  )
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  )
}

async function closeWithin(
  server: Server,
  shared: SharedPort | null,
  logger: Logger,
): Promise<void> {
  const timer = setTimeout(() => {
    logger.warn({ afterMs: drainMs }, 'requests did not end in time; their connections are closed')
    server.server.closeAllConnections()
  }, drainMs)
  try {
    await Promise.all([server.close(), shared?.ended])
  } finally {
    clearTimeout(timer)
  }
}
