import { setTimeout as sleep } from 'node:timers/promises'
import { Connection } from '#database/postgres/connection.ts'
import { AbandonedBackends } from '#database/postgres/abandoned-backends.ts'
import type { Hosts } from '#database/postgres/hosts.ts'
import { DatabaseTimeoutError, DatabaseUnavailableError } from '#database/errors.ts'
import type { Logger } from '#lib/logger.ts'
import { FailureLog } from '#lib/failure-log.ts'
import { backoffMs } from '#lib/backoff.ts'

/**
 * Callers that wait for a connection; the next is refused at once, since the deadline of most would
 * pass anyway.
 */
const waitersMax = 5_000
/** A connection that nobody has used for so long is closed. */
const idleMaxMs = 60_000
const sweepIntervalMs = 15_000
/** Between attempts to connect while callers wait. */
const retryPauseMinMs = 50
const retryPauseMaxMs = 1_000
/**
 * Between looks whether the server is still at work for connections that were given up, and for one
 * look.
 */
const givenUpPauseMs = 500
const givenUpLookMs = 2_000
/**
 * Closing waits so long for those who still use a connection; then it takes the connections away.
 */
const closingMaxMs = 8_000
/** For a server that does not answer a goodbye. */
const goodbyeMaxMs = 2_000

type Waiter = {
  readonly resolve: (connection: Connection) => void
  readonly reject: (error: unknown) => void
  readonly deadlineMs: number
}

/**
 * Connections to the primary: at most `connectionsMax`, the last used first. A caller waits at most
 * `waitTimeoutMs`; while callers wait and there is room, connections are opened, again and again
 * during an outage, so that one that ends within the deadline is only a delay.
 */
export class ConnectionPool {
  readonly #hosts: Hosts
  readonly #connectionsMax: number
  readonly #waitTimeoutMs: number
  readonly #logger: Logger
  readonly #failureLog: FailureLog
  readonly #idle: Connection[] = []
  readonly #all = new Set<Connection>()
  #waiters: Waiter[] = []
  #open = 0
  #opening = 0
  #failures = 0
  #lastFailure: unknown = null
  #searching = false
  readonly #givenUp = new AbandonedBackends()
  #looking = false
  #closing: { readonly promise: Promise<void>; readonly resolve: () => void } | null = null
  readonly #sweeper: NodeJS.Timeout
  #alarm: NodeJS.Timeout | null = null

