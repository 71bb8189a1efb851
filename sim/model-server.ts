import { formatSnapshot } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import type { ModelOptions } from './model-database.ts'
import { applyOp, emptyTables } from './tables.ts'
import type { Op, Tables } from './tables.ts'

export type Transaction = {
  readonly xid: number
  readonly ops: Op[]
  readonly locks: string[]
  prepared: boolean
  /** Its commit record; -1 before. */
  lsn: number
}

type WalRecord =
  | { readonly kind: 'write' | 'abort'; readonly xid: number }
  | {
      readonly kind: 'prepare' | 'commit'
      readonly xid: number
      readonly ops: readonly Op[]
      readonly locks: readonly string[]
    }

/**
 * One PostgreSQL server as its clients see it: transactions get ids when they first write,
 * leave the list of running ones only after their commit record is flushed (and the synchronous
 * standby has it), and everything that survives a crash is in the flushed part of the log. Ids
 * above the highest one in that part are given out again.
 */
export class ModelServer {
  readonly name: string
  readonly system: string
  up = true
  role: 'primary' | 'standby'
  /** A primary that has been replaced and does not know it. */
  zombie = false
  /** Its commits wait for a standby, even one that will never respond. */
  waits = false
  timeline = 1
  /** In an unlogged table: gone after a crash or a promotion. */
  life: string | null = null
  tables: Tables = emptyTables()
  running = new Map<number, Transaction>()
  locks = new Map<string, number>()
  nextXid = 100
  latestCompleted = 99
  wal: WalRecord[] = []
  flushed = 0
  /** As a standby. */
  replayed = 0
  sequence = 0

  constructor(name: string, role: 'primary' | 'standby') {
    this.name = name
    this.system = '7'
    this.role = role
  }

  /** Null: another transaction holds one of the rows. */
  begin(locks: readonly string[]): Transaction | null {
    if (locks.some((lock) => this.locks.has(lock))) return null
    const transaction: Transaction = {
      xid: this.nextXid,
      ops: [],
      locks: [...locks],
      prepared: false,
      lsn: -1,
    }
    this.nextXid += 1
    this.running.set(transaction.xid, transaction)
    for (const lock of locks) this.locks.set(lock, transaction.xid)
    this.wal.push({ kind: 'write', xid: transaction.xid })
    return transaction
  }

  prepare(transaction: Transaction): void {
    transaction.prepared = true
    this.wal.push({
      kind: 'prepare',
      xid: transaction.xid,
      ops: [...transaction.ops],
      locks: transaction.locks,
    })
    this.flushed = this.wal.length
  }

  /** Writes the commit record. What it wrote cannot be seen before `reveal`. */
  commit(transaction: Transaction, options: { readonly flush: boolean }): number {
    this.wal.push({ kind: 'commit', xid: transaction.xid, ops: [...transaction.ops], locks: [] })
    transaction.lsn = this.wal.length
    if (options.flush) this.flushed = this.wal.length
    return transaction.lsn
  }

  reveal(transaction: Transaction, nowMs: number): void {
    this.#end(transaction)
    for (const op of transaction.ops) applyOp(this.tables, op, transaction.lsn, nowMs)
  }

  abort(transaction: Transaction): void {
    this.wal.push({ kind: 'abort', xid: transaction.xid })
    this.#end(transaction)
  }

  #end(transaction: Transaction): void {
    this.running.delete(transaction.xid)
    this.latestCompleted = Math.max(this.latestCompleted, transaction.xid)
    for (const lock of transaction.locks) this.locks.delete(lock)
  }

  snapshot(): Snapshot {
    // A standby does not know what its primary is running: its snapshot shows open transactions as
    // ended.
    const xmax = this.latestCompleted + 1
    const xip =
      this.role === 'standby'
        ? []
        : [...this.running.keys()].filter((xid) => xid < xmax).sort((one, other) => one - other)
    return { xmin: xip[0] ?? xmax, xmax, xip }
  }

  describe(): string {
    return `${this.name} epoch ${this.life ?? 'none'} snapshot ${formatSnapshot(this.snapshot())}`
  }

  /**
   * Plays the log from its beginning up to `until` into empty tables, as crash recovery and a base
   * backup do.
   */
  recover(wal: readonly WalRecord[], until: number, nowMs: number): void {
    this.wal = wal.slice(0, until)
    this.tables = emptyTables()
    this.running = new Map()
    this.locks = new Map()
    this.latestCompleted = 99
    this.flushed = until
    this.replayed = 0
    this.life = null
    this.replay(until, nowMs)
    this.nextXid = this.wal.reduce((next, record) => Math.max(next, record.xid + 1), 100)
    this.latestCompleted = this.nextXid - 1
    this.sequence = this.tables.outbox.reduce((last, row) => Math.max(last, row.seq), this.sequence)
  }

  replay(until: number, nowMs: number): void {
    for (; this.replayed < until; this.replayed += 1) {
      const record = this.wal[this.replayed]!
      if (record.kind === 'prepare') {
        const transaction: Transaction = {
          xid: record.xid,
          ops: [...record.ops],
          locks: [...record.locks],
          prepared: true,
          lsn: -1,
        }
        this.running.set(record.xid, transaction)
        for (const lock of record.locks) this.locks.set(lock, record.xid)
      }
      if (record.kind === 'commit' || record.kind === 'abort') {
        const prepared = this.running.get(record.xid)
        if (prepared !== undefined) this.#end(prepared)
        this.latestCompleted = Math.max(this.latestCompleted, record.xid)
      }
      if (record.kind === 'commit')
        for (const op of record.ops) applyOp(this.tables, op, this.replayed + 1, nowMs)
    }
  }

  /** The life's name as the poll sees it. */
  visibleEpoch(options: ModelOptions): string | null {
    if (options.without === 'R11 a crash ends the epoch' && this.tables.epoch !== null)
      return `${this.system}.${this.timeline}.1`
    return this.life
  }
}
