import { readFile } from 'node:fs/promises'
import type { ApiConfig, ClusterParts, Server } from '#api/api-context.ts'
import { ForwardingLog } from '#api/http/forwarding-log.ts'
import { RefusalLog } from '#api/problems/refusal-log.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import type { Config } from '#config/config.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import { FileStoreWatch } from '#file-store/file-store-watch.ts'
import type { Logger } from '#lib/logger.ts'
import { Ticker } from '#lib/ticker.ts'
import { createLogger } from '#lib/pino-logger.ts'
import { addressOf } from '#node/admission.ts'
import { bringUpToDate } from '#node/bring-up-to-date.ts'
import { nodeNameOf, openCluster } from '#node/drivers.ts'
import type { OpenedCluster } from '#node/drivers.ts'
import { nodeDoctor } from '#node/doctor.ts'
import { endWithin } from '#node/end-within.ts'
import { checkFileStore, claimFileStore } from '#node/file-store-check.ts'
import { filesMethod, moveFiles, replyAboutFiles } from '#node/file-move.ts'
import { openFoundation, secretOf } from '#node/foundation.ts'
import type { Foundation } from '#node/foundation.ts'
import { openNodeHttpCache } from '#node/http-cache.ts'
import type { NodeHttpCache } from '#node/http-cache.ts'
import { jobHandlers, openJobs } from '#node/jobs.ts'
import type { JobParts } from '#node/jobs.ts'
import { enterCluster } from '#node/join.ts'
import type { NodeCluster } from '#node/join.ts'
import { partsOf } from '#node/parts.ts'
import { reportOf } from '#node/report.ts'
import { ReservedPort } from '#node/reserved-port.ts'
import { takeConnections } from '#node/shared-port.ts'
import type { SharedPort } from '#node/shared-port.ts'
import { createSite, loadParts } from '#node/site.ts'
import type { OpenSiteOptions, Site, SiteFiles } from '#node/site.ts'
import { statusMethod } from '#nodes/cluster-status.ts'
import type { Nodes } from '#nodes/nodes.ts'

/** How long requests in flight may take to end when the node is asked to stop. */
const drainMs = 10_000
/** How long background work may take to end then. */
const backgroundMs = 5_000
const pruneSpoolMs = 3_600_000
/** A node serves once it has read the change feed anew, and at the latest after this. */
const catchUpMs = 5_000

const manifest = new URL('../../package.json', import.meta.url)

async function loadApi() {
  const [{ createServer }, { pageRoutes }, { collectIdempotencyKeys }, { createStarterContent }] =
    await Promise.all([
      import('#api/server.ts'),
      import('#api/routes/pages.ts'),
      import('#api/writes/idempotency.ts'),
      import('#node/starter-content.ts'),
    ])
  return { createServer, pageRoutes, collectIdempotencyKeys, createStarterContent }
}

/**
 * The site for one command: it logs to standard error, and only failures, so that standard output
 * is its result.
 */
export async function openSiteForCommand(
  config: Config,
  { createDatabase = false, usesFiles = false }: OpenSiteOptions = {},
): Promise<Site> {
  const logger = loggerFor(config, 'stderr')
  const loading = loadParts()
  await using opened = new AsyncDisposableStack()
  const foundation = opened.use(
    await openFoundation(config, logger, { besideNode: true, createDatabase }),
  )
  if (usesFiles) await checkFileStore(foundation)
  await bringUpToDate(foundation, { id: '' })
  if (usesFiles) await claimFileStore(foundation)
  const secret = await secretOf(foundation)
  if (usesFiles) await foundation.fileStore.refresh()
  const queue = new JobQueue(null)
  const site = opened.use(
    createSite(foundation, { parts: await loading, secret, queue, cache: null }),
  )
  const closing = opened.move()
  return { ...site, [Symbol.asyncDispose]: () => closing.disposeAsync() }
}

