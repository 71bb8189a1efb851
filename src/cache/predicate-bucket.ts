import type { Row } from '#change-feed/change.ts'
import { matches, withinPage } from '#cache/predicate.ts'
import type { Atom, PageBound, Predicate } from '#cache/predicate.ts'
import { compareScalars, isScalar } from '#lib/scalar.ts'
import type { Scalar } from '#lib/scalar.ts'

/** A block with more lists than this is cut in two; within a block all lists are looked at. */
const blockListsMax = 64
/**
 * Work that one changed row may cost in one bucket, in evaluations of a simple atom (≈ 50 ns).
 * Lists beyond it are no longer evaluated: any row of their bucket touches them. So strangers'
 * lists can cost their own exactness, but not the time of every save.
 */
const bucketCostMax = 8_000
/** A list with both ends is met by few rows. */
const boundedCostShare = 1 / 8
const textSearchCost = 4

/** Where the rows of a list lie in one field. A missing value lies at the open upper end. */
type Stretch = {
  readonly field: string
  /** Null: open. Both ends are included here; the predicate decides about them. */
  readonly low: Scalar | null
  readonly high: Scalar | null
}

/** A list in one bucket; `predicate` is what is left to check besides the bucket's equality. */
export type IndexedList<Id> = {
  readonly id: Id
  readonly predicate: Predicate
  readonly page: PageBound | null
  readonly stretch: Stretch | null
  readonly cost: number
  /** Null: the list is over the budget, or has no stretch. */
  block: Block<Id> | null
}

/** Lists whose stretches start next to each other, with the lowest start and the highest end. */
type Block<Id> = { low: Scalar | null; high: Scalar | null; readonly lists: IndexedList<Id>[] }

/**
 * Lists that share the value of one equality, or have none. By field of their stretch they lie in
 * blocks, ordered by the start: a row looks at those blocks that can hold its value.
 */
export class PredicateBucket<Id> {
  readonly key: { readonly field: string; readonly value: Scalar } | null
  readonly #blocks = new Map<string, Block<Id>[]>()
  readonly #anywhere = new Set<IndexedList<Id>>()
  readonly #unchecked = new Set<IndexedList<Id>>()
  #size = 0
  #cost = 0

  constructor(key: PredicateBucket<Id>['key'] = null) {
    this.key = key
  }

  get size(): number {
    return this.#size
  }

  get unchecked(): number {
    return this.#unchecked.size
  }

  add(id: Id, predicate: Predicate, page: PageBound | null): IndexedList<Id> {
    const stretch = stretchOf(predicate, page)
    const cost = costOf(predicate, page, stretch)
    const list: IndexedList<Id> = { id, predicate, page, stretch, cost, block: null }
    this.#size += 1
    if (this.#cost + cost > bucketCostMax) {
      this.#unchecked.add(list)
      return list
    }
    this.#cost += cost
    if (stretch === null) this.#anywhere.add(list)
    else this.#insert(list, stretch)
    return list
  }

