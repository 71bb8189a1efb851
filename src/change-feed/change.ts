/**
 * A flat row as predicates see it: the filterable fields. A field that is missing or null has no
 * value.
 */
export type Row = Readonly<Record<string, unknown>>

/** One committed write to one row, as told by the change feed. */
export type Change = {
  /** The top-level transaction that made it. */
  readonly xid: number
  readonly collection: string
  /** Null for `flush`: all rows of the collection may have changed. */
  readonly key: string | null
  readonly operation: 'insert' | 'update' | 'delete' | 'flush'
  /**
   * The filterable fields before and after; null where there is no such row, or where the writer
   * did not tell.
   */
  readonly before: Row | null
  readonly after: Row | null
  /** Memory that its rows take, roughly; absent: next to none. */
  readonly bytes?: number
}

/**
 * The rules of DESIGN §5 that the cores hold, by the name of the switch that removes each. A
 * removed rule exists to show that the simulation notices; nothing outside `sim/` and tests sets
 * it.
 */
export type Rule =
  | 'R2 hints are not trusted'
  | 'R5 fills are fenced'
  | 'R5 an invalidated fill is detached'
  | 'R6 lease'
  | 'R6 heartbeat'
  | 'R7 tokens'
  | 'R9 the second level is validated'
  | 'R11 epoch'
  | 'R11 trimmed changes flush'
  | 'R12 the row before counts'
