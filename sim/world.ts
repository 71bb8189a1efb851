/**
 * Virtual time: a queue of what happens when. Ties happen in the order in which they were asked
 * for.
 */
export class World {
  #now = 0
  #count = 0
  readonly #heap: { readonly at: number; readonly order: number; readonly run: () => void }[] = []
  readonly #trace: string[] | null

  constructor(options: { readonly trace: boolean }) {
    this.#trace = options.trace ? [] : null
  }

  get now(): number {
    return this.#now
  }

  get steps(): number {
    return this.#count
  }

  get lines(): readonly string[] {
    return this.#trace ?? []
  }

  /** `what` is made only if a trace is kept. */
  log(who: string, what: () => string): void {
    this.#trace?.push(`${this.#now.toFixed(1).padStart(8)}  ${who.padEnd(9)} ${what()}`)
  }

  after(delayMs: number, run: () => void): void {
    this.at(this.#now + delayMs, run)
  }

  at(at: number, run: () => void): void {
    const heap = this.#heap
    const item = { at: Math.max(at, this.#now), order: (this.#count += 1), run }
    let place = heap.push(item) - 1
    while (place > 0) {
      const parent = (place - 1) >> 1
      if (!sooner(item, heap[parent]!)) break
      heap[place] = heap[parent]!
      place = parent
    }
    heap[place] = item
  }

  runUntil(end: number): void {
    const heap = this.#heap
    while (heap.length > 0 && heap[0]!.at <= end) {
      const next = heap[0]!
      const last = heap.pop()!
      if (heap.length > 0) this.#sink(last)
      this.#now = next.at
      next.run()
    }
    this.#now = end
  }

  #sink(item: { readonly at: number; readonly order: number; readonly run: () => void }): void {
    const heap = this.#heap
    let place = 0
    for (;;) {
      let child = place * 2 + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && sooner(heap[child + 1]!, heap[child]!)) child += 1
      if (!sooner(heap[child]!, item)) break
      heap[place] = heap[child]!
      place = child
    }
    heap[place] = item
  }
}

function sooner(
  one: { readonly at: number; readonly order: number },
  other: { readonly at: number; readonly order: number },
): boolean {
  return one.at < other.at || (one.at === other.at && one.order < other.order)
}
