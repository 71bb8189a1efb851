import { LRUCache } from 'lru-cache'
import type { BareRow, ListRow } from '#content/query/sql.ts'

/** Memory of a text and of a list besides their characters, and of a row of a list, in bytes. */
const textBytes = 300
const listBytes = 500
const rowBytes = 100
/** Share of the memory for the rows of lists; the rest is for texts. */
const listsShare = 0.25

type KnownRow = { readonly key: string; readonly writer: string }

/**
 * The texts of rows that were in lists, so that a list which is read anew because one of its
 * entries changed is sent that one and not all others again. Rows are never changed, only replaced
 * by others with another writer, so there is nothing to invalidate: a text is used where the
 * database says that it still has the very row. In another life of the database, ids of
 * transactions may be given out again; so each text is of one life.
 */
export class RowTexts {
  readonly #texts: LRUCache<string, string>
  readonly #lists: LRUCache<string, readonly KnownRow[]>
  readonly counts = { reused: 0, sent: 0 }

  /** `bytesMax`: memory for all of it. */
  constructor(bytesMax: number) {
    const listsMax = Math.max(1, Math.floor(bytesMax * listsShare))
    const textsMax = Math.max(1, Math.floor(bytesMax) - listsMax)
    // A character takes one byte or two.
    this.#texts = new LRUCache({
      maxSize: textsMax,
      sizeCalculation: (text, key) => textBytes + 2 * (text.length + key.length),
    })
    this.#lists = new LRUCache({
      maxSize: listsMax,
      sizeCalculation: (rows, list) => listBytes + 2 * list.length + rowBytes * rows.length,
    })
  }

  /** Memory of what is kept, in bytes. */
  get bytes(): number {
    return this.#texts.calculatedSize + this.#lists.calculatedSize
  }

  /**
   * The transactions that wrote the rows of this list when it was read last, as far as their texts
   * are still here.
   */
  writersOf(list: string): readonly string[] {
    return (this.#lists.get(list) ?? [])
      .filter(({ key }) => this.#texts.has(key))
      .map(({ writer }) => writer)
  }

  /**
   * The rows with their texts, which are kept for the next time; null where one was left out that
   * is not here. `life`: of the database that sent them; null: unknown.
   */
  complete(list: string, life: string | null, bare: readonly BareRow[]): ListRow[] | null {
    const rows: ListRow[] = []
    const known: KnownRow[] = []
    for (const row of bare) {
      if (!row.fits) {
        rows.push({ ...row, data: '' })
        continue
      }
      const key = `${life} ${row.writer} ${row.id} ${row.locale} ${row.version}`
      const data = row.data ?? (life === null ? undefined : this.#texts.get(key))
      if (data === undefined) return null
      rows.push({ ...row, data })
      known.push({ key, writer: row.writer })
    }
    for (const [at, { data, fits }] of bare.entries()) {
      if (!fits) continue
      this.counts[data === null ? 'reused' : 'sent'] += 1
      if (data !== null && life !== null) this.#texts.set(known[at]!.key, data)
    }
    if (life !== null) this.#lists.set(list, known)
    return rows
  }
}
