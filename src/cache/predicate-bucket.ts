import { NumberShelf, TextShelf, onEnd } from '#cache/interval-shelf.ts'
import type { Interval } from '#cache/interval-shelf.ts'
import { isScalar } from '#cache/predicate.ts'

/**
 * Where the rows of a list lie: in one stretch of one field, and of another. Fields are slots, and
 * a null end is open.
 */
export type Region = {
  /** Null: anywhere. */
  readonly stretch: {
    readonly slot: number
    readonly low: number | string | null
    readonly high: number | string | null
  } | null
  /** Null: anywhere. `coded`: between codes of values, and not between values. */
  readonly test: {
    readonly slot: number
    readonly coded: boolean
    readonly low: number
    readonly high: number
  } | null
  /** The bits of all fields that the list asks for, as `bitOf` gives them. */
  readonly fields: number
}

/**
 * A row, by slot. The code of a value that no list asks for is 0; that of an array, not a number.
 */
export type Taken = { readonly values: unknown[]; readonly codes: number[] }

/** Beside `onEnd` in a candidate: a value is missing, of another type, or an array. */
export const notTold = 2

/** Fields beyond the 31st share a bit: then a difference in one counts for all of them. */
export function bitOf(slot: number): number {
  return 1 << Math.min(slot, 31)
}

/** What lists have in common that ask for the same fields in the same way. */
type Shape = {
  readonly fields: number
  readonly slot: number
  readonly testSlot: number
  readonly coded: boolean
  readonly text: boolean
}
type Shelved = { readonly shape: Shape; readonly shelf: NumberShelf | TextShelf }

/** More lists than this of one shape get a shelf of their own. */
const flatMax = 32
/**
 * At the start of each shape in `#flat`: its fields, slot, test slot (or -1) and whether that is
 * coded, and where it ends.
 */
const headLength = 5

/**
 * Lists that share an equality, or have none, by shape. Most buckets are small and met at random,
 * so that each step from object to object waits for memory: shapes of a few lists lie in one flat
 * array, as `head, low, high, item, testLow, testHigh, low, …`.
 */
export class Bucket {
  readonly #flat: number[] = []
  #shelves: Shelved[] | null = null
  #size = 0

  get size(): number {
    return this.#size
  }

