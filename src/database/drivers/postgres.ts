import pg from 'pg'
import type { Database, Queryable, Statement } from '#database/database.ts'
import { ConstraintError, DatabaseTimeoutError, DatabaseUnavailableError, SerializationError } from '#database/errors.ts'
import type { Logger } from '#lib/logger.ts'

export type PostgresOptions = {
  readonly url: string
  readonly connectionsMax: number
  readonly statementTimeoutMs: number
  readonly connectTimeoutMs: number
  readonly logger: Logger
}

const timestamptzOid = 1184
const jsonOids = new Set([114, 3802])
/** "2026-11-20 17:30:00.12+00" as the server writes it when TimeZone is UTC. */
const serverTimestamp = /^(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?\+00$/

function parseTimestamp(text: string): string {
  const match = serverTimestamp.exec(text)
  if (match === null) return text
  return `${match[1]}T${match[2]}.${(match[3] ?? '').padEnd(3, '0').slice(0, 3)}Z`
}

const raw = (text: string): string => text

const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') => {
    if (oid === timestamptzOid) return parseTimestamp
    if (jsonOids.has(oid)) return raw
    return pg.types.getTypeParser(oid, format)
  }) as typeof pg.types.getTypeParser,
}

const constraintKinds: Record<string, ConstraintError['kind']> = {
  '23505': 'unique',
  '23503': 'foreignKey',
  '23514': 'check',
  '23502': 'notNull',
  '23P01': 'exclusion',
}

function translate(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const code = (error as { code?: unknown }).code
  if (typeof code === 'string') {
    const kind = constraintKinds[code]
    if (kind !== undefined) return new ConstraintError(kind, (error as pg.DatabaseError).constraint ?? '', error)
    if (code === '40001' || code === '40P01') {
      return new SerializationError('The database could not order two transactions; run it again.', {}, { cause: error })
    }
    if (code === '57014') {
      return new DatabaseTimeoutError('A statement took longer than its deadline and was cancelled.', {}, { cause: error })
    }
    const lost = /^(08|57P|53)/.test(code) || /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST|ENET|ENOENT)/.test(code)
    if (lost) return new DatabaseUnavailableError('The database cannot be reached; try again.', {}, { cause: error })
    return error
  }
  if (/timeout exceeded when trying to connect|Query read timeout/.test(error.message)) {
    return new DatabaseTimeoutError('The database did not answer within the deadline.', {}, { cause: error })
  }
  if (/Connection terminated|connection error|not queryable/i.test(error.message)) {
    return new DatabaseUnavailableError('The connection to the database broke; try again.', {}, { cause: error })
  }
  return error
}

class Connection implements Queryable {
  readonly #client: pg.ClientBase
  #depth: number

  constructor(client: pg.ClientBase, depth: number) {
    this.#client = client
    this.#depth = depth
  }

  async run<Row extends object>(statement: Statement<Row>, values: readonly unknown[] = []): Promise<Row[]> {
    return runOn(this.#client, statement, values)
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    const savepoint = `s${this.#depth}`
    await this.#plain(this.#depth === 0 ? 'begin' : `savepoint ${savepoint}`)
    try {
      const result = await work(new Connection(this.#client, this.#depth + 1))
      await this.#plain(this.#depth === 0 ? 'commit' : `release savepoint ${savepoint}`)
      return result
    } catch (error) {
      await this.#plain(this.#depth === 0 ? 'rollback' : `rollback to savepoint ${savepoint}`).catch(() => {
        // The connection is gone: the server rolls back by itself, and the first error is the one to tell.
      })
      throw error
    }
  }

  async #plain(text: string): Promise<void> {
    try {
      await this.#client.query(text)
    } catch (error) {
      throw translate(error)
    }
  }
}

async function runOn<Row extends object>(
  client: pg.ClientBase | pg.Pool,
  statement: Statement<Row>,
  values: readonly unknown[],
): Promise<Row[]> {
  try {
    const result = await client.query<Row>({
      text: statement.text,
      values: values as unknown[],
      ...(statement.name === null ? {} : { name: statement.name }),
      ...(statement.timeoutMs === undefined ? {} : { query_timeout: statement.timeoutMs }),
    })
    return result.rows
  } catch (error) {
    throw translate(error)
  }
}

/** Any PostgreSQL ≥ 15, through a bounded pool in which every wait has a deadline. */
export class PostgresDatabase implements Database {
  readonly #pool: pg.Pool
  #closed: Promise<void> | null = null

  constructor(options: PostgresOptions) {
    this.#pool = new pg.Pool({
      connectionString: options.url,
      max: options.connectionsMax,
      connectionTimeoutMillis: options.connectTimeoutMs,
      statement_timeout: options.statementTimeoutMs,
      query_timeout: options.statementTimeoutMs + 1_000,
      keepAlive: true,
      types,
      options: '-c TimeZone=UTC',
    })
    this.#pool.on('error', (error) => options.logger.warn({ err: error }, 'an idle database connection broke'))
  }

  async run<Row extends object>(statement: Statement<Row>, values: readonly unknown[] = []): Promise<Row[]> {
    return runOn(this.#pool, statement, values)
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return this.session((session) => session.transaction(work))
  }

  async session<T>(work: (session: Queryable) => Promise<T>): Promise<T> {
    let client: pg.PoolClient
    try {
      client = await this.#pool.connect()
    } catch (error) {
      throw translate(error)
    }
    let broken = false
    try {
      return await work(new Connection(client, 0))
    } catch (error) {
      broken = error instanceof DatabaseUnavailableError || error instanceof DatabaseTimeoutError
      throw error
    } finally {
      client.release(broken)
    }
  }

  usage(): { busy: number; idle: number; waiting: number } {
    const { totalCount, idleCount, waitingCount } = this.#pool
    return { busy: totalCount - idleCount, idle: idleCount, waiting: waitingCount }
  }

  async close(): Promise<void> {
    this.#closed ??= this.#pool.end()
    await this.#closed
  }
}
