import type { Database, Queryable, Statement } from '#database/database.ts'
import { Hosts } from '#database/postgres/hosts.ts'
import { ConnectionPool } from '#database/postgres/connection-pool.ts'
import { isPlanChanged } from '#database/postgres/translate-error.ts'
import { valueTypes } from '#database/postgres/values.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import type { Logger } from '#lib/logger.ts'

export type PostgresOptions = {
  /**
   * `postgres://user:password@host:5432/name?sslmode=…`; several hosts after commas, of which the
   * writable one is used.
   */
  readonly url: string
  /** `any`: for reading from standbys, which take no writes. Else the server that takes writes. */
  readonly wanted?: 'primary' | 'any'
  readonly connectionsMax: number
  /** A statement that takes longer is cancelled by the server. */
  readonly statementTimeoutMs: number
  /**
   * A caller waits at most so long for a connection, through outages and failovers too; then it
   * gets its error.
   */
  readonly connectTimeoutMs: number
  /** A transaction that does nothing for so long is ended by the server, and its locks with it. */
  readonly idleInTransactionTimeoutMs?: number
  /** What `pg_stat_activity` shows, such as `stoa node-1`. */
  readonly applicationName?: string
  readonly logger: Logger
}

/** The client gives up on a server that has not even cancelled the statement. */
const answerGraceMs = 1_000
const idleInTransactionDefaultMs = 60_000
/**
 * Of the wait for a connection, one host may take so much: a host that does not answer must not use
 * it all up.
 */
const hostTimeoutMaxMs = 3_000
const keepAliveDelayMs = 10_000
/** Connections that ordinary work can never use up. */
const controlConnectionsMax = 2
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

/**
 * Any PostgreSQL ≥ 15, one host or several, through a bounded pool in which every wait has a
 * deadline.
 */
export class PostgresDatabase implements Database {
  readonly control: Queryable
  readonly #work: PooledQueryable
  readonly #pools: readonly ConnectionPool[]

  /**
   * Connects to nothing yet. Throws `UnsupportedDatabaseError` for a URL that names no PostgreSQL.
   */
  constructor(options: PostgresOptions) {
    const hosts = new Hosts({
      url: options.url,
      wanted: options.wanted ?? 'primary',
      connectTimeoutMs: Math.min(hostTimeoutMaxMs, options.connectTimeoutMs),
      client: {
        types: valueTypes,
        application_name: options.applicationName ?? 'stoa',
        keepAlive: true,
        keepAliveInitialDelayMillis: keepAliveDelayMs,
        statement_timeout: options.statementTimeoutMs,
        query_timeout: options.statementTimeoutMs + answerGraceMs,
        idle_in_transaction_session_timeout:
          options.idleInTransactionTimeoutMs ?? idleInTransactionDefaultMs,
        options: serverOptions.map((option) => `-c ${option}`).join(' '),
      },
    })
    const { connectTimeoutMs: waitTimeoutMs, logger } = options
    const work = new ConnectionPool({
      hosts,
      connectionsMax: options.connectionsMax,
      waitTimeoutMs,
      logger,
    })
    const control = new ConnectionPool({
      hosts,
      connectionsMax: controlConnectionsMax,
      waitTimeoutMs,
      logger,
    })
    this.#work = new PooledQueryable(work)
    this.control = new PooledQueryable(control)
    this.#pools = [work, control]
  }

  run<Row extends object>(statement: Statement<Row>, values?: readonly unknown[]): Promise<Row[]> {
    return this.#work.run(statement, values)
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return this.#work.transaction(work)
  }

  async session<T>(work: (session: Queryable) => Promise<T>): Promise<T> {
    return this.#work.session(work)
  }

  usage(): { busy: number; idle: number; waiting: number } {
    return this.#pools[0]!.usage
  }

  async close(): Promise<void> {
    await Promise.all(this.#pools.map(async (pool) => pool.close()))
  }
}

class PooledQueryable implements Queryable {
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
    } finally {
      this.#pool.release(connection)
    }
    // The plan was refused before anything ran, so running it again is safe. Unnamed, so that it is
    // planned anew.
    return this.session(async (session) => session.run({ ...statement, name: null }, values))
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return this.session(async (session) => session.transaction(work))
  }

  async session<T>(work: (session: Queryable) => Promise<T>): Promise<T> {
    const connection = this.#pool.take() ?? (await this.#pool.acquire())
    try {
      return await work(connection)
    } catch (error) {
      // Also when the caller itself found out that the connection leads nowhere, or to the wrong
      // server.
      if (error instanceof DatabaseUnavailableError) connection.broken = true
      throw error
    } finally {
      this.#pool.release(connection)
    }
  }
}
