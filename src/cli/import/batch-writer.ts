import type { Report } from '#cli/import/report.ts'
import type { Bulk, BulkItem, BulkOutcome } from '#content/bulk/bulk.ts'
import type { Call } from '#content/content.ts'

/** A batch is one transaction: large enough that round trips and the flush to disk do not count, small enough to repeat. */
const itemsMax = 100
const batchCharsMax = 2_000_000

type Name = { readonly name: string; readonly onOutcome: ((outcome: BulkOutcome['outcome']) => void) | null }

/**
 * Gathers items into batches and saves one while the next is being gathered: the database and this process work at the
 * same time, and no more than two batches are in memory.
 */
export class BatchWriter {
  readonly #to: { readonly bulk: Bulk; readonly call: Call; readonly type: string; readonly report: Report; readonly what: string }
  #items: BulkItem[] = []
  #names: Name[] = []
  #chars = 0
  #saving: Promise<void> = Promise.resolve()
  /** Entries that got a version in this run. */
  readonly changed = new Set<string>()
  done = 0

  constructor(to: { readonly bulk: Bulk; readonly call: Call; readonly type: string; readonly report: Report; readonly what: string }) {
    this.#to = to
  }

  /** `name` is how the report calls the item; `chars` how large it is, roughly. Rejects when the batch before failed. */
  async add(item: BulkItem, name: string, chars: number, onOutcome: Name['onOutcome'] = null): Promise<void> {
    this.#items.push(item)
    this.#names.push({ name, onOutcome })
    this.#chars += chars
    if (this.#items.length >= itemsMax || this.#chars >= batchCharsMax) await this.#flush()
  }

  async finish(): Promise<void> {
    await this.#flush()
    await this.#saving
  }

  async #flush(): Promise<void> {
    await this.#saving
    if (this.#items.length === 0) return
    const items = this.#items
    const names = this.#names
    this.#items = []
    this.#names = []
    this.#chars = 0
    this.#saving = this.#save(items, names)
    // A failure is thrown by the next call that waits for it; until then it is not unhandled.
    this.#saving.catch(() => undefined)
  }

  async #save(items: readonly BulkItem[], names: readonly Name[]): Promise<void> {
    const { bulk, call, type, report, what } = this.#to
    const outcomes = await bulk.save(call, type, items)
    outcomes.forEach((result, index) => {
      const { name, onOutcome } = names[index]!
      onOutcome?.(result.outcome)
      if (result.outcome === 'refused') report.refuse(what, name, result.reason)
      else {
        report.count(what, result.outcome)
        if (result.outcome !== 'unchanged') this.changed.add(items[index]!.id)
      }
    })
    this.done += items.length
  }
}
