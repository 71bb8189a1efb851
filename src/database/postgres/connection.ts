import type pg from 'pg'
import type { OpenClient } from '#database/postgres/hosts.ts'
import { PreparedQuery } from '#database/postgres/prepared-query.ts'
import type { Done, RowShape } from '#database/postgres/prepared-query.ts'
import {
  isConnectionBroken,
  isUnanswered,
  readOnlyCode,
  translate,
} from '#database/postgres/translate-error.ts'
import type { Queryable, Statement } from '#database/database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'

/**
 * One connection at work for one caller. Statements run one after another, also when the caller
 * does not wait for each. `broken` once it must not be used again: it is then closed instead of
 * going back to the pool.
 */
export class Connection implements Queryable {
  readonly client: pg.Client
  readonly generation: number
  broken = false
  /** The server has said that it takes no writes. */
  demoted = false
  /** The server has not answered a statement in time, and may still be at it. */
  unanswered = false
  idleSinceMs = 0
  #busy = false
  readonly #queue: (() => void)[] = []
  /** Of the named statements that ran here; as many as names are given out. */
  readonly #shapes = new Map<string, RowShape>()

  constructor(open: OpenClient) {
    this.client = open.client
    this.generation = open.generation
    this.client.on('error', () => (this.broken = true))
    this.client.on('end', () => (this.broken = true))
  }

  // Not `async`, as everything on the way of a read: each turn of the queue of promises costs as
  // much as parsing a row.
  run<Row extends object>(
    statement: Statement<Row>,
    values: readonly unknown[] = [],
  ): Promise<Row[]> {
    const { name } = statement
    if (name === null) return this.#inTurn((done) => this.#unnamed(statement, values, rowsOf, done))
    return this.#inTurn(
      (done) =>
        void this.client.query(new PreparedQuery(name, statement, values, this.#shapes, done)),
    )
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return runTransaction(this, 0, work)
  }

  /** The command that the server says it has carried out. */
  command(text: string): Promise<string> {
    return this.#inTurn((done) => this.#unnamed({ text, name: null }, [], commandOf, done))
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
        else reject(this.#failed(error))
      })
    })
  }

  #unnamed(
    statement: Statement<object>,
    values: readonly unknown[],
    pick: (result: pg.QueryResult) => unknown,
    done: Done,
  ): void {
    const config: pg.QueryConfig & { query_timeout?: number } = {
      text: statement.text,
      values: values as unknown[],
    }
    if (statement.timeoutMs !== undefined) config.query_timeout = statement.timeoutMs
    this.client.query(config, (error: Error | null | undefined, result: pg.QueryResult) =>
      done(error, error === null || error === undefined ? pick(result) : undefined),
    )
  }

  #failed(error: Error): unknown {
    if (isConnectionBroken(error)) this.broken = true
    if ((error as { code?: unknown }).code === readOnlyCode) this.demoted = true
    if (isUnanswered(error)) this.unanswered = true
    return translate(error)
  }
}

function rowsOf(result: pg.QueryResult): object[] {
  return result.rows as object[]
}

function commandOf(result: pg.QueryResult): string {
  return result.command
}

/** A transaction on a connection, or a savepoint within one. */
class Transaction implements Queryable {
  readonly #connection: Connection
  readonly #depth: number
  #ended = false

  constructor(connection: Connection, depth: number) {
    this.#connection = connection
    this.#depth = depth
  }

  async run<Row extends object>(
    statement: Statement<Row>,
    values: readonly unknown[] = [],
  ): Promise<Row[]> {
    this.#check()
    return this.#connection.run(statement, values)
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    this.#check()
    return runTransaction(this.#connection, this.#depth + 1, work)
  }

  end(): void {
    this.#ended = true
  }

  #check(): void {
    if (this.#ended)
      throw new Error(
        'A statement was sent to a transaction that has ended: somebody did not wait for it.',
      )
  }
}

async function runTransaction<T>(
  connection: Connection,
  depth: number,
  work: (tx: Queryable) => Promise<T>,
): Promise<T> {
  const savepoint = `s${depth}`
  const transaction = new Transaction(connection, depth)
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
    if (!connection.broken) throw error
    throw new DatabaseUnavailableError(
      'The connection to the database broke during commit: it is unknown whether the write took effect. Look, or repeat it under the same Idempotency-Key.',
      { outcome: 'unknown' },
      { cause: error },
    )
  }
  // The server answers so, without an error, when a statement before had failed and its error was
  // swallowed.
  if (command === 'ROLLBACK')
    throw new Error(
      'A transaction was to be committed after a statement in it had failed: nothing was written.',
    )
}

/**
 * The first error is the one to tell. A connection that cannot roll back is closed, and then the
 * server does it.
 */
async function rollBack(connection: Connection, text: string): Promise<void> {
  if (connection.broken) return
  try {
    await connection.command(text)
  } catch {
    connection.broken = true
  }
}