  constructor(options: {
    readonly hosts: Hosts
    readonly connectionsMax: number
    readonly waitTimeoutMs: number
    readonly logger: Logger
  }) {
    this.#hosts = options.hosts
    this.#connectionsMax = options.connectionsMax
    this.#waitTimeoutMs = options.waitTimeoutMs
    this.#logger = options.logger
    this.#failureLog = new FailureLog(options.logger, {
      failing: 'the database cannot be reached',
      recovered: 'the database is back',
    })
    this.#sweeper = setInterval(() => this.#sweep(), sweepIntervalMs)
    this.#sweeper.unref()
  }

  get usage(): { busy: number; idle: number; waiting: number } {
    return {
      busy: this.#open - this.#idle.length + this.#givenUp.count,
      idle: this.#idle.length,
      waiting: this.#waiters.length,
    }
  }

  /** A connection that is free now, without waiting; null if `acquire` is needed. */
  take(): Connection | null {
    for (;;) {
      const connection = this.#idle.pop()
      if (connection === undefined) return null
      if (!connection.broken && connection.generation === this.#hosts.generation) return connection
      this.#discard(connection)
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
      this.#waiters.push({ resolve, reject, deadlineMs: performance.now() + this.#waitTimeoutMs })
      this.#setAlarm()
      this.#openWhatIsNeeded()
    })
  }

  /** Gives back what `take` or `acquire` gave. */
  release(connection: Connection): void {
    if (connection.demoted) this.#hosts.demoted(connection.generation)
    if (
      connection.broken ||
      connection.generation !== this.#hosts.generation ||
      this.#closing !== null
    ) {
      if (connection.broken) this.#lookAround()
      if (connection.unanswered) this.#giveUp(connection)
      this.#discard(connection)
      return
    }
    this.#hand(connection)
  }

  async close(): Promise<void> {
    if (this.#closing === null) {
      let resolve = (): void => undefined
      const promise = new Promise<void>((done) => (resolve = done))
      this.#closing = { promise, resolve }
      clearInterval(this.#sweeper)
      for (const waiter of this.#waiters.splice(0))
        waiter.reject(new DatabaseUnavailableError('The node is shutting down.'))
      // Nobody waits any more, and a timer would hold the process.
      if (this.#alarm !== null) clearTimeout(this.#alarm)
      this.#alarm = null
      for (const connection of this.#idle.splice(0)) this.#discard(connection)
      this.#finishClosing()
    }
    const timer = setTimeout(() => this.#takeAway(), closingMaxMs)
    await this.#closing.promise
    clearTimeout(timer)
  }

  #takeAway(): void {
    this.#logger.warn(
      { connections: this.#all.size },
      'connections were still in use after the deadline for closing, and were cut',
    )
    for (const connection of this.#all) connection.client.connection.stream.destroy()
    this.#closing?.resolve()
  }

  #hand(connection: Connection): void {
    const waiter = this.#waiters.shift()
    if (waiter !== undefined) {
      waiter.resolve(connection)
      return
    }
    connection.idleSinceMs = performance.now()
    this.#idle.push(connection)
  }

  #discard(connection: Connection): void {
    const gone = (): void => {
      this.#all.delete(connection)
      this.#open -= 1
      this.#openWhatIsNeeded()
      this.#finishClosing()
    }
    const { client } = connection
    if (connection.broken) {
      client.connection.stream.destroy()
      gone()
    } else {
      // A polite goodbye may wait for an answer that never comes.
      const timer = setTimeout(() => client.connection.stream.destroy(), goodbyeMaxMs)
      void client
        .end()
        .then(gone, gone)
        .finally(() => clearTimeout(timer))
    }
  }

  #openWhatIsNeeded(): void {
    if (this.#closing !== null) return
    while (
      this.#opening < this.#waiters.length &&
      this.#open + this.#givenUp.count < this.#connectionsMax
    ) {
      this.#open += 1
      this.#opening += 1
      void this.#openOne()
    }
  }

  async #openOne(): Promise<void> {
    // After a failure the whole pool would ask at once: each attempt waits a little longer.
    if (this.#failures > 0)
      await sleep(
        backoffMs(this.#failures - 1, { firstMs: retryPauseMinMs, maxMs: retryPauseMaxMs }),
      )
    let connection: Connection | null = null
    try {
      if (this.#waiters.length > 0) connection = new Connection(await this.#hosts.connect())
      if (connection !== null) this.#connected()
    } catch (error) {
      this.#connectFailed(error)
    }
    this.#opening -= 1
    if (connection === null) {
      this.#open -= 1
      this.#openWhatIsNeeded()
      this.#finishClosing()
    } else {
      this.#all.add(connection)
      this.release(connection)
    }
  }

  #connected(): void {
    this.#failures = 0
    this.#failureLog.success()
  }

  #connectFailed(error: unknown): void {
    this.#failures += 1
    this.#lastFailure = error
    this.#failureLog.failure(error, { hosts: this.#hosts.names })
    if (error instanceof DatabaseUnavailableError && error.facts['permanent'] !== true) return
    // Trying again cannot help: a wrong password, a server that is too old, or a defect.
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error)
  }

  /**
   * One timer for all waiters: all have the same patience, so the first to come is the first to be
   * let down.
   */
  #setAlarm(): void {
    const [first] = this.#waiters
    if (first === undefined || this.#alarm !== null) return
    this.#alarm = setTimeout(
      () => {
        this.#alarm = null
        const now = performance.now()
        const expired = this.#waiters.findIndex((waiter) => waiter.deadlineMs > now)
        for (const waiter of this.#waiters.splice(
          0,
          expired === -1 ? this.#waiters.length : expired,
        ))
          waiter.reject(this.#lateness())
        this.#setAlarm()
      },
      Math.max(1, first.deadlineMs - performance.now()),
    )
  }

  #lateness(): Error {
    const givenUp = this.#givenUp.count
    if (this.#failures > 0 || (this.#open === this.#opening && givenUp === 0)) {
      const reason = this.#lastFailure instanceof Error ? this.#lastFailure.message : ''
      return new DatabaseUnavailableError(
        `The database was not reached within ${this.#waitTimeoutMs} ms. ${reason}`,
        {},
        { cause: this.#lastFailure },
      )
    }
    return new DatabaseTimeoutError(
      `No connection to the database became free within ${this.#waitTimeoutMs} ms; all ${this.#connectionsMax} are busy${givenUp === 0 ? '' : `, ${givenUp} of them with statements that the database did not answer in time`}.`,
      {
        connectionsMax: this.#connectionsMax,
      },
    )
  }

  /**
   * After a connection broke, with several hosts: look where the primary is now, so that idle ones
   * to the old are not used.
   */
  #lookAround(): void {
    if (!this.#hosts.hasAlternatives || this.#searching || this.#closing !== null) return
    this.#hosts.suspect()
    this.#searching = true
    this.#hosts
      .connect()
      .then(async ({ client }) => client.end())
      .catch((error: unknown) => this.#logger.debug({ err: error }, 'no primary was found'))
      .finally(() => (this.#searching = false))
  }

  #giveUp(connection: Connection): void {
    this.#givenUp.add(connection.client)
    if (this.#looking) return
    this.#looking = true
    void this.#lookAfterAbandonedBackends().finally(() => (this.#looking = false))
  }

  /** On a connection of its own, since all others may be given up. */
  async #lookAfterAbandonedBackends(): Promise<void> {
    while (this.#givenUp.count > 0 && this.#closing === null) {
      try {
        const { client } = await this.#hosts.connect()
        this.#connected()
        await this.#givenUp
          .check(client, givenUpLookMs)
          .finally(() => client.connection.stream.destroy())
        this.#openWhatIsNeeded()
      } catch (error) {
        this.#connectFailed(error)
      }
      if (this.#givenUp.count > 0) await sleep(givenUpPauseMs, undefined, { ref: false })
    }
  }

  #sweep(): void {
    const oldest = performance.now() - idleMaxMs
    const stale = this.#idle.filter(
      (connection) =>
        connection.broken ||
        connection.idleSinceMs < oldest ||
        connection.generation !== this.#hosts.generation,
    )
    for (const connection of stale) {
      this.#idle.splice(this.#idle.indexOf(connection), 1)
      this.#discard(connection)
    }
  }

  #finishClosing(): void {
    if (this.#open === 0) this.#closing?.resolve()
  }
}
