/**
 * A flat row as predicates see it: the filterable fields. A field that is missing or null has no
 * value.
 */
export type Row = Readonly<Record<string, unknown>>

/** One committed write to one row, as the change feed delivers it. */
export type Change = {
  /** The top-level transaction that made it. */
  readonly xid: number
  readonly collection: string
  /** Null for `flush`: all rows of the collection may have changed. */
  readonly key: string | null
  readonly operation: 'insert' | 'update' | 'delete' | 'flush'
  /**
   * The filterable fields before and after; null where there is no such row, or where the writer
   * did not record it.
   */
  readonly before: Row | null
  readonly after: Row | null
  /** Memory that its rows take, roughly; absent: next to none. */
  readonly bytes?: number
}
