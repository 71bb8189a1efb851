import { tokenOf } from '#change-feed/feed.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import { laterToken } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type { Database, Queryable, Statement } from '#database/database.ts'

/** The state of this node when a statement had written. */
type Moment = { readonly epoch: Epoch | null; readonly leased: boolean }

/**
 * The database for one request that writes. It notes which transaction wrote, so that the response
 * can carry its token: at the end of each transaction it asks for it, and a statement that writes
 * by itself is reported to `wrote`.
 */
export class WriteRecorder implements Database {
  readonly #database: Database
  readonly #now: () => Moment
  readonly #wrote: (Moment & { readonly writer: number })[] = []
  #token: Token | null = null

  constructor(database: Database, now: () => Moment) {
    this.#database = database
    this.#now = now
  }

  run<Row extends object>(statement: Statement<Row>, values?: readonly unknown[]): Promise<Row[]> {
    return this.#database.run(statement, values)
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    let token: Token | null = null
    const value = await this.#database.transaction(async (tx) => {
      const result = await work(tx)
      token = await tokenOf(tx)
      return result
    })
    this.#token = laterToken(this.#token, token)
    return value
  }

  afterCommit(callback: () => void): void {
    this.#database.afterCommit?.(callback)
  }

  session<T>(work: (session: Queryable) => Promise<T>): Promise<T> {
    return this.#database.session(work)
  }

  async checkout<T>(work: (connection: Queryable) => Promise<T>): Promise<T> {
    return this.#database.checkout(work)
  }

  usage(): { readonly busy: number; readonly idle: number; readonly waiting: number } {
    return this.#database.usage()
  }

  close(): Promise<void> {
    return this.#database.close()
  }

  /**
   * `writer`: the lower 32 bits of the transaction's id, which is what a row says of who wrote it.
   */
  wrote(writer: string): void {
    this.#wrote.push({ ...this.#now(), writer: Number(writer) })
  }

  /**
   * The token of the last write; null: nothing was written, or its epoch is not known. What
   * a statement wrote by itself belongs to this node's epoch of then if it still is that: `settled`
   * by a poll since, or if the lease held.
   */
  token({
    epoch,
    xmax,
    settled,
  }: {
    readonly epoch: Epoch
    readonly xmax: number
    readonly settled: boolean
  }): Token | null {
    const certain = this.#wrote.filter((one) => one.epoch === epoch && (settled || one.leased))
    return certain.reduce<Token | null>(
      (latest, { writer }) => laterToken(latest, { epoch, xid: widened(writer, xmax) }),
      this.#token,
    )
  }
}

const span = 2 ** 32

/**
 * The transaction id nearest to `xmax` with these lower 32 bits: transactions that run are less
 * than 2^31 apart.
 */
export function widened(lower: number, xmax: number): number {
  return lower + Math.round((xmax - lower) / span) * span
}
