import type { Change, Row } from '#change-feed/change.ts'
import { IntervalTree } from '#cache/interval-tree.ts'
import type { Interval, Place } from '#cache/interval-tree.ts'
import { isScalar, matches, withinPage } from '#cache/predicate.ts'
import type { Atom, PageBound, Predicate, Scalar } from '#cache/predicate.ts'

/** An `in` with more values than this is not hashed: its other atoms have to find it. */
const hashedValuesMax = 64

type List<Id> = {
  readonly id: Id
  readonly predicate: Predicate
  readonly page: PageBound | null
  /** What the hash has not shown already. */
  readonly rest: Predicate
  /** Nothing is left to check but the bounds of the page. */
  readonly plain: boolean
  readonly places: (() => void)[]
}

/**
 * Live list queries of one collection: which of them does a change touch (R12)? Each list is found through one equality
 * (a hash), within that through one range or the bounds of its page (an interval tree), and is then checked in full.
 */
export class PredicateIndex<Id> {
  readonly #lists = new Map<Id, List<Id>[]>()
  /** By field, then by value. */
  readonly #equal = new Map<string, Map<Scalar, Bucket<Id>>>()
  readonly #rest = new Bucket<Id>()
  /** How many lists ask for a field. */
  readonly #fields = new Map<string, number>()

  get size(): number {
    return this.#lists.size
  }

  /** The same id may be added with several predicates: a disjunction. */
  add(id: Id, predicate: Predicate, page: PageBound | null): void {
    const equality = this.#narrowest(predicate)
    const rest = predicate.filter((atom) => atom !== equality)
    const list: List<Id> = { id, predicate, page, rest, plain: rest.length === 0 && page?.after?.[0] !== null && page?.upTo?.[0] !== null, places: [] }
    this.#count(list, 1)
    const same = this.#lists.get(id)
    if (same === undefined) this.#lists.set(id, [list])
    else same.push(list)
    if (equality === undefined) this.#rest.add(list)
    else for (const value of new Set(equality.is === 'eq' ? [equality.value] : equality.values)) this.#bucket(equality.field, value).add(list)
  }

  /** The equality that the fewest other lists share. */
  #narrowest(predicate: Predicate): Hashable | undefined {
    let best: { readonly atom: Hashable; readonly size: number } | undefined
    for (const atom of predicate) {
      if (!hashable(atom)) continue
      const values = atom.is === 'eq' ? [atom.value] : atom.values
      const size = values.reduce<number>((sum, value) => sum + 1 + (this.#equal.get(atom.field)?.get(value)?.size ?? 0), 0)
      if (best === undefined || size < best.size) best = { atom, size }
    }
    return best?.atom
  }

  #bucket(field: string, value: Scalar): Bucket<Id> {
    let values = this.#equal.get(field)
    if (values === undefined) this.#equal.set(field, (values = new Map()))
    let bucket = values.get(value)
    if (bucket === undefined) {
      bucket = new Bucket(() => {
        values.delete(value)
        if (values.size === 0) this.#equal.delete(field)
      })
      values.set(value, bucket)
    }
    return bucket
  }

  /** Removes the id with all its predicates. */
  remove(id: Id): void {
    for (const list of this.#lists.get(id) ?? []) {
      for (const leave of list.places) leave()
      this.#count(list, -1)
    }
    this.#lists.delete(id)
  }

