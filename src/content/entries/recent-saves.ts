import type { Version } from '#content/versions/version.ts'
import { LRUCache } from 'lru-cache'

/**
 * A row that this node wrote, and the id of the transaction that did. Every change of a row, of a
 * flag or a date too, gives it another one. So where the database still has this one, the row is
 * unchanged.
 */
export type Remembered = {
  readonly row: Version
  readonly localeCount: number
  readonly writer: string
}

/** Characters of data remembered: people save the same entry every few seconds while they write. */
const rememberedSizeMax = 16_000_000
const rowSize = 1_000

/**
 * The latest versions that this node wrote last, so that the next save of the same entry need not
 * read it first.
 */
export class RecentSaves {
  readonly #rows = new LRUCache<string, Remembered>({
    maxSize: rememberedSizeMax,
    sizeCalculation: ({ row }) => rowSize + row.data.length,
  })

  get(type: string, id: string, locale: string): Remembered | null {
    return this.#rows.get(`${type} ${id} ${locale}`) ?? null
  }

  set(type: string, id: string, remembered: Remembered): void {
    this.#rows.set(`${type} ${id} ${remembered.row.locale}`, remembered)
  }

  forget(type: string, id: string, locale: string): void {
    this.#rows.delete(`${type} ${id} ${locale}`)
  }
}
