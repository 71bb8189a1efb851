import { compareText } from '#cache/predicate.ts'

/**
 * A chunk with more intervals than this is cut in two: small enough to be shifted at once, large
 * enough to scan in a straight line.
 */
const chunkMax = 32

/** Marks, in what `containing` writes, an interval of which the value is an end. */
export const onEnd = 1

/**
 * From `low` to `high`, both included, and the number of what it belongs to, which no other
 * interval of the shelf may have.
 */
export type Interval<Low, High> = {
  readonly low: Low
  readonly high: High
  readonly item: number
  /**
   * Where a second value, told with the first, has to lie, on a shelf with tests. Infinite: open.
   */
  readonly testLow: number
  readonly testHigh: number
}

/**
 * Which intervals hold a value: those that start at or below it, in order of their start and cut
 * into chunks, each with its highest end, so that a chunk which ends too early is passed over, and
 * all at the front that do are passed over at once. Of one type, whose lowest value stands for an
 * open start; `High` has a value above all for an open end. Many small flat arrays, because it is
 * memory that costs: this is read on every change.
 */
abstract class IntervalShelf<Low, High> {
  /** The numbers of an interval in a chunk, in the order of `Interval`. */
  protected readonly stride: 3 | 5
  protected readonly chunks: (Low | High | number)[][] = []
  protected readonly starts: Low[] = []
  protected readonly ends: High[] = []
  /** The highest end of a chunk and all before it. */
  protected readonly reaches: High[] = []
  #size = 0

  constructor({ tests }: { readonly tests: boolean }) {
    this.stride = tests ? 5 : 3
  }

  get size(): number {
    return this.#size
  }

  protected abstract compareLows(one: Low, other: Low): number
  protected abstract compareHighs(one: High, other: High): number

  /**
   * Writes the intervals that hold the value, and whose test holds the second one, into `out` from
   * `count` on, and returns the new count: each as four times its item, with `onEnd` where the
   * value is on an end. An open end stands for what is above all values. A second value that is not
   * a number passes every test.
   */
  abstract containing(value: Low | High, second: number, out: number[], count: number): number

  add(interval: Interval<Low, High>): void {
    this.#size += 1
    if (this.chunks.length === 0) this.#insertChunk(0, [], interval)
    const which = this.#chunkOf(interval)
    const chunk = this.chunks[which]!
    const { low, high, item, testLow, testHigh } = interval
    chunk.splice(
      this.#search(chunk, interval),
      0,
      ...(this.stride === 3 ? [low, high, item] : [low, high, item, testLow, testHigh]),
    )
    this.starts[which] = chunk[0] as Low
    if (this.compareHighs(interval.high, this.ends[which]!) > 0) this.ends[which] = interval.high
    if (chunk.length > chunkMax * this.stride) this.#cut(which)
    this.#spread(which)
  }

  /** It must be one that was added. */
  remove(interval: Interval<Low, High>): void {
    this.#size -= 1
    const which = this.#chunkOf(interval)
    const chunk = this.chunks[which]!
    chunk.splice(this.#search(chunk, interval), this.stride)
    if (chunk.length > 0) this.#measure(which)
    else
      for (const column of [this.chunks, this.starts, this.ends, this.reaches])
        column.splice(which, 1)
    this.#spread(which)
  }

  #insertChunk(
    which: number,
    chunk: (Low | High | number)[],
    first: { readonly low: Low; readonly high: High },
  ): void {
    this.chunks.splice(which, 0, chunk)
    this.starts.splice(which, 0, first.low)
    this.ends.splice(which, 0, first.high)
    this.reaches.splice(which, 0, first.high)
  }