  add(item: number, region: Region): void {
    this.#size += 1
    const shape = shapeOf(region)
    let shelved = this.#shelves?.find((one) => same(one.shape, shape))
    if (shelved === undefined && !shape.text) {
      const [start, end] = this.#flatOf(shape)
      if (end - start - headLength < flatMax * strideOf(shape)) {
        const one = record(item, region)
        this.#flat.splice(this.#placeOf(one, start + headLength, end), 0, ...one)
        this.#moveEnds(start, strideOf(shape))
        return
      }
      shelved = this.#shelve(shape)
      for (let at = start + headLength; at < end; at += strideOf(shape)) {
        const [low, high, other, testLow = 0, testHigh = 0] = this.#flat.slice(
          at,
          at + strideOf(shape),
        )
        ;(shelved.shelf as NumberShelf).add({
          low: low!,
          high: high!,
          item: other!,
          testLow,
          testHigh,
        })
      }
      this.#flat.splice(start, end - start)
      this.#moveEnds(start, start - end)
    }
    shelved ??= this.#shelve(shape)
    if (shelved.shelf instanceof NumberShelf) shelved.shelf.add(numbers(item, region))
    else shelved.shelf.add(texts(item, region))
  }

  remove(item: number, region: Region): void {
    this.#size -= 1
    const shape = shapeOf(region)
    const shelved = this.#shelves?.find((one) => same(one.shape, shape))
    if (shelved !== undefined) {
      if (shelved.shelf instanceof NumberShelf) shelved.shelf.remove(numbers(item, region))
      else shelved.shelf.remove(texts(item, region))
      if (shelved.shelf.size === 0) this.#shelves = this.#shelves!.filter((one) => one !== shelved)
      if (this.#shelves!.length === 0) this.#shelves = null
      return
    }
    const [start, end] = this.#flatOf(shape)
    const stride = strideOf(shape)
    let at = start + headLength
    while (this.#flat[at + 2] !== item) at += stride
    this.#flat.splice(at, stride)
    this.#moveEnds(start, -stride)
    if (end - stride > start + headLength) return
    this.#flat.splice(start, headLength)
    this.#moveEnds(start, -headLength)
  }

  /**
   * Writes the lists whose region holds the row into `out`, each as four times its item, with
   * `onEnd` where the row is on an end of the stretch and `notTold` where its values cannot tell.
   * Without those that ask for none of `fields`.
   */
  candidates({ values, codes }: Taken, fields: number, out: number[]): number {
    const flat = this.#flat
    let count = 0
    // Whole numbers come out of the flat array as doubles: `| 0` takes them as they are, without a
    // check of each.
    for (let start = 0, end = 0; start < flat.length; start = end) {
      end = flat[start + 4]! | 0
      if ((flat[start]! & fields) === 0) continue
      const slot = flat[start + 1]! | 0
      const testSlot = flat[start + 2]! | 0
      const value = slot === -1 ? 0 : values[slot]
      const first = firstOf(value)
      const unsure = first === value ? 0 : notTold
      if (testSlot === -1)
        count = untested(flat, start + headLength, end, first, unsure, out, count)
      else {
        const second = secondOf(testSlot, flat[start + 3] === 1, values, codes)
        if (slot === -1) count = testedOnly(flat, start + headLength, end, second, out, count)
        else
          count = tested(
            flat,
            start + headLength,
            end,
            first,
            second,
            Number.isNaN(second) ? notTold : unsure,
            out,
            count,
          )
      }
    }
    return this.#shelves === null
      ? count
      : shelvedCandidates(this.#shelves, values, codes, fields, out, count)
  }

  /**
   * In order of their starts, and where these are all open, of their tests, so that a look through
   * them can end early.
   */
  #placeOf(one: readonly number[], start: number, end: number): number {
    let at = start
    while (
      at < end &&
      (this.#flat[at]! < one[0]! ||
        (this.#flat[at] === one[0] && one.length === 5 && this.#flat[at + 3]! < one[3]!))
    )
      at += one.length
    return at
  }

  #shelve(shape: Shape): Shelved {
    const options = { tests: shape.testSlot !== -1 }
    const shelved = { shape, shelf: shape.text ? new TextShelf(options) : new NumberShelf(options) }
    this.#shelves = [...(this.#shelves ?? []), shelved]
    return shelved
  }

  /** From where to where the shape lies, with its head. It is made at the end if there is none. */
  #flatOf(shape: Shape): readonly [number, number] {
    const flat = this.#flat
    for (let start = 0; start < flat.length; start = flat[start + 4]!) {
      if (
        flat[start] === shape.fields &&
        flat[start + 1] === shape.slot &&
        flat[start + 2] === shape.testSlot &&
        flat[start + 3] === Number(shape.coded)
      )
        return [start, flat[start + 4]!]
    }
    const start = flat.length
    flat.push(shape.fields, shape.slot, shape.testSlot, Number(shape.coded), start + headLength)
    return [start, start + headLength]
  }

  /** Something was put into the shape at `start`, or taken out. */
  #moveEnds(start: number, by: number): void {
    for (let at = start; at < this.#flat.length; at = this.#flat[at + 4]!) this.#flat[at + 4]! += by
  }
}

/**
 * The lists of a flat shape, from `start` to `end`, that have no test; written as `candidates`
 * says.
 */
function untested(
  flat: readonly number[],
  start: number,
  end: number,
  first: number,
  unsure: number,
  out: number[],
  from: number,
): number {
  let count = from
  for (let at = start; at < end; at += 3) {
    const low = flat[at]!
    if (low > first) break
    const high = flat[at + 1]!
    if (high < first) continue
    out[count++] = (flat[at + 2]! << 2) | (low < first && first < high ? unsure : unsure | onEnd)
  }
  return count
}

function tested(
  flat: readonly number[],
  start: number,
  end: number,
  first: number,
  second: number,
  unsure: number,
  out: number[],
  from: number,
): number {
  let count = from
  for (let at = start; at < end; at += 5) {
    const low = flat[at]!
    if (low > first) break
    const high = flat[at + 1]!
    if (high < first || flat[at + 3]! > second || flat[at + 4]! < second) continue
    out[count++] = (flat[at + 2]! << 2) | (low < first && first < high ? unsure : unsure | onEnd)
  }
  return count
}

/** Those that lie anywhere but for their test, in the order of which they are. */
function testedOnly(
  flat: readonly number[],
  start: number,
  end: number,
  second: number,
  out: number[],
  from: number,
): number {
  const unsure = Number.isNaN(second) ? notTold : 0
  let count = from
  for (let at = start; at < end; at += 5) {
    if (flat[at + 3]! > second) break
    if (flat[at + 4]! >= second || unsure !== 0) out[count++] = (flat[at + 2]! << 2) | unsure
  }
  return count
}

function shelvedCandidates(
  shelves: readonly Shelved[],
  values: readonly unknown[],
  codes: readonly number[],
  fields: number,
  out: number[],
  from: number,
): number {
  let count = from
  for (let which = 0; which < shelves.length; which += 1) {
    const { shape, shelf } = shelves[which]!
    if ((shape.fields & fields) === 0) continue
    const start = count
    const second = secondOf(shape.testSlot, shape.coded, values, codes)
    const value = shape.slot === -1 ? 0 : values[shape.slot]
    let exact = !Number.isNaN(second)
    if (shelf instanceof NumberShelf) {
      const first = firstOf(value)
      count = shelf.containing(first, second, out, count)
      exact &&= first === value
    } else {
      // Of another type, a value is below all texts; one that is missing counts as above.
      count = shelf.containing(
        typeof value === 'string' ? value : isScalar(value) ? '' : null,
        second,
        out,
        count,
      )
      exact &&= typeof value === 'string'
    }
    if (!exact) for (let at = start; at < count; at += 1) out[at]! |= notTold
  }
  return count
}

/** A value of another type is below or above all numbers; one that is missing counts as above. */
function firstOf(value: unknown): number {
  return typeof value === 'number'
    ? value
    : typeof value === 'boolean'
      ? Number.NEGATIVE_INFINITY
      : Number.POSITIVE_INFINITY
}

/** Not a number: the test cannot tell. */
function secondOf(
  slot: number,
  coded: boolean,
  values: readonly unknown[],
  codes: readonly number[],
): number {
  if (slot === -1) return 0
  if (coded) return codes[slot]!
  const value = values[slot]
  return typeof value === 'number' ? value : Number.NaN
}

function shapeOf({ stretch, test, fields }: Region): Shape {
  return {
    fields,
    slot: stretch?.slot ?? -1,
    testSlot: test?.slot ?? -1,
    coded: test?.coded ?? false,
    text: typeof (stretch?.low ?? stretch?.high) === 'string',
  }
}

function same(one: Shape, other: Shape): boolean {
  return (
    one.fields === other.fields &&
    one.slot === other.slot &&
    one.testSlot === other.testSlot &&
    one.coded === other.coded &&
    one.text === other.text
  )
}

function strideOf(shape: Shape): 3 | 5 {
  return shape.testSlot === -1 ? 3 : 5
}

function record(item: number, region: Region): number[] {
  const { low, high, testLow, testHigh } = numbers(item, region)
  return region.test === null ? [low, high, item] : [low, high, item, testLow, testHigh]
}

function numbers(item: number, region: Region): Interval<number, number> {
  const { low, high } = (region.stretch ?? { low: null, high: null }) as {
    readonly low: number | null
    readonly high: number | null
  }
  return {
    low: low ?? Number.NEGATIVE_INFINITY,
    high: high ?? Number.POSITIVE_INFINITY,
    item,
    ...testOf(region),
  }
}

function texts(item: number, region: Region): Interval<string, string | null> {
  const { low, high } = region.stretch as {
    readonly low: string | null
    readonly high: string | null
  }
  return { low: low ?? '', high, item, ...testOf(region) }
}

function testOf({ test }: Region): { readonly testLow: number; readonly testHigh: number } {
  return {
    testLow: test?.low ?? Number.NEGATIVE_INFINITY,
    testHigh: test?.high ?? Number.POSITIVE_INFINITY,
  }
}
