import { createHash } from 'node:crypto'

/**
 * Statement names that one process may give out; past it dynamic statements go unnamed, so servers
 * keep bounded plans.
 */
const statementNamesMax = 1_000

/**
 * One SQL text with `$1`-style parameters. A named statement is parsed and planned once per
 * connection. `Row` is the shape of its rows as the driver returns them (see `Queryable.run`).
 */
export type Statement<Row> = {
  readonly text: string
  readonly name: string | null
  /**
   * How long this side waits for the answer, instead of the pool's deadline. For maintenance such
   * as building an index; the server keeps its own `statement_timeout`, which the session has to
   * set too.
   */
  readonly timeoutMs?: number
  /** Never set: it only carries the type. */
  readonly row?: Row
}

const names = new Map<string, string>()

/**
 * Makes a statement. The same text always gets the same name, so build texts from structure and
 * pass every value as a parameter: that is what keeps injection out and the number of plans small.
 */
export function sql<Row extends object>(text: string): Statement<Row> {
  let name = names.get(text) ?? null
  if (name === null && names.size < statementNamesMax) {
    name = createHash('sha1').update(text).digest('base64url')
    names.set(text, name)
  }
  return { text, name }
}

/**
 * Where SQL can run. Values arrive and leave in PostgreSQL's own types with these mappings:
 * `timestamptz` ⇄ ISO 8601 string in UTC with exactly three fraction digits; `json`/`jsonb` → the
 * raw text (parse it only where it is needed); `bigint`, `numeric`, `xid8`, `pg_lsn` → string;
 * `bytea` ⇄ Buffer; arrays ⇄ JavaScript arrays.
 *
 * Errors: `DatabaseUnavailableError` (no connection, or it broke: whether a write took effect is
 * unknown), `DatabaseTimeoutError` (the deadline passed), `ConstraintError` (unique, foreign key,
 * check, not null, exclusion), `SerializationError` (deadlock or serialization: run the whole
 * transaction again). Anything else is a defect.
 */
export interface Queryable {
  run<Row extends object>(statement: Statement<Row>, values?: readonly unknown[]): Promise<Row[]>

  /**
   * Runs `work` in one READ COMMITTED transaction: commits when it resolves, rolls back when it
   * rejects. Inside a transaction it makes a savepoint. `tx` must not be used after `work` has
   * ended.
   */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>
}

/** The shared database of the cluster: a pool of connections to the writable primary. */
export interface Database extends Queryable {
  /**
   * One connection of its own outside any transaction: for session locks and `create index
   * concurrently`.
   */
  session<T>(work: (session: Queryable) => Promise<T>): Promise<T>

  /**
   * Where a connection is always free soon, however busy the rest is: for health checks and what
   * the cluster must not miss. Short statements only. Absent: there is no such reserve, use the
   * database itself.
   */
  readonly control?: Queryable

  /** Connections of this process now: at work, free, and callers that wait for one. For metrics. */
  usage(): { readonly busy: number; readonly idle: number; readonly waiting: number }

  /** Ends idle connections at once and busy ones when their work is done. Safe to call twice. */
  close(): Promise<void>
}
