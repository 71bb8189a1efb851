import { compareEpochs } from '#change-feed/epoch.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import { formatLsn } from '#change-feed/poll.ts'
import { earlierOf, parseSnapshot } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable, Statement } from '#database/database.ts'
import {
  DatabaseTimeoutError,
  DatabaseUnavailableError,
  SerializationError,
} from '#database/errors.ts'
import type { Dependency } from '#cache/dependency.ts'
import type { Codec } from '#cache/envelope.ts'
import type { PageBound, Predicate } from '#cache/predicate.ts'

/** The result of a cached read, with the facts that a value made of it needs. */
export type Part<V> = {
  readonly kind: 'hit' | 'filled' | 'stale'
  readonly value: V
  readonly epoch: Epoch
  readonly snapshot: Snapshot
  readonly dependencies: readonly Dependency[]
  readonly asOfMs: number
}

/** The facts about a value that its caller gives to the cache. */
export type ValueOptions<V> = {
  /**
   * What the value is known to be made of beforehand: a change to it while it loads lets later
   * readers load anew at once.
   */
  readonly dependencies?: readonly Dependency[]
  /**
   * Memory that the value takes, in bytes. Without it the length of its JSON stands in, doubled.
   */
  readonly bytesOf?: (value: V) => number
  /**
   * How the value travels to the second level and back, for keys that mean the same on every node;
   * the value must be an object.
   */
  readonly codec?: Codec<V>
}

type GetPart = <V>(
  key: string,
  fill: (context: FillContext) => Promise<V>,
  options: ValueOptions<V>,
) => Promise<Part<V>>

export type FillSource = {
  readonly database: Database
  readonly feedEpoch: () => Epoch | null
  /** `failed` is called when it did not respond. */
  readonly replica: {
    readonly database: Database
    readonly lsn: number
    readonly epoch: Epoch
    readonly failed: (error: Error) => void
  } | null
}

/**
 * The result of `stoa.as_of()` without the call: epoch and snapshot of the statement that it
 * stands in.
 */
const asOfColumn = `coalesce((select epoch from stoa.life), '')
  || ' ' || pg_current_snapshot()::text as as_of`
const asOf = sql<{ as_of: string }>(`select ${asOfColumn}`)
const repeatable = sql(`set transaction isolation level repeatable read, read only`)
const reached = sql<{ reached: boolean }>(
  `select pg_is_in_recovery() and pg_last_wal_replay_lsn() >= $1::pg_lsn
     and (select epoch from stoa.epoch) = $2 as reached`,
)

type WithSnapshot = Statement<{ as_of: string; stoa_row: boolean | null }>

/** By the statement that each was made of. */
const wrapped = new WeakMap<Statement<object>, WithSnapshot>()

/**
 * The same statement with its snapshot beside each row, and one row without data if it finds none.
 */
function withSnapshot(statement: Statement<object>): WithSnapshot {
  const known = wrapped.get(statement)
  if (known !== undefined) return known
  const text =
    `with s as materialized (select ${asOfColumn}) select s.as_of, q.* from s ` +
    `left join lateral (select true as stoa_row, inner_q.* ` +
    `from (${statement.text}) inner_q) q on true`
  const made: WithSnapshot = sql(text, statement.prepare)
  wrapped.set(statement, made)
  return made
}

/**
 * What a loader reads with. It takes down the snapshot of everything read through it, and the
 * dependencies that the loader names: all that the value is made of must be named, and read here.
 */
export class FillContext implements Queryable {
  readonly #source: FillSource
  readonly #get: GetPart
  readonly #dependencies: Dependency[]
  #snapshot: Snapshot | null = null
  #epoch: Epoch | null | undefined
  #asOfMs: number | null = null
  #stale = false
  #fromReplica = false

  constructor(source: FillSource, declared: readonly Dependency[], get: GetPart) {
    this.#source = source
    this.#dependencies = [...declared]
    this.#get = get
  }

  /** The value depends on this row, be it there or not. */
  row(collection: string, key: string): this {
    this.#dependencies.push({ kind: 'row', collection, key })
    return this
  }

  /**
   * The value depends on which rows match, or on those within a page. A disjunction is several
   * calls.
   */
  list(collection: string, predicate: Predicate, page: PageBound | null = null): this {
    this.#dependencies.push({ kind: 'list', collection, predicate, page })
    return this
  }

  /** The value depends on everything in the collection. */
  collection(collection: string): this {
    this.#dependencies.push({ kind: 'collection', collection })
    return this
  }

