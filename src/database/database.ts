/**
 * How often a statement is expected to come again. `always`: parsed and planned once per connection
 * and kept there. `repeated`: kept from its second use on a connection on, for texts that callers
 * make up. `never`: sent as it is; several commands in one text are possible only so.
 */
export type Preparation = 'always' | 'repeated' | 'never'

/**
 * One SQL text with `$1`-style parameters. `Row` is the shape of its rows as the driver returns
 * them (see `Queryable.run`).
 */
export type Statement<Row> = {
  readonly text: string
  readonly prepare: Preparation
  /**
   * How long this side waits for the result, instead of the pool's deadline. For maintenance such
   * as building an index; the server keeps its own `statement_timeout`, which the session has to
   * set too.
   */
  readonly timeoutMs?: number
  /** Never set: it only carries the type. */
  readonly row?: Row
}

/**
 * Makes a statement. Build texts from structure and pass every value as a parameter: that keeps
 * injection out and the number of plans small.
 */
export function sql<Row extends object>(
  text: string,
  prepare: Preparation = 'always',
): Statement<Row> {
  return { text, prepare }
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

  /**
   * Calls back once the outermost transaction has committed, and never if it, or the savepoint that
   * this stands for, rolls back. Outside a transaction: at once. For hints only: a node that ends
   * in between never calls back. `callback` must not throw. Absent: there is no such notice.
   */
  afterCommit?(callback: () => void): void
}

/** Connections of one kind to the writable primary. */
export interface Sessions extends Queryable {
  /**
   * Runs `work` on a connection to the server itself, outside any transaction, which it has for
   * itself: for session locks, settings, and `create index concurrently`. When `work` rejects with
   * a `DatabaseUnavailableError`, the connection is closed.
   */
  session<T>(work: (session: Queryable) => Promise<T>): Promise<T>
}

/** The shared database of the cluster: a pool of connections to the writable primary. */
export interface Database extends Sessions {
  /**
   * The same as `session`, but through whatever stands between this node and the server: behind a
   * connection pooler two statements may run in two server sessions. For work that has to give up
   * the connection when it finds that it leads to the wrong server.
   */
  checkout<T>(work: (connection: Queryable) => Promise<T>): Promise<T>

  /**
   * A connection that is free soon, however busy the rest is: for health checks and calls between
   * nodes. Short statements only. Absent: there is no such reserve, use the database itself.
   */
  readonly control?: Queryable

  /**
   * Connections for the change feed and the nodes' heartbeats, which must never wait for other
   * work. Absent: use the database itself.
   */
  readonly feed?: Sessions

  /**
   * Connections of this process for ordinary work: at work, free, and callers that wait for one.
   * For metrics.
   */
  usage(): { readonly busy: number; readonly idle: number; readonly waiting: number }

  /** Ends idle connections at once and busy ones when their work is done. Safe to call twice. */
  close(): Promise<void>
}
