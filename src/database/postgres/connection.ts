import type pg from 'pg'
import type { Queryable, Statement } from '#database/database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { requestCancel } from '#database/postgres/cancel-request.ts'
import type { OpenClient } from '#database/postgres/hosts.ts'
import { canPrepare, PreparedQuery } from '#database/postgres/prepared-query.ts'
import type { Done } from '#database/postgres/prepared-query.ts'
import { PreparedStatements } from '#database/postgres/prepared-statements.ts'
import type { PreparedStatement } from '#database/postgres/prepared-statements.ts'
import {
  isConnectionBroken,
  isPlanChanged,
  isUnanswered,
  readOnlyCode,
  translate,
} from '#database/postgres/translate-error.ts'

/** A server that does not respond to the end of a connection is not waited for longer. */
const closeMaxMs = 2_000

/**
 * Why a connection must not be used again. `broken`: it ended, or leads nowhere; `demoted`: its
 * server takes no writes any more; `unanswered`: the server has not responded to a statement in
 * time, and may still be at it.
 */
export type ConnectionFailure = 'broken' | 'demoted' | 'unanswered'

/**
 * One connection at work for one caller. Statements run one after another, also when the caller
 * does not wait for each.
 */
export class Connection implements Queryable {
  /** See `OpenClient`. */
  readonly generation: number
  readonly #client: pg.Client
  readonly #pooled: boolean
  readonly #statements = new PreparedStatements()
  readonly #queue: (() => void)[] = []
  #failure: ConnectionFailure | null = null
  #cancelling: Promise<void> | null = null
  #busy = false

  constructor({ client, generation, pooled }: OpenClient) {
    this.generation = generation
    this.#client = client
    this.#pooled = pooled
    client.on('error', () => this.fail())
    client.on('end', () => this.fail())
  }

  get failure(): ConnectionFailure | null {
    return this.#failure
  }

  /** The process of the server, by which others can see what it does. Null behind a pooler. */
  get serverProcess(): number | null {
    return this.#pooled ? null : processOf(this.#client)
  }

  /** No statement may follow: the pool closes the connection when it is given back. */
  fail(reason: ConnectionFailure = 'broken'): void {
    if (this.#failure === null || this.#failure === 'broken') this.#failure = reason
  }

  // Not `async`, as everything on the way of a read: each turn of the queue of promises costs as
  // much as parsing a row.
  run<Row extends object>(
    statement: Statement<Row>,
    values: readonly unknown[] = [],
  ): Promise<Row[]> {
    const { prepare } = statement
    if (prepare === 'never' || !canPrepare)
      return this.#inTurn((done) => this.#runPlain(statement, values, done))
    return this.#inTurn((done) => this.#runPrepared(statement, values, done))
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    const callbacks: (() => void)[] = []
    const result = await runTransaction({ connection: this, depth: 0, callbacks }, work)
    for (const callback of callbacks) callback()
    return result
  }

  afterCommit(callback: () => void): void {
    callback()
  }

  /** Runs a command of the session and returns the one that the server says it has carried out. */
  command(text: string): Promise<string> {
    return this.#inTurn((done) =>
      this.#client.query({ text }, (error: Error | null | undefined, result: pg.QueryResult) =>
        done(error, error ? undefined : result.command),
      ),
    )
  }

  /** Resolves when the connection has ended; one that failed is cut. */
  async close(): Promise<void> {
    if (this.#failure !== null) {
      await this.#cancelling
      this.cut()
      return
    }
    const timer = setTimeout(() => this.cut(), closeMaxMs)
    try {
      await this.#client.end()
    } catch {
      // It has ended in any case.
    } finally {
      clearTimeout(timer)
    }
  }

  cut(): void {
    this.#client.connection.stream.destroy()
  }

  #inTurn<T>(send: (done: Done) => void): Promise<T> {
    if (!this.#busy) return this.#send(send)
    return new Promise<void>((resolve) => this.#queue.push(resolve)).then(async () =>
      this.#send(send),
    )
  }

  #send<T>(send: (done: Done) => void): Promise<T> {
    this.#busy = true
    return new Promise((resolve, reject) => {
      send((error, result) => {
        const next = this.#queue.shift()
        if (next === undefined) this.#busy = false
        else next()
        if (error === null || error === undefined) resolve(result as T)
        else reject(this.#noteFailure(error))
      })
    })
  }

  #runPlain(statement: Statement<object>, values: readonly unknown[], done: Done): void {
    const config: pg.QueryConfig & { query_timeout?: number } = {
      text: statement.text,
      values: values as unknown[],
    }
    if (statement.timeoutMs !== undefined) config.query_timeout = statement.timeoutMs
    this.#client.query(config, (error: Error | null | undefined, result: pg.QueryResult) =>
      done(error, error ? undefined : result.rows),
    )
  }

  #runPrepared(statement: Statement<object>, values: readonly unknown[], done: Done): void {
    const { text, prepare, timeoutMs } = statement
    const keep =
      !this.#pooled && (prepare === 'always' || this.#statements.isRepeated(statement.text))
    const prepared: PreparedStatement = keep
      ? this.#statements.of(text)
      : { name: '', text, shape: null }
    const isNew = prepared.shape === null
    const query = new PreparedQuery(prepared, values, this.#statements.takeClosing(), {
      timeoutMs,
      done: (error, result) => {
        // One that was new may or may not be prepared now, and one whose table changed is of no
        // use: both are closed, and made anew when they are asked for again.
        if (error && keep && (isNew || isPlanChanged(error))) this.#statements.forget(prepared)
        done(error, result)
      },
    })
    void this.#client.query(query)
  }

  #noteFailure(error: Error): unknown {
    if (isUnanswered(error)) {
      this.fail('unanswered')
      // The server has no deadline for a statement that came through a pooler.
      if (this.#pooled) this.#cancelling = requestCancel(this.#client)
    } else if ((error as { code?: unknown }).code === readOnlyCode) this.fail('demoted')
    else if (isConnectionBroken(error)) this.fail()
    return translate(error)
  }
}