  /**
   * Runs one SELECT, with its snapshot taken in the same statement. Errors are those of
   * `Queryable.run`.
   */
  async run<Row extends object>(
    statement: Statement<Row>,
    values: readonly unknown[] = [],
  ): Promise<Row[]> {
    const fromReplica = await this.#readReplica(statement, values)
    if (fromReplica !== null) return fromReplica
    const rows = await this.#source.database.checkout(async (connection) => {
      const found = await connection.run(withSnapshot(statement), values)
      this.#saw(found[0]!.as_of)
      return found
    })
    return rows
      .filter((row) => row.stoa_row === true)
      .map(({ as_of: _asOf, stoa_row: _row, ...row }) => row as unknown as Row)
  }

  /** For values of several statements: they all see one snapshot. Read only. */
  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    return this.#source.database.transaction(async (tx) => {
      await tx.run(repeatable)
      const [row] = await tx.run(asOf)
      this.#saw(row!.as_of)
      return work(tx)
    })
  }

  /** The dependencies that the loader has named so far. */
  get dependencies(): readonly Dependency[] {
    return this.#dependencies
  }

  /** The epoch that everything read so far was of; null: there is none, or more than one. */
  get epoch(): Epoch | null {
    return this.#epoch === undefined || this.#epoch === '' ? null : this.#epoch
  }

  /** Another cached value that this one is made of: what it depends on, this one does too. */
  async get<V>(
    key: string,
    fill: (context: FillContext) => Promise<V>,
    options: ValueOptions<V> = {},
  ): Promise<V> {
    const part = await this.#get(key, fill, options)
    this.#agree(part.epoch)
    this.#dependencies.push(...part.dependencies)
    this.#snapshot =
      this.#snapshot === null ? part.snapshot : earlierOf(this.#snapshot, part.snapshot)
    this.#asOfMs = Math.min(this.#asOfMs ?? part.asOfMs, part.asOfMs)
    this.#stale ||= part.kind === 'stale'
    return part.value
  }

  /**
   * A replica is asked first how far it is, in a statement before the data; what it shows then is
   * at least as new (R8).
   */
  async #readReplica<Row extends object>(
    statement: Statement<Row>,
    values: readonly unknown[],
  ): Promise<Row[] | null> {
    const { replica } = this.#source
    if (replica === null) return null
    try {
      return await replica.database.checkout(async (session) => {
        const [row] = await session.run(reached, [formatLsn(replica.lsn), replica.epoch])
        if (row?.reached !== true) return null
        const rows = await session.run(statement, values)
        this.#fromReplica = true
        this.#agree(replica.epoch)
        return rows
      })
    } catch (error) {
      // A standby also cancels what stands in the way of its replay; whatever it is, the primary
      // can do it.
      if (
        !(
          error instanceof DatabaseUnavailableError ||
          error instanceof DatabaseTimeoutError ||
          error instanceof SerializationError
        )
      )
        throw error
      if (!(error instanceof SerializationError)) replica.failed(error)
      return null
    }
  }

  #saw(text: string): void {
    const space = text.indexOf(' ')
    const epoch = text.slice(0, space)
    const snapshot = parseSnapshot(text.slice(space + 1))
    const feedEpoch = this.#source.feedEpoch()
    if (epoch !== '' && feedEpoch !== null && compareEpochs(epoch, feedEpoch) === 'older') {
      // Thrown where the connection is held, so that it is not used again.
      throw new DatabaseUnavailableError(
        'A connection led to a database server that has been replaced; try again.',
      )
    }
    this.#agree(epoch)
    this.#snapshot = this.#snapshot === null ? snapshot : earlierOf(this.#snapshot, snapshot)
  }

  /** Reads on two lives of the database make no value at all. */
  #agree(epoch: Epoch): void {
    this.#epoch = this.#epoch === undefined || this.#epoch === epoch ? epoch : null
  }

  /** The facts about the value. One that read nothing is as old as the fill. */
  result(start: { readonly epoch: Epoch | null; readonly cursor: Snapshot }): {
    readonly epoch: Epoch | null
    readonly snapshot: Snapshot | null
    readonly dependencies: readonly Dependency[]
    readonly asOfMs: number | null
    readonly stale: boolean
  } {
    const epoch = this.#epoch === undefined ? start.epoch : this.#epoch
    const snapshot = this.#fromReplica ? null : (this.#snapshot ?? start.cursor)
    return {
      epoch: epoch === '' ? null : epoch,
      snapshot,
      dependencies: this.#dependencies,
      asOfMs: this.#asOfMs,
      stale: this.#stale,
    }
  }
}
