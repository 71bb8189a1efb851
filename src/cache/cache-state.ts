import type { Rule } from '#change-feed/change.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import type { FeedEffect } from '#change-feed/feed-core.ts'
import { Ring } from '#change-feed/ring.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import type { Token } from '#change-feed/token.ts'
import { DependencyIndex } from '#cache/dependency.ts'
import type { Dependency } from '#cache/dependency.ts'

export type CacheConfig = {
  /** `L`, the same as the change feed's. */
  readonly leaseMs: number
  /** How long past the lease an answer may be given that is marked stale. */
  readonly staleMs: number
  /** How long a reader waits for the lease to be renewed before it is answered stale. */
  readonly patienceMs: number
  readonly bytesMax: number
  /** Values larger than this are answered and not kept. */
  readonly entryBytesMax: number
  /**
   * Fills that run at once for readers. Beyond it they are turned away: what the database cannot
   * take must not queue. Those for parts of what is being filled do not count.
   */
  readonly fillsMax: number
  /** Readers that wait at once. */
  readonly waitersMax: number
  /** There is a second level to ask before a fill. */
  readonly secondLevel: boolean
  /** Fills may read from a replica. */
  readonly replica: boolean
  readonly without?: Rule
}

export const cacheDefaults: CacheConfig = {
  leaseMs: 1_000,
  staleMs: 600_000,
  patienceMs: 100,
  bytesMax: 64 * 1024 * 1024,
  entryBytesMax: 4 * 1024 * 1024,
  fillsMax: 200,
  waitersMax: 10_000,
  secondLevel: false,
  replica: false,
}

export type Entry<V> = {
  /** Since it was last looked at for eviction. */
  used?: boolean
  readonly value: V
  readonly bytes: number
  /**
   * What the value was read at. A change is newer than it if and only if it is not visible here.
   */
  readonly snapshot: Snapshot
  readonly dependencies: readonly Dependency[]
}

/** An entry as it travels to the second level and back. */
export type Envelope<V> = Entry<V> & { readonly epoch: Epoch }

export type Waiter = {
  readonly request: number
  readonly key: string
  readonly arrivedAtMs: number
  readonly deadlineMs: number
  readonly token: Token | null
  /** Known before the fill: a change to one of them detaches it. */
  readonly dependencies: readonly Dependency[]
  /** A fill that runs asks for it. */
  readonly part: boolean
  attempts: number
  /** The feed's batch when it joined its fill. */
  batch: number
  /** Parked until a poll that started at or after this. */
  pollFromMs: number
}

export type Fill = {
  readonly id: number
  readonly key: string
  readonly startedAtMs: number
  readonly batch: number
  readonly dependencies: readonly Dependency[]
  readonly waiters: Waiter[]
  /** It was begun for another fill. */
  readonly part: boolean
  /** What the node had applied when the loading began. */
  cursor: Snapshot
  /** The value was true at some time after this. */
  asOfMs: number
  joinable: boolean
}

/**
 * Advanced in place by `stepCache`, which owns it: a copy of a million entries per event would be
 * absurd.
 */
export type CacheState<V> = {
  epoch: Epoch | null
  cursor: Snapshot
  lsn: number
  ring: Ring
  /** Counts what the feed delivered. */
  batch: number
  polledAtMs: number
  provenAtMs: number
  /** The last poll failed. */
  lost: boolean
  /** In the order in which they are looked at for eviction. */
  readonly entries: Map<string, Entry<V>>
  bytes: number
  readonly index: DependencyIndex<string>
  readonly joinable: Map<string, Fill>
  readonly fills: Map<number, Fill>
  /** Of `fills`, those that other fills wait for. */
  parts: number
  readonly fillIndex: DependencyIndex<number>
  readonly parked: Set<Waiter>
  waiters: number
  lastFill: number
  readonly counts: {
    hits: number
    misses: number
    joined: number
    stale: number
    invalidated: number
    evicted: number
    fenced: number
    flushes: number
    refused: number
    second: number
  }
}

export type CacheEvent<V> =
  | {
      readonly kind: 'get'
      readonly request: number
      readonly key: string
      readonly token: Token | null
      readonly dependencies: readonly Dependency[]
      readonly deadlineMs: number
      readonly part: boolean
    }
  | Loaded<V>
  | { readonly kind: 'fillFailed'; readonly fill: number; readonly error: unknown }
  | { readonly kind: 'second'; readonly fill: number; readonly found: Envelope<V> | null }
  | Extract<FeedEffect, { kind: 'flush' | 'apply' | 'lease' | 'lost' }>
  /** Every few milliseconds while readers wait. */
  | { readonly kind: 'tick' }

export type Loaded<V> = {
  readonly kind: 'filled'
  readonly fill: number
  readonly value: V
  readonly bytes: number
  readonly epoch: Epoch | null
  /**
   * Null: it came from a replica that had reached the position asked for, so it is at least as new
   * as the cursor then.
   */
  readonly snapshot: Snapshot | null
  readonly dependencies: readonly Dependency[]
  /** For a value made of cached ones: the least of their `asOfMs`. Null: read just now. */
  readonly asOfMs: number | null
  /** Made of a value that was marked stale: it is answered, marked too, and not kept. */
  readonly stale: boolean
}

export type Answer<V> =
  | {
      readonly kind: 'hit' | 'filled' | 'stale'
      readonly value: V
      readonly epoch: Epoch
      readonly snapshot: Snapshot
      readonly dependencies: readonly Dependency[]
      readonly asOfMs: number
    }
  /** The fill itself failed, with its error. */
  | { readonly kind: 'failed'; readonly error: unknown }
  /**
   * `deadline`: nothing that may be answered came in time. `away`: nor will it, since the database
   * does not answer. `token`: the write is not to be seen from here. `overload`: turned away at
   * once.
   */
  | { readonly kind: 'refused'; readonly reason: 'deadline' | 'away' | 'token' | 'overload' }

export type CacheEffect<V> =
  | { readonly kind: 'answer'; readonly request: number; readonly answer: Answer<V> }
  /**
   * Load the value. From a replica only if it has replayed `lsn` in `epoch`; else from the primary.
   */
  | {
      readonly kind: 'load'
      readonly fill: number
      readonly key: string
      readonly request: number
      readonly replica: { readonly lsn: number; readonly epoch: Epoch } | null
    }
  | { readonly kind: 'secondGet'; readonly fill: number; readonly key: string }
  | { readonly kind: 'secondPut'; readonly key: string; readonly envelope: Envelope<V> }
  /** Readers need a poll that starts now. */
  | { readonly kind: 'want' }

export function startCache<V>(config: CacheConfig): CacheState<V> {
  const nothing: Snapshot = { xmin: 0, xmax: 0, xip: [] }
  const options = { ignoreBefore: config.without === 'R12 the row before counts' }
  return {
    epoch: null,
    cursor: nothing,
    lsn: 0,
    ring: new Ring(nothing),
    batch: 0,
    polledAtMs: Number.NEGATIVE_INFINITY,
    provenAtMs: Number.NEGATIVE_INFINITY,
    lost: false,
    entries: new Map(),
    bytes: 0,
    index: new DependencyIndex(options),
    joinable: new Map(),
    fills: new Map(),
    parts: 0,
    fillIndex: new DependencyIndex(options),
    parked: new Set(),
    waiters: 0,
    lastFill: 0,
    counts: {
      hits: 0,
      misses: 0,
      joined: 0,
      stale: 0,
      invalidated: 0,
      evicted: 0,
      fenced: 0,
      flushes: 0,
      refused: 0,
      second: 0,
    },
  }
}
