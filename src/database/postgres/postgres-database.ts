import type { Database, Queryable, Sessions, Statement } from '#database/database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import type { Connection } from '#database/postgres/connection.ts'
import { ConnectionPool } from '#database/postgres/connection-pool.ts'
import { Hosts, setDirectUrl } from '#database/postgres/hosts.ts'
import type { ClientOptions } from '#database/postgres/hosts.ts'
import { isPlanChanged } from '#database/postgres/translate-error.ts'
import { valueTypes } from '#database/postgres/values.ts'
import { FailureLog } from '#lib/failure-log.ts'
import type { Logger } from '#lib/logger.ts'

export type LaneOptions = {
  readonly connectionsMax: number
  /** A statement that takes longer is cancelled by the server. */
  readonly statementTimeoutMs: number
  /**
   * The longest wait for a connection, through outages and failovers too; then the caller gets an
   * error.
   */
  readonly connectTimeoutMs: number
}

/** The first three are those of the lane for ordinary work. */
export type PostgresOptions = LaneOptions & {
  /**
   * `postgres://user:password@host:5432/name?sslmode=…`; several hosts after commas, of which the
   * writable one is used. It may lead to a pooler such as PgBouncer in transaction mode.
   */
  readonly url: string
  /** The server itself, where `url` leads to a pooler. */
  readonly directUrl?: string | null
  /** `standby`: for reading from servers that take no writes. Default `primary`. */
  readonly wanted?: 'primary' | 'standby'
  /** For health checks and calls between nodes. Default: one connection, else as for work. */
  readonly control?: LaneOptions
  /** For polls and heartbeats. Default: the connections for work. */
  readonly feed?: LaneOptions
  /** A transaction that does nothing for so long is ended by the server, and its locks with it. */
  readonly idleInTransactionTimeoutMs?: number
  /**
   * What `pg_stat_activity` shows, such as `stoa node-1`; other lanes than that for work add their
   * name.
   */
  readonly applicationName?: string
  readonly logger: Logger
}

/** The client abandons a server that has not even cancelled the statement. */
const responseGraceMs = 1_000
const idleInTransactionDefaultMs = 60_000
/**
 * The part of the wait for a connection that one host may take: a host that does not respond must
 * not use it all up.
 */
const hostTimeoutMaxMs = 3_000
const keepAliveDelayMs = 10_000
/** Sessions on the server itself, where work goes through a pooler. */
const directSessionsMax = 2
/**
 * The port promises this isolation, these formats, and quiet; a role or database may have other
 * defaults. No just-in-time compilation: while tables have no statistics, costs are guessed so high
 * that PostgreSQL compiles, half a second for what then runs in five milliseconds. A connection
 * that is idle is kept for the next caller, whatever the server allows others.
 */
const serverOptions = [
  'TimeZone=UTC',
  'jit=off',
  'DateStyle=ISO',
  'default_transaction_isolation=read\\ committed',
  'client_min_messages=warning',
  'idle_session_timeout=0',
]

const namePrimary = 'Name the servers behind it in this setting.'

/**
 * Any PostgreSQL ≥ 15, one host or several, through bounded lanes of connections in which every
 * wait has a deadline. The lanes share what is known about where the primary is, and no lane can
 * use up the connections of another.
 */
export class PostgresDatabase implements Database {
  readonly control: Queryable
  readonly feed: Sessions
  readonly #work: Lane
  readonly #sessions: Lane
  readonly #pools: readonly ConnectionPool[]

  /**
   * Connects to nothing yet. Throws `UnsupportedDatabaseError` for a URL that names no PostgreSQL.
   */
  constructor(options: PostgresOptions) {
    const { directUrl = null } = options
    const failureLog = new FailureLog(options.logger, messagesOf(options))
    const near = hostsOf(options, options.url, directUrl === null ? setDirectUrl : null)
    const direct = directUrl === null ? near : hostsOf(options, directUrl, namePrimary)
    const lane = (hosts: Hosts, lane: LaneOptions, suffix = ''): ConnectionPool =>
      new ConnectionPool({
        hosts,
        client: clientOptions(options, lane.statementTimeoutMs, suffix),
        connectionsMax: lane.connectionsMax,
        waitTimeoutMs: lane.connectTimeoutMs,
        failureLog,
        logger: options.logger,
      })
    const work = lane(near, options)
    const control = lane(near, options.control ?? { ...options, connectionsMax: 1 }, ' control')
    const feed = options.feed === undefined ? null : lane(direct, options.feed, ' feed')
    const sessions =
      direct === near
        ? work
        : lane(direct, { ...options, connectionsMax: directSessionsMax }, ' session')
    this.#work = new Lane(work)
    this.control = new Lane(control)
    this.feed = new Lane(feed ?? sessions)
    this.#sessions = new Lane(sessions)
    this.#pools = [...new Set([work, control, sessions, ...(feed === null ? [] : [feed])])]
  }