  remove(list: IndexedList<Id>): void {
    this.#size -= 1
    if (this.#unchecked.delete(list)) return
    this.#cost -= list.cost
    if (!this.#anywhere.delete(list) && list.block !== null) this.#take(list, list.block)
  }

  /** Adds the ids of the lists that the row concerns. */
  find(row: Row, found: Set<Id>): void {
    for (const { id } of this.#unchecked) found.add(id)
    for (const list of this.#anywhere)
      if (!found.has(list.id) && concerns(list, row)) found.add(list.id)
    for (const [field, blocks] of this.#blocks) {
      const value = row[field]
      const place = isScalar(value) ? value : null
      for (const block of blocks) {
        if (isBefore(place, block.low)) break
        if (isBehind(place, block.high)) continue
        for (const list of block.lists)
          if (
            !isBefore(place, list.stretch!.low) &&
            !isBehind(place, list.stretch!.high) &&
            !found.has(list.id) &&
            concerns(list, row)
          )
            found.add(list.id)
      }
    }
  }

  #insert(list: IndexedList<Id>, { field, low, high }: Stretch): void {
    const blocks = this.#blocks.get(field) ?? [{ low, high, lists: [] }]
    this.#blocks.set(field, blocks)
    // The last block that starts at or below the list, or the first of all.
    let at = blocks.length - 1
    while (at > 0 && compareLows(blocks[at]!.low, low) > 0) at -= 1
    const block = blocks[at]!
    if (compareLows(low, block.low) < 0) block.low = low
    if (compareHighs(high, block.high) > 0) block.high = high
    block.lists.push(list)
    list.block = block
    if (block.lists.length > blockListsMax) cut(blocks, at)
  }

  #take(list: IndexedList<Id>, block: Block<Id>): void {
    const { field } = list.stretch!
    block.lists.splice(block.lists.indexOf(list), 1)
    if (block.lists.length > 0) return measure(block)
    const blocks = this.#blocks.get(field)!
    blocks.splice(blocks.indexOf(block), 1)
    if (blocks.length === 0) this.#blocks.delete(field)
  }
}

function concerns<Id>({ predicate, page }: IndexedList<Id>, row: Row): boolean {
  return matches(predicate, row) && (page === null || withinPage(row, page))
}

function cut<Id>(blocks: Block<Id>[], at: number): void {
  const block = blocks[at]!
  block.lists.sort((one, other) => compareLows(one.stretch!.low, other.stretch!.low))
  const second: Block<Id> = {
    low: null,
    high: null,
    lists: block.lists.splice(block.lists.length / 2),
  }
  for (const list of second.lists) list.block = second
  measure(block)
  measure(second)
  blocks.splice(at + 1, 0, second)
}

function measure<Id>(block: Block<Id>): void {
  const [first, ...others] = block.lists
  block.low = first!.stretch!.low
  block.high = first!.stretch!.high
  for (const { stretch } of others) {
    if (compareLows(stretch!.low, block.low) < 0) block.low = stretch!.low
    if (compareHighs(stretch!.high, block.high) > 0) block.high = stretch!.high
  }
}

/** Null is the lowest start. */
function compareLows(one: Scalar | null, other: Scalar | null): number {
  if (one === null || other === null) return Number(one !== null) - Number(other !== null)
  return compareScalars(one, other)
}

/** Null is the highest end. */
function compareHighs(one: Scalar | null, other: Scalar | null): number {
  if (one === null || other === null) return Number(one === null) - Number(other === null)
  return compareScalars(one, other)
}

/** A missing value (null) lies after all others. */
function isBefore(place: Scalar | null, low: Scalar | null): boolean {
  return low !== null && place !== null && compareScalars(place, low) < 0
}

function isBehind(place: Scalar | null, high: Scalar | null): boolean {
  return high !== null && (place === null || compareScalars(place, high) > 0)
}

/** The stretch with the most ends; where several have as many, that of the page. */
function stretchOf(predicate: Predicate, page: PageBound | null): Stretch | null {
  const stretches = new Map<string, Stretch>()
  const [key] = page?.sort ?? []
  if (key !== undefined) {
    const [after, upTo] = [page?.after?.[0] ?? null, page?.upTo?.[0] ?? null]
    const [low, high] = key.descending ? [upTo, after] : [after, upTo]
    stretches.set(key.field, { field: key.field, low, high })
  }
  for (const atom of predicate) {
    if (atom.is !== 'range' || atom.negated === true) continue
    const range = { low: atom.min?.value ?? null, high: atom.max?.value ?? null }
    const other = stretches.get(atom.field) ?? { low: null, high: null }
    stretches.set(atom.field, {
      field: atom.field,
      low: compareLows(other.low, range.low) > 0 ? other.low : range.low,
      high: compareHighs(other.high, range.high) < 0 ? other.high : range.high,
    })
  }
  let best: Stretch | null = null
  for (const stretch of stretches.values())
    if (endsOf(stretch) > (best === null ? 0 : endsOf(best))) best = stretch
  return best
}

function endsOf({ low, high }: Stretch): number {
  return Number(low !== null) + Number(high !== null)
}

function costOf(predicate: Predicate, page: PageBound | null, stretch: Stretch | null): number {
  const checks = predicate.reduce((sum, atom) => sum + atomCost(atom), page === null ? 0 : 1)
  return stretch !== null && endsOf(stretch) === 2 ? checks * boundedCostShare : checks
}

function atomCost(atom: Atom): number {
  if (atom.is === 'contains' || atom.is === 'startsWith') return textSearchCost
  return atom.is === 'in' ? 1 + atom.values.length / 32 : 1
}