/** pg's types do not have it. */
export function processOf(client: pg.Client): number | null {
  const { processID } = client as { processID?: number | null }
  return processID ?? null
}

/** How deep a transaction is nested, and whom its end concerns. */
type Level = {
  readonly connection: Connection
  readonly depth: number
  /** Called after the commit of the outermost one. */
  readonly callbacks: (() => void)[]
}

/** A transaction on a connection, or a savepoint within one. */
class Transaction implements Queryable {
  readonly #level: Level
  #ended = false

  constructor(level: Level) {
    this.#level = level
  }

  async run<Row extends object>(
    statement: Statement<Row>,
    values: readonly unknown[] = [],
  ): Promise<Row[]> {
    this.#refuseIfEnded()
    return this.#level.connection.run(statement, values)
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    this.#refuseIfEnded()
    const { connection, depth, callbacks } = this.#level
    const inner: (() => void)[] = []
    const level = { connection, depth: depth + 1, callbacks: inner }
    const result = await runTransaction(level, work)
    callbacks.push(...inner)
    return result
  }

  afterCommit(callback: () => void): void {
    this.#refuseIfEnded()
    this.#level.callbacks.push(callback)
  }

  end(): void {
    this.#ended = true
  }

  #refuseIfEnded(): void {
    if (this.#ended)
      throw new Error('A statement was sent to a transaction that has ended: await it inside.')
  }
}

async function runTransaction<T>(level: Level, work: (tx: Queryable) => Promise<T>): Promise<T> {
  const { connection, depth } = level
  const savepoint = `s${depth}`
  const transaction = new Transaction(level)
  await connection.command(depth === 0 ? 'begin' : `savepoint ${savepoint}`)
  try {
    const result = await work(transaction)
    transaction.end()
    if (depth === 0) await commit(connection)
    else await connection.command(`release savepoint ${savepoint}`)
    return result
  } catch (error) {
    transaction.end()
    await rollBack(connection, depth === 0 ? 'rollback' : `rollback to savepoint ${savepoint}`)
    throw error
  }
}

async function commit(connection: Connection): Promise<void> {
  let command: string
  try {
    command = await connection.command('commit')
  } catch (error) {
    if (connection.failure === null) throw error
    throw new DatabaseUnavailableError(
      'The connection to the database broke during commit: it is unknown whether the write ' +
        'took effect. Look, or repeat it under the same Idempotency-Key.',
      { outcome: 'unknown' },
      { cause: error },
    )
  }
  // The server says so, without an error, when a statement before had failed and its error was
  // swallowed.
  if (command === 'ROLLBACK')
    throw new Error(
      'A transaction was to be committed after a statement in it had failed: nothing was written.',
    )
}

/**
 * The caller gets the error that ended the transaction, not one of the rollback. A connection that
 * cannot roll back is closed, and then the server does it.
 */
async function rollBack(connection: Connection, text: string): Promise<void> {
  if (connection.failure !== null) return
  try {
    await connection.command(text)
  } catch {
    connection.fail()
  }
}
