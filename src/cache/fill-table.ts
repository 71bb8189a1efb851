import type { Change } from '#change-feed/change.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import type { CacheConfig, Fill, Waiter } from '#cache/cache-state.ts'
import { DependencyIndex } from '#cache/dependency.ts'

/** Fills for parts of others that may run for each fill that may. */
const partsPerFillMax = 4
/**
 * A fill without waiters does not count after this: its loader may wait for something that has no
 * deadline.
 */
const abandonedMs = 30_000

/** The running fills of one node, bounded in number, and which of them new readers may join. */
export class FillTable {
  readonly #config: CacheConfig
  /** In the order in which they began. */
  readonly #fills = new Map<number, Fill>()
  readonly #joinable = new Map<string, Fill>()
  readonly #index: DependencyIndex<number>
  #parts = 0
  #lastId = 0

  constructor(config: CacheConfig) {
    this.#config = config
    this.#index = new DependencyIndex({ ignoreBefore: !config.rules.rowBefore })
  }

  get lastId(): number {
    return this.#lastId
  }

  get(id: number): Fill | undefined {
    return this.#fills.get(id)
  }

  all(): Iterable<Fill> {
    return this.#fills.values()
  }

  joinable(key: string): Fill | undefined {
    return this.#joinable.get(key)
  }

  /**
   * Whether another fill may begin. Parts have a bound of their own: fills that wait for parts must
   * not keep these from beginning.
   */
  hasRoom(waiter: Waiter, now: number): boolean {
    if (!this.#isFull(waiter)) return true
    this.#endAbandoned(now)
    return !this.#isFull(waiter)
  }

  /** Begins a fill for `waiter`; a running one of the same key can no longer be joined. */
  begin(
    waiter: Waiter,
    at: { readonly now: number; readonly batch: number; readonly cursor: Snapshot },
  ): Fill {
    const running = this.#joinable.get(waiter.key)
    if (running !== undefined) this.#detach(running)
    this.#lastId += 1
    const fill: Fill = {
      id: this.#lastId,
      key: waiter.key,
      startedAtMs: at.now,
      batch: at.batch,
      dependencies: waiter.dependencies,
      waiters: [waiter],
      part: waiter.part,
      cursor: at.cursor,
      asOfMs: at.now,
      joinable: true,
    }
    if (fill.part) this.#parts += 1
    this.#fills.set(fill.id, fill)
    this.#joinable.set(fill.key, fill)
    this.#index.add(fill.id, fill.dependencies)
    return fill
  }

  end(id: number): Fill | undefined {
    const fill = this.#fills.get(id)
    if (fill === undefined) return undefined
    this.#detach(fill)
    this.#fills.delete(id)
    if (fill.part) this.#parts -= 1
    return fill
  }

  detachTouched(change: Change): void {
    for (const id of this.#index.touched(change)) this.#detach(this.#fills.get(id)!)
  }

  detachAll(): void {
    for (const fill of this.#joinable.values()) this.#detach(fill)
  }

  /** Current waiters stay on this fill; new readers start another. */
  #detach(fill: Fill): void {
    if (!fill.joinable) return
    fill.joinable = false
    this.#index.remove(fill.id, fill.dependencies)
    if (this.#joinable.get(fill.key) === fill) this.#joinable.delete(fill.key)
  }

  #isFull({ part }: Waiter): boolean {
    const { fillsMax } = this.#config
    return part
      ? this.#parts >= fillsMax * partsPerFillMax
      : this.#fills.size - this.#parts >= fillsMax
  }

  #endAbandoned(now: number): void {
    for (const fill of this.#fills.values()) {
      if (fill.startedAtMs > now - abandonedMs) return
      if (fill.waiters.length === 0) this.end(fill.id)
    }
  }
}
