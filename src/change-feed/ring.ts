import type { Change } from '#change-feed/change.ts'
import { includes, visible } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'

/**
 * Changes that a node remembers. Older ones are forgotten batch by batch, and what needs them is a
 * miss.
 */
const ringChangesMax = 10_000
/** Batches that a node remembers, so that many small ones stay bounded too. */
const ringBatchesMax = 5_000
/**
 * Memory for their rows: an entry may have a megabyte of what can be filtered, and a node remembers
 * thousands of changes.
 */
const ringBytesMax = 16 * 1024 * 1024

type Batch = {
  readonly number: number
  readonly to: Snapshot
  readonly changes: readonly Change[]
  readonly bytes: number
}
type Remembered = { readonly batch: number; readonly change: Change }

/**
 * The recent changes. Complete from `base` to the cursor: a change that is visible in the cursor
 * and not in `base` is here. So a value that was read at a snapshot that includes `base` can be
 * checked exactly, by any reader at any time.
 */
export class Ring {
  #base: Snapshot
  #batches: Batch[] = []
  #first = 0
  #size = 0
  #bytes = 0
  #collections = new Map<
    string,
    {
      readonly changes: Remembered[]
      forgotten: number
      readonly keys: Map<string, Remembered[]>
      readonly flushes: Remembered[]
    }
  >()
  readonly #changesMax: number

  constructor(base: Snapshot, changesMax: number = ringChangesMax) {
    this.#base = base
    this.#changesMax = changesMax
  }

  get size(): number {
    return this.#size
  }

  /** True if everything that happened since `snapshot` is remembered. */
  covers(snapshot: Snapshot): boolean {
    return includes(snapshot, this.#base)
  }

  /** Adds what a poll brought; `number` grows with each batch. */
  append(number: number, to: Snapshot, changes: readonly Change[]): void {
    const bytes = changes.reduce((sum, change) => sum + (change.bytes ?? 0), 0)
    this.#batches.push({ number, to, changes, bytes })
    this.#size += changes.length
    this.#bytes += bytes
    for (const change of changes) this.#remember({ batch: number, change })
    while (
      this.#first < this.#batches.length &&
      (this.#size > this.#changesMax ||
        this.#bytes > ringBytesMax ||
        this.#batches.length - this.#first > ringBatchesMax)
    )
      this.#forget()
    if (this.#first * 2 > this.#batches.length) {
      this.#batches = this.#batches.slice(this.#first)
      this.#first = 0
    }
  }

  /**
   * The number of the first batch with a change to the row that `snapshot` does not see; null:
   * there is none.
   */
  changedKey(collection: string, key: string, snapshot: Snapshot): number | null {
    const known = this.#collections.get(collection)
    if (known === undefined) return null
    const from = this.#unseenFrom(snapshot)
    return least(
      firstUnseen(known.keys.get(key), from, snapshot),
      firstUnseen(known.flushes, from, snapshot),
    )
  }

  /** The same for any change to the collection that `matches`. */
  changedWhere(
    collection: string,
    snapshot: Snapshot,
    matches: (change: Change) => boolean,
  ): number | null {
    const known = this.#collections.get(collection)
    if (known === undefined) return null
    const from = this.#unseenFrom(snapshot)
    for (
      let at = lowest(
        known.forgotten,
        known.changes.length,
        (place) => known.changes[place]!.batch >= from,
      );
      at < known.changes.length;
      at += 1
    ) {
      const { batch, change } = known.changes[at]!
      if (!visible(snapshot, change.xid) && (change.operation === 'flush' || matches(change)))
        return batch
    }
    return null
  }

  /**
   * The number of the first batch that may hold a change which `snapshot` does not see. Cursors
   * only ever see more, so it is found by halves.
   */
  #unseenFrom(snapshot: Snapshot): number {
    const at = lowest(
      this.#first,
      this.#batches.length,
      (place) => !includes(snapshot, this.#batches[place]!.to),
    )
    return this.#batches[at]?.number ?? Number.POSITIVE_INFINITY
  }

  #remember(remembered: Remembered): void {
    const { change } = remembered
    let known = this.#collections.get(change.collection)
    if (known === undefined)
      this.#collections.set(
        change.collection,
        (known = { changes: [], forgotten: 0, keys: new Map(), flushes: [] }),
      )
    known.changes.push(remembered)
    if (change.key === null) {
      known.flushes.push(remembered)
      return
    }
    const same = known.keys.get(change.key)
    if (same === undefined) known.keys.set(change.key, [remembered])
    else same.push(remembered)
  }

  #forget(): void {
    const batch = this.#batches[this.#first]!
    this.#first += 1
    this.#size -= batch.changes.length
    this.#bytes -= batch.bytes
    this.#base = batch.to
    for (const change of batch.changes) {
      const known = this.#collections.get(change.collection)!
      known.forgotten += 1
      if (change.key === null) known.flushes.shift()
      else if (known.keys.get(change.key)!.length === 1) known.keys.delete(change.key)
      else known.keys.get(change.key)!.shift()
      if (known.forgotten === known.changes.length) this.#collections.delete(change.collection)
      else if (known.forgotten * 2 > known.changes.length) {
        known.changes.splice(0, known.forgotten)
        known.forgotten = 0
      }
    }
  }
}

/**
 * The first place from `low` on, below `high`, from which on `holds` is true; `high`: there is
 * none.
 */
function lowest(low: number, high: number, holds: (place: number) => boolean): number {
  let [from, to] = [low, high]
  while (from < to) {
    const middle = (from + to) >> 1
    if (holds(middle)) to = middle
    else from = middle + 1
  }
  return from
}

function firstUnseen(
  list: readonly Remembered[] | undefined,
  from: number,
  snapshot: Snapshot,
): number | null {
  if (list === undefined) return null
  for (const { batch, change } of list)
    if (batch >= from && !visible(snapshot, change.xid)) return batch
  return null
}

function least(one: number | null, other: number | null): number | null {
  if (one === null || other === null) return one ?? other
  return Math.min(one, other)
}
