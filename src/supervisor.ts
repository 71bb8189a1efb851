import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { NodeStartError, UsageError } from '#cli/errors.ts'
import type { Config } from '#config/config.ts'
import { startEmbeddedPostgres } from '#database/drivers/embedded/embedded-postgres.ts'
import { Door } from '#door.ts'
import { newId } from '#lib/id.ts'
import type { Logger } from '#lib/logger.ts'
import { createLogger } from '#lib/pino-logger.ts'
import type { UpMessage } from '#shared-port.ts'
import type { FromSupervisor, ToSupervisor } from '#supervised-node.ts'

/** A node that ended by itself is started again after this long, doubled with each time up to the maximum. */
const restartFirstMs = 500
const restartMaxMs = 30_000
/** One that ran for so long begins anew with the first pause. */
const stableMs = 60_000
/** Beyond the grace for load balancers and the requests in flight; then a node that will not end is killed. */
const stopExtraMs = 30_000
const readyDeadlineMs = 120_000
/** Connections that a node holds beside `databaseConnections`: beats and calls, the change feed, Cluster Link, reserves. */
const ownConnections = 12
/** Of the 100 that the embedded database takes, some are left for commands. */
const embeddedConnections = 90
const connectionsMin = 4

const program = fileURLToPath(new URL('supervised-node.ts', import.meta.url))

/**
 * Runs `count` nodes as processes of their own on one port, until `signal` aborts: then they drain together. A node that ends by itself is
 * started again; one that was drained (`stoa drain`) stays away. SIGHUP restarts them one after the other, with the program as it is then on disk.
 *
 * Errors: `UsageError` for more nodes than the embedded database has connections for; `NodeStartError` if one of them cannot start at first; those of the embedded database, which the supervisor owns.
 */
export async function superviseNodes(config: Config, count: number, signal: AbortSignal): Promise<void> {
  const base = config.node ?? hostname()
  const logger = createLogger({ level: config.logLevel, node: base, output: 'stdout' })
  const embeddedMax = Math.floor(embeddedConnections / (connectionsMin + ownConnections))
  if (config.databaseUrl === null && count > embeddedMax) throw new UsageError(`The embedded database has connections for ${embeddedMax} nodes; for more, set STOA_DATABASE_URL to a PostgreSQL of your own.`)
  await using opened = new AsyncDisposableStack()
  const dataDir = resolve(config.data)
  await mkdir(dataDir, { recursive: true })
  const embedded = config.databaseUrl === null ? opened.use(await startEmbeddedPostgres({ dataDir, logger })) : null
  const door = new Door()
  opened.defer(() => door.close())
  const origin = await door.listen(config)
  const nodes = Array.from({ length: count }, (_, index) => new SupervisedNode(door, origin, share(config, count, { databaseUrl: embedded?.url ?? config.databaseUrl, node: `${base}-${index + 1}` }), logger))
  const rolling = new Rolling(nodes, logger)
  const onHangUp = (): void => rolling.ask()
  process.on('SIGHUP', onHangUp)
  try {
    // The first makes the schema and the starter content; the others find it.
    for (const node of nodes) {
      await node.start()
      if (signal.aborted) break
    }
    logger.info({ nodes: count, pid: process.pid }, 'all nodes are ready; SIGHUP restarts them one by one')
    await Promise.race([aborted(signal), Promise.all(nodes.map(async (node) => node.left))])
  } finally {
    process.off('SIGHUP', onHangUp)
    await Promise.all(nodes.map(async (node) => node.stop()))
  }
}

/** What one node of several gets of what was meant for one, unless it was set on purpose. */
function share(config: Config, count: number, own: { readonly databaseUrl: string | null; readonly node: string }): Config {
  const { sources } = config
  const connections = config.databaseUrl === null ? Math.floor(embeddedConnections / count) - ownConnections : Math.ceil(config.databaseConnections / count)
  return {
    ...config,
    ...own,
    databaseConnections: sources.databaseConnections === 'default' ? Math.max(connectionsMin, Math.min(config.databaseConnections, connections)) : config.databaseConnections,
    cacheBytes: sources.cacheBytes === 'default' ? Math.floor(config.cacheBytes / count) : config.cacheBytes,
  }
}

/** Modes: down, `starting` until it says that it is ready, `running`, `stopping` when told to, `left` for ever once it ended in order by itself. */
class SupervisedNode {
  readonly #door: Door
  readonly #origin: string
  readonly #config: Config
  readonly #place = newId()
  readonly #logger: Logger
  readonly #left = Promise.withResolvers<void>()
  readonly #stopped = new AbortController()
  #child: ChildProcess | null = null
  #ended: Promise<void> = Promise.resolve()
  #stopping = false
  #restarts = 0

