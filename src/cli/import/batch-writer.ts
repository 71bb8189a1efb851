import type { Report } from '#cli/import/report.ts'
import type { Bulk, BulkItem, BulkOutcome } from '#content/bulk/bulk.ts'
import type { Call } from '#content/content.ts'

/**
 * A batch is one transaction: large enough that round trips and the flush to disk do not count,
 * small enough to repeat.
 */
const itemsMax = 100
const batchCharsMax = 2_000_000
/**
 * Batches being saved at a time: while one is in the database, the other is being checked and
 * encoded here.
 */
const savingMax = 2

type Name = {
  readonly name: string
  readonly onOutcome: ((outcome: BulkOutcome['outcome']) => void) | null
}

/**
 * Gathers items into batches and saves some while the next is being gathered: the database and this
 * process work at the same time, and no more than three batches are in memory.
 */
export class BatchWriter {
  readonly #to: {
    readonly bulk: Bulk
    readonly call: Call
    readonly type: string
    readonly report: Report
    readonly what: string
  }
  #items: BulkItem[] = []
  #names: Name[] = []
  #chars = 0
  readonly #saving = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | null = null
  /** Entries that got a version in this run. */
  readonly changed = new Set<string>()
  done = 0

  constructor(to: {
    readonly bulk: Bulk
    readonly call: Call
    readonly type: string
    readonly report: Report
    readonly what: string
  }) {
    this.#to = to
  }

  /**
   * `name` is how the report calls the item; `chars` how large it is, roughly. Rejects when the
   * batch before failed.
   */
  async add(
    item: BulkItem,
    name: string,
    chars: number,
    onOutcome: Name['onOutcome'] = null,
  ): Promise<void> {
    const isFull = this.#items.length >= itemsMax || this.#chars >= batchCharsMax
    // Locales of one entry stay together: two batches with the same entry would wait for each
    // other.
    if (isFull && this.#items.at(-1)?.id !== item.id) await this.#flush()
    this.#items.push(item)
    this.#names.push({ name, onOutcome })
    this.#chars += chars
  }

  async finish(): Promise<void> {
    await this.#flush()
    await Promise.all(this.#saving)
    this.#throwFailure()
  }

  async #flush(): Promise<void> {
    while (this.#saving.size >= savingMax) await Promise.race(this.#saving)
    if (this.#failure !== null) await Promise.all(this.#saving)
    this.#throwFailure()
    if (this.#items.length === 0) return
    const items = this.#items
    const names = this.#names
    this.#items = []
    this.#names = []
    this.#chars = 0
    const saving = this.#saveOrFail(items, names).finally(() => this.#saving.delete(saving))
    this.#saving.add(saving)
  }

  /**
   * Never rejects: what a batch failed with is thrown by the next call, when those beside it have
   * ended too.
   */
  async #saveOrFail(items: readonly BulkItem[], names: readonly Name[]): Promise<void> {
    try {
      await this.#save(items, names)
    } catch (error) {
      this.#failure ??= { error }
    }
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure.error
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