  /** Adds to `into` whatever the change may have changed. A row that the writer did not tell may be any. */
  touched(change: Change, into: Set<Id>, options: { readonly ignoreBefore: boolean } = { ignoreBefore: false }): void {
    if (this.#lists.size === 0) return
    const { operation, before, after } = change
    const concernsBefore = operation !== 'insert' && !options.ignoreBefore
    const concernsAfter = operation !== 'delete'
    if (operation === 'flush' || (concernsBefore && before === null) || (concernsAfter && after === null)) {
      for (const id of this.#lists.keys()) into.add(id)
      return
    }
    if (concernsBefore && before !== null) this.#find(before, into)
    if (concernsAfter && after !== null && !(concernsBefore && before !== null && this.#alike(before, after))) this.#find(after, into)
  }

  #count(list: List<Id>, by: 1 | -1): void {
    for (const { field } of [...list.predicate, ...(list.page?.sort ?? [])]) {
      const count = (this.#fields.get(field) ?? 0) + by
      if (count === 0) this.#fields.delete(field)
      else this.#fields.set(field, count)
    }
  }

  /** Both rows are in the same place of every list: most writes change only what no list asks for. */
  #alike(before: Row, after: Row): boolean {
    for (const field of this.#fields.keys()) if (before[field] !== after[field]) return false
    return true
  }

  #find(row: Row, into: Set<Id>): void {
    const check = (list: List<Id>, inside: boolean): void => {
      if (inside && list.plain) into.add(list.id)
      else if (!into.has(list.id) && matches(list.rest, row) && (list.page === null || withinPage(row, list.page))) into.add(list.id)
    }
    this.#rest.candidates(row, check)
    for (const [field, values] of this.#equal) {
      const value = row[field]
      if (Array.isArray(value)) for (const one of new Set(value)) values.get(one as Scalar)?.candidates(row, check)
      else values.get(value as Scalar)?.candidates(row, check)
    }
  }
}

type Hashable = Atom & ({ readonly is: 'eq' } | { readonly is: 'in' })

function hashable(atom: Atom): atom is Hashable {
  return atom.negated !== true && (atom.is === 'eq' || (atom.is === 'in' && atom.values.length <= hashedValuesMax))
}

/** Lists that share an equality, or have none. */
class Bucket<Id> {
  readonly #scanned = new Set<List<Id>>()
  readonly #ranges = new Map<string, { readonly tree: IntervalTree<List<Id>>; readonly missing: Set<List<Id>> }>()
  readonly #emptied: () => void
  #size = 0

  constructor(emptied: () => void = () => undefined) {
    this.#emptied = emptied
  }

  add(list: List<Id>): void {
    this.#size += 1
    const range = rangeOf(list)
    if (range === null) {
      this.#scanned.add(list)
      list.places.push(() => {
        this.#scanned.delete(list)
        this.#check()
      })
      return
    }
    const { field, interval, missing } = range
    let known = this.#ranges.get(field)
    if (known === undefined) this.#ranges.set(field, (known = { tree: new IntervalTree(), missing: new Set() }))
    const { tree } = known
    const place: Place = tree.add(interval, list)
    if (missing) known.missing.add(list)
    list.places.push(() => {
      tree.remove(place)
      known.missing.delete(list)
      if (tree.size === 0) this.#ranges.delete(field)
      this.#check()
    })
  }

  get size(): number {
    return this.#size
  }

  #check(): void {
    this.#size -= 1
    if (this.#scanned.size === 0 && this.#ranges.size === 0) this.#emptied()
  }

  candidates(row: Row, check: (list: List<Id>, inside: boolean) => void): void {
    for (const list of this.#scanned) check(list, false)
    for (const [field, { tree, missing }] of this.#ranges) {
      const value = row[field]
      if (isScalar(value)) tree.containing(value, check)
      else for (const list of missing) check(list, false)
    }
  }
}

/** The field by which a list is best narrowed down, and between what. Wider than the truth is allowed: all is checked again. */
function rangeOf(list: { readonly predicate: Predicate; readonly page: PageBound | null }): { readonly field: string; readonly interval: Interval; readonly missing: boolean } | null {
  const { page } = list
  const [key] = page?.sort ?? []
  if (page !== null && key !== undefined && (page.after !== null || page.upTo !== null)) {
    const first = page.after === null ? null : (page.after[0] ?? null)
    const last = page.upTo === null ? null : (page.upTo[0] ?? null)
    // A missing value is behind all others ascending, and before them descending.
    const missing = key.descending ? page.after === null || first === null : page.upTo === null || last === null
    return { field: key.field, interval: key.descending ? { low: last, high: first } : { low: first, high: last }, missing }
  }
  const range = list.predicate.find((atom) => atom.is === 'range' && atom.negated !== true)
  if (range?.is !== 'range') return null
  return { field: range.field, interval: { low: range.min?.value ?? null, high: range.max?.value ?? null }, missing: false }
}