  // Not `async`; see `Connection.run`.
  run<Row extends object>(statement: Statement<Row>, values?: readonly unknown[]): Promise<Row[]> {
    return this.#work.run(statement, values)
  }

  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return this.#work.transaction(work)
  }

  afterCommit(callback: () => void): void {
    callback()
  }

  session<T>(work: (session: Queryable) => Promise<T>): Promise<T> {
    return this.#sessions.session(work)
  }

  checkout<T>(work: (connection: Queryable) => Promise<T>): Promise<T> {
    return this.#work.session(work)
  }

  usage(): { busy: number; idle: number; waiting: number } {
    return this.#pools[0]!.usage
  }

  async close(): Promise<void> {
    await Promise.all(this.#pools.map(async (pool) => pool.close()))
  }
}

/** Connections of one kind. */
class Lane implements Sessions {
  readonly #pool: ConnectionPool

  constructor(pool: ConnectionPool) {
    this.#pool = pool
  }

  async run<Row extends object>(
    statement: Statement<Row>,
    values?: readonly unknown[],
  ): Promise<Row[]> {
    const connection = this.#pool.take() ?? (await this.#pool.acquire())
    try {
      return await connection.run(statement, values)
    } catch (error) {
      if (!(error instanceof Error && isPlanChanged(error.cause))) throw error
      // The plan was refused before anything ran. The connection has forgotten it.
      return await connection.run(statement, values)
    } finally {
      this.#pool.release(connection)
    }
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return this.#use((connection) => connection.transaction(work))
  }

  afterCommit(callback: () => void): void {
    callback()
  }

  async session<T>(work: (session: Queryable) => Promise<T>): Promise<T> {
    return this.#use(work)
  }

  async #use<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = this.#pool.take() ?? (await this.#pool.acquire())
    try {
      return await work(connection)
    } catch (error) {
      // The caller too may have found out that the connection leads to the wrong server.
      if (error instanceof DatabaseUnavailableError) connection.fail()
      throw error
    } finally {
      this.#pool.release(connection)
    }
  }
}

function messagesOf({ wanted }: PostgresOptions): { failing: string; recovered: string } {
  return wanted === 'standby'
    ? {
        failing: 'no standby can be read; the primary is read instead',
        recovered: 'a standby can be read again',
      }
    : { failing: 'the database cannot be reached', recovered: 'the database is back' }
}

function hostsOf(options: PostgresOptions, url: string, poolerRefusal: string | null): Hosts {
  const { wanted = 'primary', connectTimeoutMs } = options
  return new Hosts({
    url,
    wanted,
    connectTimeoutMs: Math.min(hostTimeoutMaxMs, connectTimeoutMs),
    poolerRefusal: wanted === 'standby' ? namePrimary : poolerRefusal,
    logger: options.logger,
  })
}

function clientOptions(
  options: PostgresOptions,
  statementTimeoutMs: number,
  suffix: string,
): ClientOptions {
  return {
    client: {
      types: valueTypes,
      application_name: `${options.applicationName ?? 'stoa'}${suffix}`,
      keepAlive: true,
      keepAliveInitialDelayMillis: keepAliveDelayMs,
      query_timeout: statementTimeoutMs + responseGraceMs,
    },
    session: {
      statementTimeoutMs,
      idleInTransactionTimeoutMs: options.idleInTransactionTimeoutMs ?? idleInTransactionDefaultMs,
      options: serverOptions.map((option) => `-c ${option}`).join(' '),
    },
  }
}
