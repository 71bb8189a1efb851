import type { Epoch } from '#change-feed/epoch.ts'
import type { FeedEffect } from '#change-feed/feed-core.ts'
import { everyRule } from '#change-feed/rules.ts'
import type { Rules } from '#change-feed/rules.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import type { Token } from '#change-feed/token.ts'
import type { Dependency } from '#cache/dependency.ts'

export type CacheConfig = {
  /** `L`, the same as the change feed's. */
  readonly leaseMs: number
  /** How long past the lease a value may be served that is marked stale. */
  readonly staleMs: number
  /** How long a reader waits for the lease to be renewed before it gets a stale value. */
  readonly leaseWaitMs: number
  readonly bytesMax: number
  /** Values larger than this are returned and not kept. */
  readonly entryBytesMax: number
  /**
   * Fills that run at once for readers. Further readers are refused: what the database cannot take
   * must not queue. Fills for parts of other fills do not count.
   */
  readonly fillsMax: number
  /** Readers that wait at once. */
  readonly waitersMax: number
  /** There is a second level to ask before a fill. */
  readonly secondLevel: boolean
  /** Fills may read from a replica. */
  readonly replica: boolean
  readonly rules: Rules
}

export const cacheDefaults: CacheConfig = {
  leaseMs: 1_000,
  staleMs: 600_000,
  leaseWaitMs: 100,
  bytesMax: 64 * 1024 * 1024,
  entryBytesMax: 4 * 1024 * 1024,
  fillsMax: 200,
  waitersMax: 10_000,
  secondLevel: false,
  replica: false,
  rules: everyRule,
}

export type Entry<V> = {
  /** Set by a hit, cleared when eviction passes. */
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
  /** A running fill asks for it. */
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
  /** The snapshot that the node had applied when the loading began. */
  cursor: Snapshot
  /** The value was true at some time after this. */
  asOfMs: number
  joinable: boolean
}

export type CacheCounts = {
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
  /** Made of a value that was marked stale: it is returned, marked too, and not kept. */
  readonly stale: boolean
}

/** A value with what is known about it. */
export type Known<V> = {
  readonly value: V
  readonly epoch: Epoch
  readonly snapshot: Snapshot
  readonly dependencies: readonly Dependency[]
  readonly asOfMs: number
}

export type RefusalReason = 'deadline' | 'away' | 'token' | 'overload'

export type CacheResult<V> =
  | ({ readonly kind: 'hit' | 'filled' | 'stale' } & Known<V>)
  /** The fill itself failed, with its error. */
  | { readonly kind: 'failed'; readonly error: unknown }
  /**
   * `deadline`: nothing that may be served came in time. `away`: nor will it, since the database
   * does not respond. `token`: the write cannot be seen from here. `overload`: refused at once.
   */
  | { readonly kind: 'refused'; readonly reason: RefusalReason }

export type CacheEffect<V> =
  | { readonly kind: 'result'; readonly request: number; readonly result: CacheResult<V> }
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
