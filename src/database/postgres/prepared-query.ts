import pg from 'pg'
import type { Statement } from '#database/database.ts'
import { valueTypes } from '#database/postgres/values.ts'

/**
 * How the rows of a statement look: the same for as long as it is prepared, since PostgreSQL
 * refuses to run a plan whose result changed.
 */
export type RowShape = {
  readonly names: readonly string[]
  readonly parsers: readonly ((text: string) => unknown)[]
}

type Field = { readonly name: string; readonly dataTypeID: number }
/** `result`: the rows; of no meaning beside an error. */
export type Done = (error: Error | null | undefined, result: unknown) => void

/** What pg's connection has beside what its types tell. */
type Wire = pg.Connection & {
  readonly parsedStatements: Readonly<Record<string, string>>
  readonly submittedNamedStatements: Record<string, string>
}

/** How pg sends values; its types do not tell of it. */
const { prepareValue } = (
  pg as unknown as { readonly utils: { readonly prepareValue: (value: unknown) => unknown } }
).utils

const noRows: RowShape = { names: [], parsers: [] }

/**
 * A named statement on its way through `pg.Client`, in place of pg's own `Query`: the server is
 * asked how the rows look only the first time on a connection, and nothing is made per query but
 * the rows. The members that pg calls keep its names.
 */
export class PreparedQuery {
  readonly name: string
  readonly text: string
  /** Read and replaced by pg, which puts its deadline around it. */
  callback: Done
  readonly query_timeout: number | undefined
  readonly #values: unknown[]
  readonly #shapes: Map<string, RowShape>
  #shape: RowShape | undefined
  #defect: Error | null = null
  readonly #rows: object[] = []

  /** `shapes`: of the connection, by name. */
  constructor(
    name: string,
    statement: Statement<object>,
    values: readonly unknown[],
    shapes: Map<string, RowShape>,
    done: Done,
  ) {
    this.name = name
    this.text = statement.text
    this.query_timeout = statement.timeoutMs
    this.callback = done
    this.#values = values as unknown[]
    this.#shapes = shapes
    this.#shape = shapes.get(name)
  }

  submit(connection: pg.Connection): Error | null {
    const wire = connection as Wire
    wire.stream.cork()
    try {
      this.#send(wire)
      return null
    } finally {
      wire.stream.uncork()
    }
  }

  #send(wire: Wire): void {
    if (
      wire.parsedStatements[this.name] === undefined &&
      wire.submittedNamedStatements[this.name] === undefined
    ) {
      wire.parse({ text: this.text, name: this.name, types: [] }, true)
      wire.submittedNamedStatements[this.name] = this.text
    }
    try {
      wire.bind(
        { statement: this.name, values: this.#values as string[], valueMapper: prepareValue },
        true,
      )
    } catch (error) {
      // A value that cannot be sent. Nothing of it is on the wire; the answer to `sync` ends the
      // query.
      this.#defect = error as Error
      wire.sync()
      return
    }
    if (this.#shape === undefined) wire.describe({ type: 'P', name: '' }, true)
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
    if (!this.#shapes.has(this.name)) this.#shapes.set(this.name, this.#shape ?? noRows)
  }

  handleEmptyQuery(): void {
    this.#shapes.set(this.name, noRows)
  }

  handleError(error: Error): void {
    this.callback(this.#defect ?? error, [])
  }

  handleReadyForQuery(): void {
    this.callback(this.#defect, this.#rows)
  }
}
