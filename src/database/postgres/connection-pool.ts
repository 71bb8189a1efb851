import { setTimeout as sleep } from 'node:timers/promises'
import { DatabaseTimeoutError, DatabaseUnavailableError } from '#database/errors.ts'
import { AbandonedBackends } from '#database/postgres/abandoned-backends.ts'
import { Connection } from '#database/postgres/connection.ts'
import type { ClientOptions, Hosts } from '#database/postgres/hosts.ts'
import { backoffMs } from '#lib/backoff.ts'
import type { FailureLog } from '#lib/failure-log.ts'
import type { Logger } from '#lib/logger.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/**
 * Callers that wait for a connection; the next is refused at once, since the deadline of most would
 * pass anyway.
 */
const waitersMax = 5_000
/** A connection that has been idle for longer is closed. */
const idleMaxMs = 60_000
const sweepIntervalMs = 15_000
/** Pauses between attempts to connect while callers wait. */
const retryPause = { firstMs: 50, maxMs: 1_000 }
/** Interval and timeout of the check whether abandoned backends have finished. */
const abandonedPauseMs = 500
const abandonedCheckMs = 2_000
/** Closing waits this long for connections in use; then it cuts them. */
const closingMaxMs = 8_000

export type PoolOptions = {
  readonly hosts: Hosts
  readonly client: ClientOptions
  readonly connectionsMax: number
  /** All waiters share it, so that they expire in the order in which they came. */
  readonly waitTimeoutMs: number
  readonly failureLog: FailureLog
  readonly logger: Logger
}

type Waiter = {
  readonly resolve: (connection: Connection) => void
  readonly reject: (error: unknown) => void
  readonly deadlineMs: number
}

type IdleConnection = { readonly connection: Connection; readonly sinceMs: number }

/**
 * Connections to the primary: at most `connectionsMax`, the last used first. A caller waits at most
 * `waitTimeoutMs`; while callers wait and there is room, connections are opened, again and again
 * during an outage, so that one that ends within the deadline is only a delay.
 */
export class ConnectionPool {
  readonly #options: PoolOptions
  readonly #idle: IdleConnection[] = []
  readonly #all = new Set<Connection>()
  readonly #abandoned = new AbandonedBackends()
  readonly #sweeper: NodeJS.Timeout
  #waiters: Waiter[] = []
  /** Connections that are there, and those that are being opened or closed. */
  #places = 0
  #opening = 0
  #failures = 0
  #lastFailure: unknown = null
  #searching = false
  #checking = false
  #closing: PromiseWithResolvers<void> | null = null
  #alarm: NodeJS.Timeout | null = null

  constructor(options: PoolOptions) {
    this.#options = options
    this.#sweeper = setInterval(() => this.#sweep(), sweepIntervalMs)
    this.#sweeper.unref()
  }

  get usage(): { busy: number; idle: number; waiting: number } {
    return {
      busy: this.#places - this.#idle.length + this.#abandoned.count,
      idle: this.#idle.length,
      waiting: this.#waiters.length,
    }
  }

