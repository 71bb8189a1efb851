import type { Change, Row } from '#change-feed/change.ts'
import { PredicateBucket } from '#cache/predicate-bucket.ts'
import type { IndexedList } from '#cache/predicate-bucket.ts'
import type { Atom, PageBound, Predicate } from '#cache/predicate.ts'
import type { Scalar } from '#lib/scalar.ts'

/** An `in` with more values than this is not hashed: another atom has to find its list. */
export const hashedValuesMax = 64

type Hashable = Atom & ({ readonly is: 'eq' } | { readonly is: 'in' })
type Place<Id> = { readonly bucket: PredicateBucket<Id>; readonly list: IndexedList<Id> }

/**
 * The live list queries of one collection: which of them does a change touch (R12)? Each list is
 * found through one of its equalities, by a hash of the value, and within that by the stretch in
 * which its page or one of its ranges lets rows lie; then its predicate is evaluated. Lists without
 * an equality share one bucket.
 */
export class PredicateIndex<Id> {
  readonly #buckets = new Map<string, Map<Scalar, PredicateBucket<Id>>>()
  readonly #rest = new PredicateBucket<Id>()
  readonly #places = new Map<Id, Place<Id>[]>()

  get size(): number {
    return this.#places.size
  }

  /** The same id may be added with several predicates: a disjunction. */
  add(id: Id, predicate: Predicate, page: PageBound | null): void {
    const places = this.#places.get(id) ?? []
    this.#places.set(id, places)
    const equality = this.#leastShared(predicate)
    const left = predicate.filter((atom) => atom !== equality)
    for (const bucket of equality === null ? [this.#rest] : this.#bucketsOf(equality))
      places.push({ bucket, list: bucket.add(id, left, page) })
  }

  /** Removes the id with all its predicates. */
  remove(id: Id): void {
    const places = this.#places.get(id)
    if (places === undefined) return
    this.#places.delete(id)
    for (const { bucket, list } of places) {
      bucket.remove(list)
      if (bucket.size === 0) this.#removeBucket(bucket)
    }
  }

  /** The ids whose lists the change may have changed. A row that was not recorded may be any. */
  touched(
    change: Change,
    options: { readonly ignoreBefore: boolean } = { ignoreBefore: false },
  ): Set<Id> {
    const found = new Set<Id>()
    if (this.#places.size === 0) return found
    const { operation } = change
    const before = operation === 'insert' || options.ignoreBefore ? undefined : change.before
    const after = operation === 'delete' ? undefined : change.after
    if (operation === 'flush' || before === null || after === null)
      return new Set(this.#places.keys())
    if (before !== undefined) this.#find(before, found)
    if (after !== undefined) this.#find(after, found)
    return found
  }

  /** Lists that are over the budget of their bucket: any change in the bucket touches them. */
  get unchecked(): number {
    let sum = this.#rest.unchecked
    for (const byValue of this.#buckets.values())
      for (const bucket of byValue.values()) sum += bucket.unchecked
    return sum
  }

  #find(row: Row, found: Set<Id>): void {
    this.#rest.find(row, found)
    for (const [field, byValue] of this.#buckets) {
      const value = row[field]
      if (Array.isArray(value))
        for (const one of new Set(value as Scalar[])) byValue.get(one)?.find(row, found)
      else byValue.get(value as Scalar)?.find(row, found)
    }
  }

  /** The equality whose values the fewest lists share; null: the predicate has none. */
  #leastShared(predicate: Predicate): Hashable | null {
    let best: Hashable | null = null
    let least = Number.POSITIVE_INFINITY
    for (const atom of predicate) {
      if (!isHashable(atom)) continue
      let sharing = 0
      for (const value of valuesOf(atom))
        sharing += 1 + (this.#buckets.get(atom.field)?.get(value)?.size ?? 0)
      if (sharing >= least) continue
      best = atom
      least = sharing
    }
    return best
  }

  #bucketsOf(equality: Hashable): PredicateBucket<Id>[] {
    const { field } = equality
    const byValue = this.#buckets.get(field) ?? new Map<Scalar, PredicateBucket<Id>>()
    this.#buckets.set(field, byValue)
    return Array.from(valuesOf(equality), (value) => {
      const bucket = byValue.get(value) ?? new PredicateBucket<Id>({ field, value })
      byValue.set(value, bucket)
      return bucket
    })
  }

  #removeBucket({ key }: PredicateBucket<Id>): void {
    if (key === null) return
    const byValue = this.#buckets.get(key.field)
    byValue?.delete(key.value)
    if (byValue?.size === 0) this.#buckets.delete(key.field)
  }
}

function isHashable(atom: Atom): atom is Hashable {
  return (
    atom.negated !== true &&
    (atom.is === 'eq' || (atom.is === 'in' && atom.values.length <= hashedValuesMax))
  )
}

/** The values of an equality, each once. */
function valuesOf(atom: Hashable): Iterable<Scalar> {
  return atom.is === 'eq' ? [atom.value] : new Set(atom.values)
}