/** For `stoa files`; see `openSiteForCommand`. */
export async function openFilesForCommand(config: Config): Promise<SiteFiles> {
  const logger = loggerFor(config, 'stderr')
  await using opened = new AsyncDisposableStack()
  const foundation = opened.use(await openFoundation(config, logger, { besideNode: true }))
  const { database, fileStore: store, clock } = foundation
  await checkFileStore(foundation)
  await bringUpToDate(foundation, { id: '' })
  await secretOf(foundation)
  await store.refresh()
  const { verifyFiles } = await import('#media/verify-files.ts')
  const closing = opened.move()
  return {
    move: (options) => moveFiles(foundation, options),
    verify: (options) => verifyFiles({ database, store }, { ...options, nowMs: clock.nowMs() }),
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

function loggerFor(config: Config, output: 'stdout' | 'stderr'): Logger {
  return createLogger({
    level: output === 'stderr' && config.sources.logLevel === 'default' ? 'warn' : config.logLevel,
    node: nodeNameOf(config),
    output,
  })
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
    await startAndServe({ config, signal, mode, logger })
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error
    logger.info({}, 'stopped before it was ready')
  }
}

type Start = {
  readonly config: Config
  readonly signal: AbortSignal
  readonly mode: NodeMode
  readonly logger: Logger
}

/**
 * In this order, so that a node that cannot start has changed nothing: the port, the data folder
 * and the database, admission by the nodes that are there, the schema, the parts, the duties.
 */
async function startAndServe({ config, signal, mode, logger }: Start): Promise<void> {
  const startedAtMs = Date.now()
  const loading = Promise.all([loadParts(), loadApi()])
  await using port = await ReservedPort.take(
    mode.supervised === null ? config : { host: config.host, port: 0 },
  )
  await using foundation = await openFoundation(config, logger, { besideNode: false })
  signal.throwIfAborted()
  const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string }
  const supervisedAs = mode.supervised?.place ?? null
  await using node = await enterCluster(foundation, { supervisedAs, version, signal })
  signal.throwIfAborted()
  const [parts, api] = await loading
  const [{ database }, { secret }] = [foundation, node]
  await using opened = await openCluster({ ...foundation, secret, version })
  const forwarding = new ForwardingLog()
  await using files = new FileStoreWatch(foundation.fileStore, logger)
  const cluster = clusterOf(foundation, node, { opened, forwarding, files })
  await using jobs = openJobs(node.nodes, { database, link: cluster.link, logger })
  const siteOptions = { parts, secret, queue: jobs.queue, cache: cluster.cache }
  await using site = createSite(foundation, siteOptions)
  using httpCache = await openNodeHttpCache(config, site, cluster)
  const refusals = new RefusalLog(logger.child({ part: 'api' }))
  const { secondLevel } = opened
  handleCalls(cluster, { foundation, nodes: node.nodes, refusals, httpCache, secondLevel })
  if (config.starter) await api.createStarterContent(site)
  const server = await api.createServer({
    ...site,
    cluster,
    httpCache: httpCache.cache,
    secret,
    clock: foundation.clock,
    config: apiConfigOf(config),
    version,
    plugins: [api.pageRoutes({ ...config, version, node: node.name, startedAtMs })],
    refusals,
    forwarding,
  })
  const pruning = spoolPruning(site)
  const jobParts: JobParts = {
    ...site,
    forgetKeys: () => api.collectIdempotencyKeys(database),
    committed: () => cluster.feed.committed(),
  }
  let shared: SharedPort | null = null
  let drained: Promise<void> = Promise.resolve()
  try {
    const address = await announce({ port, server, node, cluster, config })
    shared = mode.supervised === null ? null : takeConnections(server)
    const origin = config.publicUrl ?? mode.supervised?.origin ?? address
    logger.info({ url: origin, startedInMs: Date.now() - startedAtMs, version }, 'ready')
    if (node.first) await announceFirstAdministrator(site, origin)
    mode.onReady()
    pruning.run()
    if (config.work.includes('jobs')) jobs.run([...jobHandlers(jobParts), ...httpCache.jobs])
    await aborted(AbortSignal.any([signal, node.drainAsked]))
    logger.info({}, 'stopping: finishing the requests in flight')
    httpCache.leave()
    drained = jobs.drain(backgroundMs)
    server.beginDrain()
    shared?.leave()
    await node.handOver()
  } finally {
    shared?.stopAccepting()
    await closeServer(server, shared, logger)
    await endWithin(pruning.stop(), backgroundMs, logger)
    await drained
  }
}

function handleCalls(
  cluster: ClusterParts,
  parts: {
    readonly foundation: Foundation
    readonly nodes: Nodes
    readonly refusals: RefusalLog
    readonly httpCache: NodeHttpCache
    readonly secondLevel: SecondLevel | null
  },
): void {
  const { foundation, nodes, refusals, httpCache, secondLevel } = parts
  cluster.calls.handle(filesMethod, (payload) => replyAboutFiles(foundation, payload))
  cluster.calls.handle(statusMethod, async () =>
    reportOf(cluster, nodes, {
      parts: await partsOf({ ...foundation, cluster, secondLevel }),
      problems: [...refusals.now(), ...httpCache.problems()],
    }),
  )
}

/** The spool is local to this machine, so every node looks after its own. */
function spoolPruning({ media, logger }: Site): Ticker {
  const work = (): Promise<void> => media.pruneSpool()
  return new Ticker({ name: 'prune-spool', intervalMs: pruneSpoolMs, logger, work })
}

/** The node's part of the cluster, with calls, and a doctor that other nodes can ask. */
function clusterOf(
  foundation: Foundation,
  node: NodeCluster,
  {
    opened,
    forwarding,
    files,
  }: {
    readonly opened: OpenedCluster
    readonly forwarding: ForwardingLog
    readonly files: FileStoreWatch
  },
): ClusterParts {
  const { nodes } = node
  files.run()
  const cluster = {
    ...opened,
    files,
    calls: node.startCalls(opened.link),
    duties: () => nodes.duties(),
  }
  const { secondLevel } = opened
  return {
    ...cluster,
    findings: nodeDoctor({ foundation, nodes, cluster, secondLevel, forwarding }),
  }
}

function apiConfigOf(config: Config): Partial<ApiConfig> {
  const isEncrypted = config.publicUrl?.startsWith('https:') === true
  return {
    servesWeb: config.work.includes('web'),
    trustProxy: config.trustProxy,
    corsOrigins: config.corsOrigins,
    metricsPublic: config.metricsPublic,
    uploadBytesMax: config.uploadBytesMax,
    secureCookies: isEncrypted,
    hstsS: isEncrypted ? config.hstsS : 0,
  }
}

/**
 * Announces to the other nodes where this one is, and then serves. A write that did not wait for
 * this node, because it was still starting, is in what it reads of the change feed after that.
 */
async function announce(parts: {
  readonly port: ReservedPort
  readonly server: Server
  readonly node: NodeCluster
  readonly cluster: ClusterParts
  readonly config: Config
}): Promise<string> {
  const { port, server, node, cluster, config } = parts
  const address = addressOf({ host: config.host, port: port.port })
  await node.serve(address)
  await cluster.feed.settle(catchUpMs)
  return port.serve(server)
}

async function announceFirstAdministrator({ access, logger }: Site, url: string): Promise<void> {
  const secret = await access.firstAdministratorSecret()
  if (secret === null) return
  logger.info(
    { link: `${url}/first-administrator#${secret}` },
    'there is no account yet: open this link once, within 24 hours, to make the first ' +
      'administrator',
  )
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  )
}

async function closeServer(
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
