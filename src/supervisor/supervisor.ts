import { hostname } from 'node:os'
import { UsageError } from '#lib/usage-error.ts'
import type { Config } from '#config/config.ts'
import { openDataFolder } from '#node/data-folder.ts'
import { startEmbeddedPostgres } from '#embedded-postgres/embedded-postgres.ts'
import { ConnectionDispatcher } from '#supervisor/connection-dispatcher.ts'
import type { Logger } from '#lib/logger.ts'
import { createLogger } from '#lib/pino-logger.ts'
import { NodeProcess } from '#supervisor/node-process.ts'

/** A server has 100 connections where nothing else is set; some are left for commands. */
const sharedConnections = 90
const connectionsMin = 6

/**
 * Runs `count` nodes as processes of their own on one port, until `signal` aborts: then they drain
 * together. A node that ends by itself is started again; one that was drained (`stoa drain`) stays
 * away. SIGHUP restarts them one after the other, with the program as it is then on disk.
 *
 * Errors: `UsageError` for more nodes than the embedded database has connections for;
 * `NodeStartError` if one of them cannot start at first; those of the embedded database, which the
 * supervisor owns.
 */
export async function superviseNodes(
  config: Config,
  count: number,
  signal: AbortSignal,
): Promise<void> {
  const base = config.node ?? hostname()
  const logger = createLogger({ level: config.logLevel, node: base, output: 'stdout' })
  const embeddedMax = Math.floor(sharedConnections / connectionsMin)
  if (config.databaseUrl === null && count > embeddedMax)
    throw new UsageError(
      `The embedded database has connections for ${embeddedMax} nodes; for more, set ` +
        `STOA_DATABASE_URL to a PostgreSQL of your own.`,
    )
  const rolling = new Rolling(logger)
  await using opened = new AsyncDisposableStack()
  // Handled from the first moment to the last, since by default a hang-up ends the process, and
  // with it the embedded database.
  const onHangUp = (): void => rolling.ask()
  process.on('SIGHUP', onHangUp)
  opened.defer(() => void process.off('SIGHUP', onHangUp))
  const dataDir = await openDataFolder(config)
  const embedded =
    config.databaseUrl === null
      ? opened.use(await startEmbeddedPostgres({ dataDir, logger }))
      : null
  const dispatcher = new ConnectionDispatcher()
  opened.defer(() => dispatcher.close())
  const origin = await dispatcher.listen(config)
  const nodes = Array.from(
    { length: count },
    (_, index) =>
      new NodeProcess(
        dispatcher,
        origin,
        share(config, count, {
          databaseUrl: embedded?.url ?? config.databaseUrl,
          node: `${base}-${index + 1}`,
        }),
        logger,
      ),
  )
  const stopped = aborted(signal)
  try {
    // The first makes the schema and the starter content; the others find it.
    for (const node of nodes) {
      if (signal.aborted) break
      await Promise.race([node.start(), stopped])
    }
    if (signal.aborted) return
    logger.info(
      { nodes: count, pid: process.pid },
      'all nodes are ready; SIGHUP restarts them one by one',
    )
    rolling.begin(nodes)
    await Promise.race([stopped, Promise.all(nodes.map(async (node) => node.left))])
  } finally {
    rolling.end()
    dispatcher.end()
    await Promise.all(nodes.map(async (node) => node.stop()))
  }
}

/** The share that one node of several gets of limits meant for one, unless they were set. */
function share(
  config: Config,
  count: number,
  own: { readonly databaseUrl: string | null; readonly node: string },
): Config {
  const { sources } = config
  const connections = Math.floor(sharedConnections / count)
  return {
    ...config,
    ...own,
    databaseConnections:
      sources.databaseConnections === 'default'
        ? Math.max(connectionsMin, Math.min(config.databaseConnections, connections))
        : config.databaseConnections,
    cacheBytes:
      sources.cacheBytes === 'default' ? Math.floor(config.cacheBytes / count) : config.cacheBytes,
  }
}

/**
 * Restarts all nodes, one at a time. Asked before all have started, it does it then; asked again
 * while it does so, it does it once more.
 */
class Rolling {
  readonly #logger: Logger
  #nodes: readonly NodeProcess[] | null = null
  #asked = false
  #busy = false
  #ended = false

  constructor(logger: Logger) {
    this.#logger = logger
  }

  ask(): void {
    this.#asked = true
    if (this.#nodes !== null && !this.#busy && !this.#ended) void this.#run(this.#nodes)
  }

  begin(nodes: readonly NodeProcess[]): void {
    this.#nodes = nodes
    if (this.#asked) this.ask()
  }

  end(): void {
    this.#ended = true
  }

  async #run(nodes: readonly NodeProcess[]): Promise<void> {
    this.#busy = true
    while (this.#asked && !this.#ended) {
      this.#asked = false
      try {
        for (const node of nodes) if (node.running && !this.#ended) await node.replace()
        if (!this.#ended) this.#logger.info({}, 'all nodes were restarted')
      } catch (error) {
        // The others go on as they are: what cannot start must not take all of them.
        if (!this.#ended) this.#logger.error({ err: error }, 'the rolling restart was abandoned')
      }
    }
    this.#busy = false
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) =>
    signal.addEventListener('abort', () => resolve(), { once: true }),
  )
}
