import type { ItemRow, Op } from './tables.ts'

type Segment = { readonly row: ItemRow | null; readonly fromMs: number; untilMs: number }

/**
 * What every row truly held and when: the authoritative primary's committed values over real time.
 * It reads the database model only, and knows nothing of caches.
 *
 * A value counts as true from the moment its commit record was written, because a standby may show
 * it then, to the moment when the next one could be seen by others.
 */
export class Truth {
  readonly #keys = new Map<string, Segment[]>()
  readonly #known: readonly string[]
  readonly #written = new Map<string, number>()

  constructor(keys: readonly string[]) {
    this.#known = keys
    for (const key of keys)
      this.#keys.set(key, [{ row: null, fromMs: 0, untilMs: Number.POSITIVE_INFINITY }])
  }

  get keys(): readonly string[] {
    return this.#known
  }

  /** A commit record with these was written; only a standby can see it yet. */
  written(ops: readonly Op[], nowMs: number): void {
    for (const op of ops)
      if (op.op === 'item') this.#written.set(op.row?.value ?? `no ${op.key}`, nowMs)
  }

  /**
   * The primary shows these rows now: after a commit, or because it recovered, or because another
   * took over.
   */
  revealed(items: ReadonlyMap<string, ItemRow>, nowMs: number): void {
    for (const key of this.#known) {
      const segments = this.#keys.get(key)!
      const last = segments.at(-1)!
      const row = items.get(key) ?? null
      if (same(last.row, row)) continue
      last.untilMs = nowMs
      // A value that comes back after a lost commit is true again from now only.
      const again = segments.some(
        (segment) => segment.row !== null && segment.row.value === row?.value,
      )
      const writtenAtMs = this.#written.get(row?.value ?? `no ${key}`) ?? nowMs
      segments.push({
        row,
        fromMs: again ? nowMs : Math.min(writtenAtMs, nowMs),
        untilMs: Number.POSITIVE_INFINITY,
      })
    }
  }

  /** True if the row was such at some time between the two. */
  was(
    key: string,
    such: (row: ItemRow | null) => boolean,
    fromMs: number,
    untilMs: number,
  ): boolean {
    const segments = this.#keys.get(key)!
    for (let at = segments.length - 1; at >= 0; at -= 1) {
      const segment = segments[at]!
      if (segment.untilMs < fromMs) return false
      if (segment.fromMs <= untilMs && such(segment.row)) return true
    }
    return false
  }

  /** The instants at which anything changed between the two, the first of them included. */
  instants(fromMs: number, untilMs: number): number[] {
    const found = new Set([Math.max(0, fromMs)])
    for (const segments of this.#keys.values()) {
      for (const segment of segments)
        if (segment.fromMs > fromMs && segment.fromMs <= untilMs) found.add(segment.fromMs)
      for (const segment of segments)
        if (segment.untilMs > fromMs && segment.untilMs <= untilMs) found.add(segment.untilMs)
    }
    return [...found].sort((one, other) => one - other)
  }

  /** The row at an instant, as the primary showed it. */
  at(key: string, atMs: number): ItemRow | null {
    const segments = this.#keys.get(key)!
    for (const segment of segments) if (atMs < segment.untilMs) return segment.row
    return null
  }

  history(key: string): string {
    return this.#keys
      .get(key)!
      .map(
        (segment) =>
          `${segment.row === null ? 'nothing' : `${segment.row.value}/g${segment.row.group}`} ` +
          `${segment.fromMs.toFixed(1)}–${untilText(segment.untilMs)}`,
      )
      .join(', ')
  }
}

function untilText(untilMs: number): string {
  return Number.isFinite(untilMs) ? untilMs.toFixed(1) : ''
}

function same(one: ItemRow | null, other: ItemRow | null): boolean {
  return (
    one === other ||
    (one !== null && other !== null && one.value === other.value && one.group === other.group)
  )
}
