import type { Change, Row } from '#change-feed/change.ts'
import { onEnd } from '#cache/interval-shelf.ts'
import { Bucket, bitOf, notTold } from '#cache/predicate-bucket.ts'
import type { Region, Taken } from '#cache/predicate-bucket.ts'
import { planOf, tieOf, tieWithin, valuesOf } from '#cache/predicate-plan.ts'
import type { Hashable, Plan, Tie } from '#cache/predicate-plan.ts'
import { Slots } from '#cache/predicate-slots.ts'
import { holds, matches, withinPage } from '#cache/predicate.ts'
import type { Atom, PageBound, Predicate } from '#cache/predicate.ts'

/**
 * Whoever is told of changes to its lists; several entries, if it has several lists or a list is
 * found through several values.
 */
type Holder = {
  readonly number: number
  readonly entries: Entry[]
  readonly releases: (() => void)[]
}

/** A list in one bucket. */
type Entry = {
  readonly holder: Holder
  readonly predicate: Predicate
  readonly page: PageBound | null
  readonly region: Region
  readonly bucket: Bucket
  /** -1: it needs none. */
  readonly number: number
  readonly item: number
  /** Null: there are none, or they are not enough. */
  readonly checks: Check | null
}

/** One atom against the value of one field, and the next. */
type Check = { readonly slot: number; readonly atom: Atom; readonly next: Check | null }

/**
 * Live list queries of one collection: which of them does a change touch (R12)? Each list is found
 * through one equality (a hash), within that by where the bounds of its page, a range and another
 * equality let its rows lie, and then checked for what these do not show.
 *
 * A change meets so many lists that memory is what costs. So everything has a number: a row is
 * taken apart by slot once, a list is a number in flat arrays, and of most lists nothing else is
 * read.
 */
export class PredicateIndex<Id> {
  readonly #holders = new Map<Id, Holder>()
  /** By the holder's number. */
  readonly #ids: (Id | undefined)[] = []
  readonly #numbered: (Holder | undefined)[] = []
  /** Which of the last changes the holder was told of: `#telling` is the one that is told now. */
  #told = new Uint8Array(0)
  #telling = 0
  /**
   * For holders of one list, whose rows at an end of its stretch this tells apart; null: nothing
   * does.
   */
  readonly #ties: ((Tie & { readonly firstSlot: number; readonly secondSlot: number }) | null)[] =
    []
  readonly #freeHolders: number[] = []
  /** By the entry's number. */
  readonly #entries: (Entry | undefined)[] = []
  readonly #freeEntries: number[] = []
  readonly #slots = new Slots<Bucket>()
  readonly #rest = new Bucket()
  /**
   * Used again for each change: its rows by slot, what a bucket holds of them, and the holders
   * found.
   */
  readonly #before: Taken = { values: [], codes: [] }
  readonly #after: Taken = { values: [], codes: [] }
  readonly #candidates: number[] = []
  readonly #found: Id[] = []

  get size(): number {
    return this.#holders.size
  }

