import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { NodeStartError } from '#node/errors.ts'
import type { Config } from '#config/config.ts'
import type { ConnectionDispatcher } from '#supervisor/connection-dispatcher.ts'
import { newId } from '#lib/id.ts'
import type { Logger } from '#lib/logger.ts'
import { aliveEveryMs } from '#node/shared-port.ts'
import type { UpMessage } from '#node/shared-port.ts'
import type { FromSupervisor, ToSupervisor } from '#supervisor/supervised-node.ts'
import { backoffMs } from '#lib/backoff.ts'

/**
 * A node that ended by itself is started again after this long, doubled with each time up to the
 * maximum.
 */
const restartFirstMs = 500
const restartMaxMs = 30_000
/** One that ran for so long begins anew with the first pause. */
const stableMs = 60_000
/**
 * Beyond the grace for load balancers and the requests in flight; then a node that will not end is
 * killed.
 */
const stopExtraMs = 30_000
/**
 * A node that was silent in so many looks in a row hangs and is killed. Looks are counted, not
 * time: after a pause of the whole machine it is asked again first.
 */
const silentLooksMax = 60

const program = fileURLToPath(new URL('supervised-node.ts', import.meta.url))

/**
 * Modes: down, `starting` until it says that it is ready, `running`, `stopping` when asked to,
 * `left` for ever once it ended in order by itself.
 */
export class NodeProcess {
  readonly #dispatcher: ConnectionDispatcher
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

  constructor(dispatcher: ConnectionDispatcher, origin: string, config: Config, logger: Logger) {
    this.#dispatcher = dispatcher
    this.#origin = origin
    this.#config = config
    this.#logger = logger
  }

  /** Resolves when it was drained from outside (`stoa drain`). */
  get left(): Promise<void> {
    return this.#left.promise
  }

  get running(): boolean {
    return this.#child !== null
  }

  /** Resolves when it serves. Errors: `NodeStartError`. */
  async start(): Promise<void> {
    if (this.#stopped.signal.aborted) return
    // The limits of memory that this process was started with are those of its nodes.
    const child = fork(program, { execArgv: process.execArgv })
    this.#dispatcher.serveThrough(child)
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
    const watch = this.#watch(child)
    this.#ended = new Promise<void>((resolve) => {
      const end = (code: number | null): void => {
        clearInterval(watch)
        this.#child = null
        ready.reject(
          new NodeStartError(`The node ${this.#config.node ?? ''} could not start: ${complaint}`, {
            node: this.#config.node,
          }),
        )
        resolve()
        if (isReady) this.#endedAfter(performance.now() - startedMs, code)
      }
      child.once('exit', end)
      child.on('error', (error) => {
        this.#logger.debug(
          { err: error },
          'a message to a node was not sent; its end says the rest',
        )
        // One that never was a process does not end.
        if (child.pid !== undefined || this.#child !== child) return
        complaint = `there is no process for it: ${error.message}`
        end(null)
      })
    })
    child.send({
      config: this.#config,
      place: this.#place,
      origin: this.#origin,
    } satisfies FromSupervisor)
    await ready.promise
  }

  /** Kills the process when it sends nothing any more, however long it takes to start. */
  #watch(child: ChildProcess): NodeJS.Timeout {
    let silent = 0
    child.on('message', () => (silent = 0))
    return setInterval(() => {
      silent += 1
      if (silent !== silentLooksMax) return
      this.#logger.error(
        { node: this.#config.node, afterMs: silentLooksMax * aliveEveryMs },
        'a node hangs and is killed',
      )
      child.kill('SIGKILL')
    }, aliveEveryMs)
  }

  /** Asks it to drain and waits for its end; kills it when the time is over. */
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
    for (let why = reason; !signal.aborted;) {
      const pauseMs = backoffMs(this.#restarts, { firstMs: restartFirstMs, maxMs: restartMaxMs })
      this.#restarts += 1
      this.#logger.error(
        { node: this.#config.node, why, pauseMs },
        'a node has ended by itself and is started again',
      )
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