  constructor(door: Door, origin: string, config: Config, logger: Logger) {
    this.#door = door
    this.#origin = origin
    this.#config = config
    this.#logger = logger
  }

  /** Resolves when it was drained by somebody else. */
  get left(): Promise<void> {
    return this.#left.promise
  }

  get running(): boolean {
    return this.#child !== null
  }

  /** Resolves when it serves. Errors: `NodeStartError`. */
  async start(): Promise<void> {
    if (this.#stopped.signal.aborted) return
    const child = fork(program, { execArgv: [] })
    this.#door.serveThrough(child)
    child.on('error', (error) => this.#logger.debug({ err: error }, 'a node could not be told something; its end says the rest'))
    const startedMs = performance.now()
    this.#child = child
    this.#stopping = false
    const ready = Promise.withResolvers<void>()
    let isReady = false
    let complaint = 'it ended before it was ready'
    child.on('message', (message: ToSupervisor | UpMessage) => {
      if (message.kind === 'failed') complaint = `${message.message} (${message.code})`
      else if (message.kind === 'ready') {
        isReady = true
        ready.resolve()
      }
    })
    this.#ended = new Promise<void>((resolve) => {
      child.once('exit', (code) => {
        this.#child = null
        ready.reject(new NodeStartError(`The node ${this.#config.node ?? ''} could not start: ${complaint}`, { node: this.#config.node }))
        resolve()
        if (isReady) this.#endedAfter(performance.now() - startedMs, code)
      })
    })
    child.send({ config: this.#config, place: this.#place, origin: this.#origin } satisfies FromSupervisor)
    const timer = setTimeout(() => child.kill('SIGKILL'), readyDeadlineMs)
    try {
      await ready.promise
    } finally {
      clearTimeout(timer)
    }
  }

  /** Tells it to drain and waits for its end; kills it when the time is over. */
  async stop(): Promise<void> {
    this.#stopped.abort()
    await this.#finish()
  }

  /** Another process in its place. */
  async replace(): Promise<void> {
    await this.#finish()
    try {
      await this.start()
    } catch (error) {
      void this.#restart(error instanceof Error ? error.message : String(error))
      throw error
    }
  }

  async #finish(): Promise<void> {
    const child = this.#child
    if (child === null) return
    this.#stopping = true
    child.kill('SIGTERM')
    const timer = setTimeout(() => {
      this.#logger.warn({ node: this.#config.node }, 'a node did not end in time and is killed')
      child.kill('SIGKILL')
    }, this.#config.drainGraceMs + stopExtraMs)
    await this.#ended
    clearTimeout(timer)
  }

  #endedAfter(ranMs: number, code: number | null): void {
    if (this.#stopping) return
    if (code === 0) {
      this.#logger.info({ node: this.#config.node }, 'a node was drained and has left')
      this.#left.resolve()
      return
    }
    if (ranMs > stableMs) this.#restarts = 0
    void this.#restart(code)
  }

  async #restart(reason: unknown): Promise<void> {
    const { signal } = this.#stopped
    for (let why = reason; !signal.aborted; ) {
      const pauseMs = Math.min(restartFirstMs * 2 ** this.#restarts, restartMaxMs)
      this.#restarts += 1
      this.#logger.error({ node: this.#config.node, why, pauseMs }, 'a node has ended by itself and is started again')
      await sleep(pauseMs, undefined, { signal }).catch(() => {
        // Stopped meanwhile: the loop ends.
      })
      if (signal.aborted) return
      try {
        await this.start()
        return
      } catch (error) {
        why = error instanceof Error ? error.message : String(error)
      }
    }
  }
}

/** Restarts all nodes, one at a time; asked again while it does so, it does it once more. */
class Rolling {
  readonly #nodes: readonly SupervisedNode[]
  readonly #logger: Logger
  #asked = false
  #busy = false

  constructor(nodes: readonly SupervisedNode[], logger: Logger) {
    this.#nodes = nodes
    this.#logger = logger
  }

  ask(): void {
    this.#asked = true
    if (!this.#busy) void this.#run()
  }

  async #run(): Promise<void> {
    this.#busy = true
    while (this.#asked) {
      this.#asked = false
      try {
        for (const node of this.#nodes) if (node.running) await node.replace()
        this.#logger.info({}, 'all nodes were restarted')
      } catch (error) {
        // The others go on as they are: what cannot start must not take all of them.
        this.#logger.error({ err: error }, 'the rolling restart was given up')
      }
    }
    this.#busy = false
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