  /** The same id may be added with several predicates: a disjunction. */
  add(id: Id, predicate: Predicate, page: PageBound | null): void {
    const holder = this.#holders.get(id) ?? this.#hold(id)
    for (const field of new Set([...predicate, ...(page?.sort ?? [])].map((part) => part.field)))
      holder.releases.push(this.#slots.use(field))
    const plan = planOf(predicate, page, (atom) => this.#crowd(atom))
    const region = this.#region(predicate, page, plan, holder)
    const tie = holder.entries.length > 0 ? null : tieOf(page, plan.bounds)
    this.#ties[holder.number] =
      tie === null
        ? null
        : { ...tie, firstSlot: region.stretch!.slot, secondSlot: this.#slots.of(tie.field) }
    const checks = plan.exact
      ? plan.rest.reduceRight<Check | null>(
          (next, atom) => ({ slot: this.#slots.of(atom.field), atom, next }),
          null,
        )
      : null
    const plain = plan.exact && checks === null
    for (const bucket of plan.equality === null
      ? [this.#rest]
      : this.#buckets(plan.equality, holder)) {
      // Where nothing is left to check, the item names the holder itself: one look into memory
      // less.
      const number = plain ? -1 : (this.#freeEntries.pop() ?? this.#entries.length)
      const entry: Entry = {
        holder,
        predicate,
        page,
        region,
        bucket,
        number,
        checks,
        item: plain ? 2 * holder.number : 2 * number + 1,
      }
      if (!plain) this.#entries[number] = entry
      bucket.add(entry.item, region)
      holder.entries.push(entry)
    }
  }

  /** Removes the id with all its predicates. */
  remove(id: Id): void {
    const holder = this.#holders.get(id)
    if (holder === undefined) return
    this.#holders.delete(id)
    this.#ids[holder.number] = undefined
    this.#numbered[holder.number] = undefined
    this.#freeHolders.push(holder.number)
    for (const { bucket, item, region, number } of holder.entries) {
      bucket.remove(item, region)
      if (number === -1) continue
      this.#entries[number] = undefined
      this.#freeEntries.push(number)
    }
    for (const release of holder.releases.reverse()) release()
  }

  /**
   * Whatever the change may have changed, each once. A row that the writer did not tell may be any.
   */
  touched(
    change: Change,
    options: { readonly ignoreBefore: boolean } = { ignoreBefore: false },
  ): Id[] {
    if (this.#holders.size === 0) return []
    const { operation } = change
    const before = operation === 'insert' || options.ignoreBefore ? undefined : change.before
    const after = operation === 'delete' ? undefined : change.after
    if (operation === 'flush' || before === null || after === null) return [...this.#holders.keys()]
    this.#beginTelling()
    let count = 0
    if (before !== undefined) {
      this.#slots.take(before, this.#before)
      count = this.#find(before, this.#before, everyField, count)
    }
    if (after !== undefined) {
      let fields = everyField
      if (before === undefined) this.#slots.take(after, this.#after)
      else fields = this.#slots.takeAfter(after, this.#after, this.#before)
      // Where only other fields changed, a list finds in the row after what it found in the row
      // before.
      if (fields !== 0) count = this.#find(after, this.#after, fields, count)
    }
    return this.#found.slice(0, count)
  }

  /** Nobody has been told of the change that comes now. */
  #beginTelling(): void {
    this.#telling += 1
    if (this.#telling <= tellingMax) return
    this.#told.fill(0)
    this.#telling = 1
  }

  #find(row: Row, taken: Taken, fields: number, from: number): number {
    let count = this.#rest.size > 0 ? this.#judge(this.#rest, row, taken, fields, from) : from
    const { hashed } = this.#slots
    for (let at = 0; at < hashed.length; at += 1) {
      const { slot, codes, holders } = hashed[at]!
      const code = taken.codes[slot]!
      if (!Number.isNaN(code)) {
        const bucket = holders[code]
        if (bucket !== undefined) count = this.#judge(bucket, row, taken, fields, count)
      } else {
        for (const value of new Set(taken.values[slot] as unknown[])) {
          const bucket = holders[codes.get(value) ?? 0]
          if (bucket !== undefined) count = this.#judge(bucket, row, taken, fields, count)
        }
      }
    }
    return count
  }

  #judge(bucket: Bucket, row: Row, taken: Taken, fields: number, from: number): number {
    const candidates = this.#candidates
    const end = bucket.candidates(taken, fields, candidates)
    if (end === 0) return from
    const ids = this.#ids
    const found = this.#found
    const told = this.#told
    const telling = this.#telling
    let count = from
    for (let at = 0; at < end; at += 1) {
      const candidate = candidates[at]!
      const holder =
        (candidate & anyDoubt) === 0 ? candidate >> 3 : this.#checked(candidate, row, taken)
      if (holder === -1 || told[holder] === telling) continue
      told[holder] = telling
      found[count++] = ids[holder]!
    }
    return count
  }

  /** The number of the holder, or -1 if the row does not concern it. */
  #checked(candidate: number, row: Row, taken: Taken): number {
    const number = candidate >> 3
    if ((candidate & toCheck) === 0) {
      if (this.#told[number] === this.#telling) return -1
      const tie = (candidate & notTold) === 0 ? this.#ties[number]! : null
      const within =
        tie === null
          ? null
          : tieWithin(tie, taken.values[tie.firstSlot], taken.values[tie.secondSlot])
      return (within ?? this.#numbered[number]!.entries.some((entry) => concerns(entry, row)))
        ? number
        : -1
    }
    const entry = this.#entries[number]!
    if (this.#told[entry.holder.number] === this.#telling) return -1
    if ((candidate & (onEnd | notTold)) !== 0 || entry.checks === null)
      return concerns(entry, row) ? entry.holder.number : -1
    for (let check: Check | null = entry.checks; check !== null; check = check.next)
      if (holds(check.atom, taken.values[check.slot]) === (check.atom.negated === true)) return -1
    return entry.holder.number
  }

  #hold(id: Id): Holder {
    const number = this.#freeHolders.pop() ?? this.#ids.length
    const holder: Holder = { number, entries: [], releases: [] }
    this.#holders.set(id, holder)
    this.#ids[number] = id
    this.#numbered[number] = holder
    if (number >= this.#told.length) {
      const grown = new Uint8Array(2 * number + 16)
      grown.set(this.#told)
      this.#told = grown
    }
    return holder
  }

  #region(
    predicate: Predicate,
    page: PageBound | null,
    { bounds, test }: Plan,
    holder: Holder,
  ): Region {
    let fields = 0
    for (const { field } of [...predicate, ...(page?.sort ?? [])])
      fields |= bitOf(this.#slots.of(field))
    if (fields === 0) fields = everyField
    const stretch =
      bounds === null
        ? null
        : { slot: this.#slots.of(bounds.field), low: bounds.low, high: bounds.high }
    if (test === null) return { stretch, test, fields }
    const slot = this.#slots.of(test.field)
    if (!('equals' in test))
      return { stretch, test: { slot, coded: false, low: test.low, high: test.high }, fields }
    const { code, release } = this.#slots.code(slot, test.equals)
    holder.releases.push(release)
    return { stretch, test: { slot, coded: true, low: code, high: code }, fields }
  }

  #buckets(equality: Hashable, holder: Holder): Bucket[] {
    const slot = this.#slots.of(equality.field)
    return Array.from(valuesOf(equality), (value) => {
      const { bucket, release } = this.#slots.bucket(slot, value, () => new Bucket())
      holder.releases.push(release)
      return bucket
    })
  }

  /** How many lists are found through the same values. */
  #crowd(atom: Hashable): number {
    const slot = this.#slots.of(atom.field)
    let sum = 0
    for (const value of valuesOf(atom)) sum += 1 + (this.#slots.known(slot, value)?.size ?? 0)
    return sum
  }
}

const everyField = -1
/** What one byte tells apart, 0 left aside. */
const tellingMax = 255
/** In a candidate, beside `onEnd` and `notTold`: its list has something left to check. */
const toCheck = 4
const anyDoubt = onEnd | notTold | toCheck

function concerns({ predicate, page }: Entry, row: Row): boolean {
  return matches(predicate, row) && (page === null || withinPage(row, page))
}
