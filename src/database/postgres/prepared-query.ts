import pg from 'pg'
import type { PreparedStatement, RowShape } from '#database/postgres/prepared-statements.ts'
import { valueTypes } from '#database/postgres/values.ts'

type Field = { readonly name: string; readonly dataTypeID: number }

/** `result`: the rows; of no meaning beside an error. */
export type Done = (error: Error | null | undefined, result: unknown) => void

const { prepareValue } = (
  pg as unknown as { readonly utils: { readonly prepareValue?: (value: unknown) => unknown } }
).utils

/**
 * True if this version of pg has all that `PreparedQuery` needs. If not, statements run as pg runs
 * them, which takes half as much processor time again.
 */
export const canPrepare: boolean =
  typeof prepareValue === 'function' &&
  ['parse', 'bind', 'describe', 'execute', 'close', 'sync'].every(
    (name) =>
      typeof (pg.Connection.prototype as unknown as Readonly<Record<string, unknown>>)[name] ===
      'function',
  )

const noRows: RowShape = { names: [], parsers: [] }

/**
 * A statement on its way through `pg.Client`, in place of pg's own `Query`: the server is asked how
 * the rows look only the first time, and nothing is made per query but the rows. pg's client takes
 * any object with these methods, as pg-cursor is one.
 */
export class PreparedQuery {
  /** Read and replaced by pg, which puts its deadline around it. */
  callback: Done
  readonly query_timeout: number | undefined
  readonly #statement: PreparedStatement
  readonly #values: readonly unknown[]
  readonly #closing: readonly string[]
  #shape: RowShape | null
  #defect: Error | null = null
  readonly #rows: object[] = []

  /** `closing`: names of prepared statements that are closed with this query. */
  constructor(
    statement: PreparedStatement,
    values: readonly unknown[],
    closing: readonly string[],
    options: { readonly timeoutMs: number | undefined; readonly done: Done },
  ) {
    this.#statement = statement
    this.#values = values
    this.#closing = closing
    this.#shape = statement.shape
    this.query_timeout = options.timeoutMs
    this.callback = options.done
  }

  submit(connection: pg.Connection): Error | null {
    connection.stream.cork()
    try {
      this.#send(connection)
      return null
    } finally {
      connection.stream.uncork()
    }
  }

  #send(wire: pg.Connection): void {
    const { name, text } = this.#statement
    for (const old of this.#closing) wire.close({ type: 'S', name: old }, true)
    if (this.#shape === null) wire.parse({ text, name, types: [] }, true)
    try {
      wire.bind(
        { statement: name, values: this.#values as string[], valueMapper: prepareValue! },
        true,
      )
    } catch (error) {
      // A value that cannot be sent. None of it is on the wire; the response to `sync` ends the
      // query.
      this.#defect = error as Error
      wire.sync()
      return
    }
    if (this.#shape === null) wire.describe({ type: 'P', name: '' }, true)
    wire.execute(null, true)
    wire.sync()
  }

  handleRowDescription({ fields }: { readonly fields: readonly Field[] }): void {
    this.#shape = {
      names: fields.map((field) => field.name),
      parsers: fields.map(
        (field) => valueTypes.getTypeParser(field.dataTypeID, 'text') as (text: string) => unknown,
      ),
    }
  }

  handleDataRow({ fields }: { readonly fields: readonly (string | null)[] }): void {
    const { names, parsers } = this.#shape!
    const row: Record<string, unknown> = {}
    for (let at = 0; at < names.length; at += 1) {
      const text = fields[at] as string | null
      row[names[at]!] = text === null ? null : parsers[at]!(text)
    }
    this.#rows.push(row)
  }

  handleCommandComplete(): void {
    this.#statement.shape ??= this.#shape ?? noRows
  }

  handleEmptyQuery(): void {
    this.#statement.shape ??= noRows
  }

  handleError(error: Error): void {
    this.callback(this.#defect ?? error, [])
  }

  handleReadyForQuery(): void {
    this.callback(this.#defect, this.#rows)
  }
}
