import type { Change } from '#change-feed/change.ts'
import type { Ring } from '#change-feed/ring.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { hashedValuesMax, PredicateIndex } from '#cache/predicate-index.ts'
import { touches } from '#cache/predicate.ts'
import type { Atom, PageBound, Predicate } from '#cache/predicate.ts'

/** A source of a cached value, which ends when one of its sources changes. */
export type Dependency =
  /** One row, there or not: "not found" depends on the row too. */
  | { readonly kind: 'row'; readonly collection: string; readonly key: string }
  /** Any change to the collection: for what no predicate can express (counts, full text, joins). */
  | { readonly kind: 'collection'; readonly collection: string }
  /** The rows that match, or those of them within a page. */
  | {
      readonly kind: 'list'
      readonly collection: string
      readonly predicate: Predicate
      readonly page: PageBound | null
    }

/**
 * The first batch in the ring with a change that one of the dependencies notices and `snapshot`
 * does not see.
 */
export function changedSince(
  ring: Ring,
  dependencies: readonly Dependency[],
  snapshot: Snapshot,
  options: { readonly ignoreBefore: boolean },
): number | null {
  let first: number | null = null
  for (const dependency of dependencies) {
    const found =
      dependency.kind === 'row'
        ? ring.changedKey(dependency.collection, dependency.key, snapshot)
        : ring.changedWhere(
            dependency.collection,
            snapshot,
            (change) =>
              dependency.kind === 'collection' ||
              touches(change, dependency.predicate, dependency.page, options),
          )
    if (found !== null && (first === null || found < first)) first = found
  }
  return first
}

/**
 * What a dependency takes with its places in the index, in bytes, as dependency.test.ts measures
 * it: rather more than less.
 */
const rowBytes = 800
const listBytes = 1_500
const partBytes = 250
/** A value that a list may be found through has a bucket of its own. */
const hashedValueBytes = 750
const valueBytes = 60

/**
 * The caller decides how long a predicate is, so its memory counts: otherwise a few thousand
 * queries would take all memory.
 */
export function bytesOf(dependency: Dependency): number {
  if (dependency.kind !== 'list') return rowBytes
  const { predicate, page } = dependency
  let bytes = listBytes
  for (const atom of predicate) bytes += partBytes + atomBytes(atom)
  for (const border of [page?.after, page?.upTo])
    for (const value of border ?? []) bytes += textBytes(value)
  return bytes + partBytes * (page?.sort.length ?? 0)
}

function atomBytes(atom: Atom): number {
  switch (atom.is) {
    case 'in': {
      const each = atom.values.length <= hashedValuesMax ? hashedValueBytes : valueBytes
      return atom.values.reduce<number>((sum, value) => sum + each + textBytes(value), 0)
    }
    case 'range':
      return textBytes(atom.min?.value) + textBytes(atom.max?.value)
    case 'exists':
      return 0
    default:
      return textBytes(atom.value)
  }
}

/** A character takes one byte or two. */
function textBytes(value: unknown): number {
  return typeof value === 'string' ? 2 * value.length : 0
}

type Holders<Id> = {
  readonly rows: Map<string, Set<Id>>
  readonly whole: Set<Id>
  readonly all: Map<Id, number>
  readonly lists: PredicateIndex<Id>
}

/** An index of dependents: finds those that a change touches without a scan. */
export class DependencyIndex<Id> {
  readonly #collections = new Map<string, Holders<Id>>()
  readonly #ignoreBefore: boolean

  constructor(options: { readonly ignoreBefore: boolean } = { ignoreBefore: false }) {
    this.#ignoreBefore = options.ignoreBefore
  }

  add(id: Id, dependencies: readonly Dependency[]): void {
    for (const dependency of dependencies) {
      const holders = this.#holders(dependency.collection)
      holders.all.set(id, (holders.all.get(id) ?? 0) + 1)
      if (dependency.kind === 'collection') holders.whole.add(id)
      else if (dependency.kind === 'list')
        holders.lists.add(id, dependency.predicate, dependency.page)
      else {
        const same = holders.rows.get(dependency.key)
        if (same === undefined) holders.rows.set(dependency.key, new Set([id]))
        else same.add(id)
      }
    }
  }

  /** `dependencies` must be those that `add` was given. */
  remove(id: Id, dependencies: readonly Dependency[]): void {
    for (const dependency of dependencies) {
      const holders = this.#collections.get(dependency.collection)
      if (holders === undefined) continue
      if (dependency.kind === 'collection') holders.whole.delete(id)
      else if (dependency.kind === 'list') holders.lists.remove(id)
      else {
        const same = holders.rows.get(dependency.key)
        same?.delete(id)
        if (same?.size === 0) holders.rows.delete(dependency.key)
      }
      const left = (holders.all.get(id) ?? 1) - 1
      if (left > 0) holders.all.set(id, left)
      else holders.all.delete(id)
      if (holders.all.size === 0) this.#collections.delete(dependency.collection)
    }
  }

  touched(change: Change): Set<Id> {
    const holders = this.#collections.get(change.collection)
    if (holders === undefined) return new Set()
    if (change.key === null) return new Set(holders.all.keys())
    const result = holders.lists.touched(change, { ignoreBefore: this.#ignoreBefore })
    for (const id of holders.whole) result.add(id)
    for (const id of holders.rows.get(change.key) ?? []) result.add(id)
    return result
  }

  /** Lists that any change in their bucket touches, because there are too many to evaluate. */
  get unchecked(): number {
    let sum = 0
    for (const { lists } of this.#collections.values()) sum += lists.unchecked
    return sum
  }

  clear(): void {
    this.#collections.clear()
  }

  #holders(collection: string): Holders<Id> {
    let holders = this.#collections.get(collection)
    if (holders === undefined) {
      holders = { rows: new Map(), whole: new Set(), all: new Map(), lists: new PredicateIndex() }
      this.#collections.set(collection, holders)
    }
    return holders
  }
}
