import { compareScalars, isScalar } from '#cache/predicate.ts'
import type { Atom, PageBound, Predicate, Scalar } from '#cache/predicate.ts'

/** An `in` with more values than this is not hashed: its other atoms have to find it. */
export const hashedValuesMax = 64

export type Hashable = Atom & ({ readonly is: 'eq' } | { readonly is: 'in' })

/**
 * How a list is looked up: through one equality, if it has any, then by where one field lies, then
 * by what these do not show.
 */
export type Plan = {
  readonly equality: Hashable | null
  readonly bounds: Bounds | null
  /** An equality or a range of numbers that can be told at a glance. */
  readonly test: Test | null
  /**
   * What is left to check of a row that has the equality, lies strictly within the bounds, and
   * passes the test.
   */
  readonly rest: Predicate
  /** Nothing but `rest` is: the page's bounds are shown too. */
  readonly exact: boolean
}

/**
 * Whether a row at an end of the page's stretch is on the page goes by the second key, mostly the
 * only other one. Told here in one piece, because it is met at random and each step to another
 * waits for memory; `undefined`: that end is open.
 */
export type Tie = {
  readonly field: string
  readonly descending: boolean
  readonly afterFirst: Scalar | undefined
  readonly afterSecond: Scalar | undefined
  readonly upToFirst: Scalar | undefined
  readonly upToSecond: Scalar | undefined
}

export function tieOf(page: PageBound | null, bounds: Bounds | null): Tie | null {
  const [, key, more] = page?.sort ?? []
  // Where a range has cut the stretch, its end says nothing about the page.
  if (
    page === null ||
    key === undefined ||
    more !== undefined ||
    bounds?.page !== true ||
    bounds.shown.length > 0
  )
    return null
  for (const border of [page.after, page.upTo])
    if (border !== null && ((border[0] ?? null) === null || (border[1] ?? null) === null))
      return null
  const [afterFirst, afterSecond] = (page.after ?? []) as readonly Scalar[]
  const [upToFirst, upToSecond] = (page.upTo ?? []) as readonly Scalar[]
  return {
    field: key.field,
    descending: key.descending,
    afterFirst,
    afterSecond,
    upToFirst,
    upToSecond,
  }
}

/** Null: this cannot tell. */
export function tieWithin(
  { descending, afterFirst, afterSecond, upToFirst, upToSecond }: Tie,
  first: unknown,
  second: unknown,
): boolean | null {
  if (!isScalar(second)) return null
  const sign = descending ? -1 : 1
  if (
    afterSecond !== undefined &&
    afterFirst === first &&
    sign * compareScalars(second, afterSecond) <= 0
  )
    return false
  return !(
    upToSecond !== undefined &&
    upToFirst === first &&
    sign * compareScalars(second, upToSecond) > 0
  )
}

export type Test = { readonly field: string; readonly atom: Atom } & (
  | { readonly equals: Scalar }
  | { readonly low: number; readonly high: number }
)

export type Bounds = {
  readonly field: string
  /** Null: open. Where both ends are given, they are of one type. */
  readonly low: number | string | null
  readonly high: number | string | null
  /** The ranges that a value strictly between them satisfies. */
  readonly shown: readonly Atom[]
  /** And whether its row is within the page then. */
  readonly page: boolean
}

/**
 * `crowd`: how many lists are already found through the atom's values; the equality that the fewest
 * share is the best.
 */
export function planOf(
  predicate: Predicate,
  page: PageBound | null,
  crowd: (atom: Hashable) => number,
): Plan {
  let equality: Hashable | null = null
  let least = Number.POSITIVE_INFINITY
  for (const atom of predicate) {
    if (!hashable(atom)) continue
    const size = crowd(atom)
    if (size >= least) continue
    equality = atom
    least = size
  }
  const others = predicate.filter((atom) => atom !== equality)
  const bounds = boundsOf(others, page)
  const exact =
    page === null || (page.after === null && page.upTo === null) || bounds?.page === true
  const unshown = others.filter((atom) => bounds === null || !bounds.shown.includes(atom))
  const tests = unshown.map(testOf).filter((test) => test !== null)
  const test = tests.find((one) => 'equals' in one) ?? tests[0] ?? null
  return { equality, bounds, test, rest: unshown.filter((atom) => atom !== test?.atom), exact }
}