  #cut(which: number): void {
    const chunk = this.chunks[which]!
    const upper = chunk.splice((chunkMax >> 1) * this.stride)
    this.#insertChunk(which + 1, upper, { low: upper[0] as Low, high: upper[1] as High })
    this.#measure(which)
    this.#measure(which + 1)
  }

  /** The ends changed from this chunk on. */
  #spread(from: number): void {
    for (let which = from; which < this.chunks.length; which += 1) {
      const end = this.ends[which]!
      const before = which === 0 ? end : this.reaches[which - 1]!
      this.reaches[which] = this.compareHighs(before, end) > 0 ? before : end
    }
  }

  #measure(which: number): void {
    const chunk = this.chunks[which]!
    this.starts[which] = chunk[0] as Low
    let highest = chunk[1] as High
    for (let at = this.stride + 1; at < chunk.length; at += this.stride)
      if (this.compareHighs(chunk[at] as High, highest) > 0) highest = chunk[at] as High
    this.ends[which] = highest
  }

  /** The last chunk that begins at or before the interval, or the first. */
  #chunkOf(interval: Interval<Low, High>): number {
    let low = 0
    let high = this.chunks.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#compare(this.chunks[middle]!, 0, interval) <= 0) low = middle
      else high = middle - 1
    }
    return low
  }

  /** The first position in the chunk that is not before the interval. */
  #search(chunk: readonly (Low | High | number)[], interval: Interval<Low, High>): number {
    let low = 0
    let high = chunk.length / this.stride
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#compare(chunk, middle * this.stride, interval) < 0) low = middle + 1
      else high = middle
    }
    return low * this.stride
  }

  /**
   * Equal starts go by their end, so that chunks of many open starts still differ in how far they
   * reach.
   */
  #compare(
    chunk: readonly (Low | High | number)[],
    at: number,
    interval: Interval<Low, High>,
  ): number {
    return (
      this.compareLows(chunk[at] as Low, interval.low) ||
      this.compareHighs(chunk[at + 1] as High, interval.high) ||
      (chunk[at + 2] as number) - interval.item
    )
  }
}

/** Open ends are `-Infinity` and `Infinity`. */
export class NumberShelf extends IntervalShelf<number, number> {
  protected override compareLows(one: number, other: number): number {
    return one < other ? -1 : one > other ? 1 : 0
  }

  protected override compareHighs(one: number, other: number): number {
    return one < other ? -1 : one > other ? 1 : 0
  }

  override containing(value: number, second: number, out: number[], count: number): number {
    const { chunks, starts, ends, stride } = this
    let next = count
    for (let which = firstAtLeast(this.reaches, value); which < chunks.length; which += 1) {
      if (starts[which]! > value) break
      if (ends[which]! < value) continue
      const chunk = chunks[which]!
      for (let at = 0; at < chunk.length; at += stride) {
        const low = chunk[at]!
        if (low > value) break
        const high = chunk[at + 1]!
        if (high < value || (stride === 5 && (chunk[at + 3]! > second || chunk[at + 4]! < second)))
          continue
        out[next++] = (chunk[at + 2]! << 2) | (low < value && value < high ? 0 : onEnd)
      }
    }
    return next
  }
}

/** The first position in ascending numbers that is not below the value. */
function firstAtLeast(numbers: readonly number[], value: number): number {
  let low = 0
  let high = numbers.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (numbers[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}

/** Text by code point. An open start is the empty text, an open end null. */
export class TextShelf extends IntervalShelf<string, string | null> {
  protected override compareLows(one: string, other: string): number {
    return compareText(one, other)
  }

  protected override compareHighs(one: string | null, other: string | null): number {
    if (one === null || other === null) return one === other ? 0 : one === null ? 1 : -1
    return compareText(one, other)
  }

  override containing(value: string | null, second: number, out: number[], count: number): number {
    const { chunks, starts, ends, stride } = this
    let next = count
    for (let which = 0; which < chunks.length; which += 1) {
      if (value !== null && compareText(starts[which]!, value) > 0) break
      if (this.compareHighs(ends[which]!, value) < 0) continue
      const chunk = chunks[which]!
      for (let at = 0; at < chunk.length; at += stride) {
        const low = value === null ? -1 : compareText(chunk[at] as string, value)
        if (low > 0) break
        const high = this.compareHighs(chunk[at + 1] as string | null, value)
        if (
          high < 0 ||
          (stride === 5 &&
            ((chunk[at + 3] as number) > second || (chunk[at + 4] as number) < second))
        )
          continue
        out[next++] = ((chunk[at + 2] as number) << 2) | (low < 0 && high > 0 ? 0 : onEnd)
      }
    }
    return next
  }
}
