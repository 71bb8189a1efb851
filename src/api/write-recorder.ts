import { tokenOf } from '#change-feed/feed.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import { laterToken } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type { Database, Queryable, Statement } from '#database/database.ts'

/**
 * The database for one request that writes. It notes which transaction wrote, so that the answer can carry its token: at the
 * end of each transaction it asks for it, and a statement that writes by itself is told to `wrote`.
 */
export class WriteRecorder implements Database {
  readonly #database: Database
  readonly #wrote: { readonly writer: number }[] = []
  #token: Token | null = null

  constructor(database: Database) {
    this.#database = database
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

  session<T>(work: (session: Queryable) => Promise<T>): Promise<T> {
    return this.#database.session(work)
  }

  usage(): { readonly busy: number; readonly idle: number; readonly waiting: number } {
    return this.#database.usage()
  }

  close(): Promise<void> {
    return this.#database.close()
  }

  /** `writer`: the lower 32 bits of the transaction's id, which is what a row says of who wrote it. */
  wrote(writer: string): void {
    this.#wrote.push({ writer: Number(writer) })
  }

  /** The token of the last write; null: nothing was written, or not in a way that tells. `xmax`: of a snapshot taken after it, in the same epoch. */
  token(epoch: Epoch, xmax: number): Token | null {
    return this.#wrote.reduce<Token | null>((latest, { writer }) => laterToken(latest, { epoch, xid: widened(writer, xmax) }), this.#token)
  }
}

const span = 2 ** 32

/** The transaction id below `xmax` with these lower 32 bits: transactions that run are less than 2^31 apart. */
function widened(lower: number, xmax: number): number {
  const xid = Math.floor(xmax / span) * span + lower
  return xid >= xmax ? xid - span : xid
}