function testOf(atom: Atom): Test | null {
  const { field } = atom
  if (atom.negated === true) return null
  if (atom.is === 'eq') return { field, atom, equals: atom.value }
  if (atom.is !== 'range') return null
  const { min, max } = atom
  if (
    (min !== undefined && !comparable(min.value)) ||
    (max !== undefined && !comparable(max.value)) ||
    (min ?? max) === undefined
  )
    return null
  const low =
    min === undefined
      ? Number.NEGATIVE_INFINITY
      : min.inclusive
        ? Number(min.value)
        : next(Number(min.value), 1n)
  const high =
    max === undefined
      ? Number.POSITIVE_INFINITY
      : max.inclusive
        ? Number(max.value)
        : next(Number(max.value), -1n)
  return { field, atom, low, high }
}

function comparable(value: Scalar): boolean {
  return typeof value === 'number' && Number.isFinite(value)
}

/**
 * The next double above (`1n`) or below (`-1n`) a finite one: with it an end that is not included
 * becomes one that is.
 */
function next(value: number, step: 1n | -1n): number {
  if (value === 0) return Number(step) * Number.MIN_VALUE
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, value)
  // Doubles of one sign are in the order of their bits, negative ones in the opposite order.
  view.setBigInt64(0, view.getBigInt64(0) + (value > 0 ? step : -step))
  return view.getFloat64(0)
}

function hashable(atom: Atom): atom is Hashable {
  return (
    atom.negated !== true &&
    (atom.is === 'eq' || (atom.is === 'in' && atom.values.length <= hashedValuesMax))
  )
}

/** The values of an equality, each once. */
export function valuesOf(atom: Hashable): Iterable<Scalar> {
  return atom.is === 'eq' ? [atom.value] : new Set(atom.values)
}

/**
 * The best stretch of one field to look the list up by: the more ends the better, and those of the
 * page before those of a range.
 */
function boundsOf(predicate: Predicate, page: PageBound | null): Bounds | null {
  const ofPage = page === null ? null : pageBounds(page)
  const found = ofPage === null ? [] : [ofPage]
  for (const atom of predicate) {
    const range = rangeBounds(atom)
    if (range === null) continue
    const same = found.findIndex((one) => one.field === range.field)
    const both = same === -1 ? null : intersection(found[same]!, range)
    if (both === null) found.push(range)
    else found[same] = both
  }
  const ends = ({ low, high }: Bounds): number => Number(low !== null) + Number(high !== null)
  return found.reduce<Bounds | null>(
    (best, one) => (best === null || ends(one) > ends(best) ? one : best),
    null,
  )
}

function pageBounds({ sort, after, upTo }: PageBound): Bounds | null {
  const [key] = sort
  if (key === undefined) return null
  const first = after?.[0] ?? null
  const last = upTo?.[0] ?? null
  const [low, high] = key.descending ? [last, first] : [first, last]
  if (!orderable(low) || !orderable(high) || !agree(low, high)) return null
  // A border at a missing value leaves its end open here, and is checked in full.
  return {
    field: key.field,
    low,
    high,
    shown: [],
    page: (after === null) === (first === null) && (upTo === null) === (last === null),
  }
}

function rangeBounds(atom: Atom): Bounds | null {
  if (atom.is !== 'range' || atom.negated === true) return null
  const low =
    atom.min === undefined
      ? null
      : atom.min.inclusive
        ? beyond(atom.min.value, -1n)
        : atom.min.value
  const high =
    atom.max === undefined ? null : atom.max.inclusive ? beyond(atom.max.value, 1n) : atom.max.value
  return orderable(low) && orderable(high) && agree(low, high)
    ? { field: atom.field, low, high, shown: [atom], page: false }
    : null
}

/**
 * An end that is included moves out by one step, if it is a number: then it lies strictly between
 * the ends and leaves nothing to check.
 */
function beyond(end: Scalar, step: 1n | -1n): Scalar {
  return comparable(end) ? next(Number(end), step) : end
}

/** Booleans are too few to tell lists apart, and what is not a number has no place. */
function orderable(end: Scalar | null): end is number | string | null {
  return typeof end !== 'boolean' && !Number.isNaN(end)
}

/** Not both open, and of one type. */
function agree(low: number | string | null, high: number | string | null): boolean {
  return low === null ? high !== null : high === null || typeof low === typeof high
}

function intersection(one: Bounds, other: Bounds): Bounds | null {
  if (typeof (one.low ?? one.high) !== typeof (other.low ?? other.high)) return null
  const low =
    one.low === null || (other.low !== null && compareScalars(other.low, one.low) > 0)
      ? other.low
      : one.low
  const high =
    one.high === null || (other.high !== null && compareScalars(other.high, one.high) < 0)
      ? other.high
      : one.high
  return {
    field: one.field,
    low,
    high,
    shown: [...one.shown, ...other.shown],
    page: one.page || other.page,
  }
}
