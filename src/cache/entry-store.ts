import type { Change } from '#change-feed/change.ts'
import { visible } from '#change-feed/snapshot.ts'
import type { CacheConfig, Entry } from '#cache/cache-state.ts'
import { DependencyIndex } from '#cache/dependency.ts'

/**
 * The kept values of one node, bounded in bytes, with the index that finds those that a change
 * touches. Eviction follows CLOCK (Corbató, *A paging experiment with the Multics system*, 1968):
 * nearly as good as least recently used, and a hit only sets a flag.
 */
export class EntryStore<V> {
  readonly #config: CacheConfig
  /** In eviction order. */
  readonly #entries = new Map<string, Entry<V>>()
  readonly #index: DependencyIndex<string>
  #bytes = 0

  constructor(config: CacheConfig) {
    this.#config = config
    this.#index = new DependencyIndex({ ignoreBefore: !config.rules.rowBefore })
  }

  get size(): number {
    return this.#entries.size
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Lists that any change in their bucket of the index touches, because there are too many. */
  get unchecked(): number {
    return this.#index.unchecked
  }

  get(key: string): Entry<V> | undefined {
    return this.#entries.get(key)
  }

  /** Keeps the entry in place of an older one; returns how many others had to go for it. */
  keep(key: string, entry: Entry<V>): number {
    this.#drop(key)
    if (entry.bytes > this.#config.entryBytesMax) return 0
    this.#entries.set(key, entry)
    this.#index.add(key, entry.dependencies)
    this.#bytes += entry.bytes
    return this.#evict()
  }

  /** Drops the entries that the change touches and that were read before it; returns how many. */
  invalidate(change: Change): number {
    let dropped = 0
    for (const key of this.#index.touched(change)) {
      if (visible(this.#entries.get(key)!.snapshot, change.xid)) continue
      this.#drop(key)
      dropped += 1
    }
    return dropped
  }

  clear(): void {
    this.#entries.clear()
    this.#index.clear()
    this.#bytes = 0
  }

  /** The oldest entry goes, unless it was used since it last came to the front. */
  #evict(): number {
    let evicted = 0
    for (const [key, entry] of this.#entries) {
      if (this.#bytes <= this.#config.bytesMax) break
      if (entry.used) {
        entry.used = false
        this.#entries.delete(key)
        this.#entries.set(key, entry)
      } else {
        this.#drop(key)
        evicted += 1
      }
    }
    return evicted
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    this.#entries.delete(key)
    this.#index.remove(key, entry.dependencies)
    this.#bytes -= entry.bytes
  }
}
