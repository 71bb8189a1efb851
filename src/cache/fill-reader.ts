import type { FillContext } from '#cache/fill.ts'
import type { Queryable, Statement } from '#database/database.ts'

/**
 * A fill's context as a place where SQL runs, for code that only reads and knows nothing of fills.
 */
export class FillReader implements Queryable {
  readonly #context: FillContext

  constructor(context: FillContext) {
    this.#context = context
  }

  run<Row extends object>(
    statement: Statement<Row>,
    values: readonly unknown[] = [],
  ): Promise<Row[]> {
    return this.#context.read(statement, values)
  }

  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return this.#context.transaction(work)
  }
}