  /** A connection that is free now, without waiting; null if `acquire` is needed. */
  take(): Connection | null {
    for (;;) {
      const idle = this.#idle.pop()
      if (idle === undefined) return null
      if (this.#isUsable(idle.connection)) return idle.connection
      this.#discard(idle.connection)
    }
  }

  /**
   * Errors: `DatabaseTimeoutError` (all are busy), `DatabaseUnavailableError` (none could be
   * opened), `UnsupportedDatabaseError`.
   */
  async acquire(): Promise<Connection> {
    if (this.#closing !== null) throw new DatabaseUnavailableError('The node is shutting down.')
    const free = this.take()
    if (free !== null) return free
    if (this.#waiters.length >= waitersMax)
      throw new DatabaseTimeoutError(
        `More than ${waitersMax} callers wait for the database; try again later.`,
      )
    return new Promise((resolve, reject) => {
      const deadlineMs = performance.now() + this.#options.waitTimeoutMs
      this.#waiters.push({ resolve, reject, deadlineMs })
      this.#setAlarm()
      this.#openWhatIsNeeded()
    })
  }

  /** Gives back what `take` or `acquire` gave. */
  release(connection: Connection): void {
    const { failure } = connection
    if (failure === 'demoted') this.#options.hosts.demoted(connection.generation)
    if (failure === 'unanswered') this.#abandon(connection)
    if (failure !== null) this.#lookForPrimary()
    if (!this.#isUsable(connection) || this.#closing !== null) this.#discard(connection)
    else this.#handOver(connection)
  }

  async close(): Promise<void> {
    if (this.#closing === null) {
      this.#closing = Promise.withResolvers<void>()
      clearInterval(this.#sweeper)
      // A timer would hold the process.
      if (this.#alarm !== null) clearTimeout(this.#alarm)
      this.#alarm = null
      for (const waiter of this.#waiters.splice(0))
        waiter.reject(new DatabaseUnavailableError('The node is shutting down.'))
      for (const { connection } of this.#idle.splice(0)) this.#discard(connection)
      this.#finishClosing()
    }
    if ((await withTimeout(this.#closing.promise, closingMaxMs)) === timedOut) this.#cutAll()
  }

  #cutAll(): void {
    this.#options.logger.warn(
      { connections: this.#all.size },
      'connections were still in use after the deadline for closing, and were cut',
    )
    for (const connection of this.#all) connection.cut()
    this.#closing?.resolve()
  }

  #isUsable(connection: Connection): boolean {
    return connection.failure === null && connection.generation === this.#options.hosts.generation
  }

  #handOver(connection: Connection): void {
    const waiter = this.#waiters.shift()
    if (waiter === undefined) this.#idle.push({ connection, sinceMs: performance.now() })
    else waiter.resolve(connection)
  }

  #discard(connection: Connection): void {
    void connection.close().finally(() => {
      this.#all.delete(connection)
      this.#freePlace()
    })
  }

  #freePlace(): void {
    this.#places -= 1
    this.#openWhatIsNeeded()
    this.#finishClosing()
  }

  #openWhatIsNeeded(): void {
    if (this.#closing !== null) return
    while (
      this.#opening < this.#waiters.length &&
      this.#places + this.#abandoned.count < this.#options.connectionsMax
    ) {
      this.#places += 1
      this.#opening += 1
      void this.#openOne()
    }
  }

  async #openOne(): Promise<void> {
    // After a failure the whole pool would connect at once: each attempt waits a little longer.
    if (this.#failures > 0) await sleep(backoffMs(this.#failures - 1, retryPause))
    let connection: Connection | null = null
    try {
      if (this.#waiters.length > 0) {
        connection = new Connection(await this.#options.hosts.connect(this.#options.client))
        this.#connected()
      }
    } catch (error) {
      this.#connectFailed(error)
    }
    this.#opening -= 1
    if (connection === null) this.#freePlace()
    else {
      this.#all.add(connection)
      this.release(connection)
    }
  }

  #connected(): void {
    this.#failures = 0
    this.#options.failureLog.success()
  }

  #connectFailed(error: unknown): void {
    this.#failures += 1
    this.#lastFailure = error
    this.#options.failureLog.failure(error, { hosts: this.#options.hosts.names })
    if (error instanceof DatabaseUnavailableError && !error.permanent) return
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error)
  }

  /** Sets one timer for all waiters: it is due when the first of them expires. */
  #setAlarm(): void {
    const [first] = this.#waiters
    if (first === undefined || this.#alarm !== null) return
    this.#alarm = setTimeout(
      () => {
        this.#alarm = null
        this.#rejectExpired()
        this.#setAlarm()
      },
      Math.max(1, first.deadlineMs - performance.now()),
    )
  }

  #rejectExpired(): void {
    const now = performance.now()
    const remaining = this.#waiters.findIndex((waiter) => waiter.deadlineMs > now)
    const expired = this.#waiters.splice(0, remaining === -1 ? this.#waiters.length : remaining)
    for (const waiter of expired) waiter.reject(this.#waitError())
  }

  #waitError(): Error {
    const { connectionsMax, waitTimeoutMs } = this.#options
    const abandoned = this.#abandoned.count
    if (this.#failures > 0 || (this.#places === this.#opening && abandoned === 0)) {
      const reason = this.#lastFailure instanceof Error ? ` ${this.#lastFailure.message}` : ''
      return new DatabaseUnavailableError(
        `The database was not reached within ${waitTimeoutMs} ms.${reason}`,
        {},
        { cause: this.#lastFailure },
      )
    }
    const among =
      abandoned === 0
        ? ''
        : `, ${abandoned} of them with statements that the database did not finish in time`
    return new DatabaseTimeoutError(
      `No connection to the database became free within ${waitTimeoutMs} ms; all ` +
        `${connectionsMax} are busy${among}.`,
      { connectionsMax },
    )
  }

  /**
   * After a connection broke, with several hosts: finds out where the primary is now, so that idle
   * connections to the old one are not used.
   */
  #lookForPrimary(): void {
    const { hosts, client, logger } = this.#options
    if (!hosts.hasAlternatives || this.#searching || this.#closing !== null) return
    hosts.suspect()
    this.#searching = true
    hosts
      .connect(client)
      .then(async (opened) => opened.client.end())
      .catch((error: unknown) => logger.debug({ err: error }, 'no primary was found'))
      .finally(() => (this.#searching = false))
  }

  #abandon(connection: Connection): void {
    const { serverProcess } = connection
    if (serverProcess === null) return
    this.#abandoned.add(serverProcess)
    if (this.#checking) return
    this.#checking = true
    void this.#checkAbandoned().finally(() => (this.#checking = false))
  }

  /** Uses a connection of its own, since all others may be abandoned. */
  async #checkAbandoned(): Promise<void> {
    const { hosts, client } = this.#options
    while (this.#abandoned.count > 0 && this.#closing === null) {
      try {
        const opened = await hosts.connect(client)
        this.#connected()
        await this.#abandoned
          .check(opened.client, abandonedCheckMs)
          .finally(() => opened.client.connection.stream.destroy())
        this.#openWhatIsNeeded()
      } catch (error) {
        this.#connectFailed(error)
      }
      if (this.#abandoned.count > 0) await sleep(abandonedPauseMs, undefined, { ref: false })
    }
  }

  #sweep(): void {
    const oldestMs = performance.now() - idleMaxMs
    const stale = this.#idle.filter(
      ({ connection, sinceMs }) => sinceMs < oldestMs || !this.#isUsable(connection),
    )
    for (const idle of stale) {
      this.#idle.splice(this.#idle.indexOf(idle), 1)
      this.#discard(idle.connection)
    }
  }

  #finishClosing(): void {
    if (this.#places === 0) this.#closing?.resolve()
  }
}
