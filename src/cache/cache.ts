import type { ChangeFeed } from '#change-feed/feed.ts'
import { tokenSeen } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { CacheMachine } from '#cache/cache-machine.ts'
import { cacheDefaults } from '#cache/cache-state.ts'
import type {
  CacheConfig,
  CacheCounts,
  CacheEffect,
  CacheEvent,
  CacheResult,
  Envelope,
} from '#cache/cache-state.ts'
import { bytesOf as dependencyBytes } from '#cache/dependency.ts'
import type { Dependency } from '#cache/dependency.ts'
import type { Codec } from '#cache/envelope.ts'
import {
  CacheDeadlineError,
  CacheOverloadError,
  DatabaseAwayError,
  TokenNotSeenError,
} from '#cache/errors.ts'
import { FillContext } from '#cache/fill.ts'
import type { Part, ValueOptions } from '#cache/fill.ts'
import { SealedLevel } from '#cache/sealed-level.ts'
import type { SealedLevelOptions } from '#cache/sealed-level.ts'
import type { Database } from '#database/database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'

export type CacheOptions = {
  readonly feed: ChangeFeed
  /** Where values are loaded from: the writable primary. */
  readonly database: Database
  /**
   * Hot standbys that loads may go to; they fall back to the primary while a standby lags, or does
   * not respond within a deadline that should be short.
   */
  readonly replica?: Database
  /** Memory shared with the other nodes, not trusted, for values that have a `codec`. */
  readonly secondLevel?: SealedLevelOptions
  /** `leaseMs` comes from the feed. */
  readonly config?: Partial<Omit<CacheConfig, 'leaseMs' | 'secondLevel' | 'replica' | 'rules'>>
}

export type GetOptions<V = unknown> = ValueOptions<V> & {
  /** A write that the value must show, from whichever node it came (R7). */
  readonly since?: Token | null
  readonly timeoutMs?: number
}

export type Cached<V> = {
  readonly value: V
  /**
   * `stale`: the lease is over, so the value may have changed since. Mark it for the reader.
   */
  readonly state: 'hit' | 'filled' | 'stale'
  /** How long ago, at most, the value was known to be true. */
  readonly ageMs: number
}

/** The greatest age of a stale value, in milliseconds; null: it is fresh. */
export function staleMsOf({ state, ageMs }: Cached<unknown>): number | null {
  return state === 'stale' ? ageMs : null
}

type Loader = {
  readonly load: (context: FillContext) => Promise<unknown>
  readonly bytesOf: (value: unknown) => number
  readonly dependencies: readonly Dependency[]
  readonly codec: Codec<unknown> | null
}
type Request = {
  readonly resolve: (part: Part<unknown>) => void
  readonly reject: (error: unknown) => void
  readonly loader: Loader
}

const timeoutMsDefault = 5_000
/** A replica that did not respond is left alone for so long. */
const replicaPauseMs = 5_000
/** How often waiting readers are checked, and only while there are some. */
const tickMs = 20
/** Memory of an entry besides its key, its value and its dependencies. */
const entryBytes = 400

/**
 * A cache that is never wrong beyond the lease. Values are kept by key and dropped when a row that
 * they are made of changes, by any writer on any node; they never expire otherwise.
 * Values are shared: do not change them.
 */
export class Cache {
  readonly config: CacheConfig
  readonly #options: CacheOptions
  readonly #machine: CacheMachine<unknown>
  readonly #secondLevel: SealedLevel | null
  readonly #requests = new Map<number, Request>()
  readonly #queue: CacheEvent<unknown>[] = []
  readonly #subscription: Disposable
  /** The codecs of values that were just loaded and may go to the second level. */
  readonly #codecs = new WeakMap<object, Codec<unknown>>()
  #lastRequest = 0
  #busy = false
  #ticking: NodeJS.Timeout | null = null
  #replicaFromMs = Number.NEGATIVE_INFINITY

  constructor(options: CacheOptions) {
    this.#options = options
    this.config = {
      ...cacheDefaults,
      ...options.config,
      leaseMs: options.feed.config.leaseMs,
      replica: options.replica !== undefined,
      secondLevel: options.secondLevel !== undefined,
    }
    this.#secondLevel =
      options.secondLevel === undefined ? null : new SealedLevel(options.secondLevel)
    this.#machine = new CacheMachine(this.config)
    this.#subscription = options.feed.subscribe((news) => this.#step(news))
  }

  /**
   * The value of `key`, loaded by `fill` if it is not known. Of many readers at once one loads.
   * Rejects with what `fill` rejected with, `CacheDeadlineError`, `DatabaseAwayError`,
   * `CacheOverloadError` or `TokenNotSeenError`.
   */
  async get<V>(
    key: string,
    fill: (context: FillContext) => Promise<V>,
    options: GetOptions<V> = {},
  ): Promise<Cached<V>> {
    const now = this.#options.feed.nowMs()
    if (options.since === undefined || options.since === null) {
      const entry = this.#machine.hit(key, now)
      if (entry !== undefined)
        return {
          value: entry.value as V,
          state: 'hit',
          ageMs: this.#ageMs(now, Number.POSITIVE_INFINITY),
        }
    }
    const part = await this.#ask(key, fill, { ...options, part: false }, now)
    return {
      value: part.value,
      state: part.kind,
      ageMs: this.#ageMs(this.#options.feed.nowMs(), part.asOfMs),
    }
  }

  /** The clock of `peek`: a path that looks several times reads it once. */
  nowMs(): number {
    return this.#options.feed.nowMs()
  }

  /**
   * The value if it is here and shows the write that `since` names, at once; for paths that cannot
   * wait. While the database is away it may be stale: `staleForMs` of the same moment says so.
   */
  peek(key: string, nowMs: number, since: Token | null = null): unknown {
    const { epoch, cursor } = this.#machine
    if (since !== null && (epoch === null || tokenSeen(since, epoch, cursor) !== 'seen'))
      return undefined
    return (this.#machine.hit(key, nowMs) ?? this.#machine.staleHit(key, nowMs))?.value
  }

  /** The greatest age of what `peek` returns once the lease is over; null: it is fresh. */
  staleForMs(nowMs: number): number | null {
    return this.#machine.leaseHolds(nowMs) ? null : this.#ageMs(nowMs, Number.POSITIVE_INFINITY)
  }

  /** True while hits are fresh. */
  get leased(): boolean {
    return this.#machine.leaseHolds(this.#options.feed.nowMs())
  }

  /** Which of its optional helpers cannot be reached; it does without them. */
  get missing(): { readonly replica: boolean; readonly secondLevel: boolean } {
    return {
      replica: this.#options.feed.nowMs() < this.#replicaFromMs,
      secondLevel: this.#secondLevel?.connected === false,
    }
  }

  /** True while entries may be served, fresh or stale. */
  get canServe(): boolean {
    const { entries } = this.#machine
    return entries.size > 0 && !this.#machine.isTooStale(this.#options.feed.nowMs())
  }

  get counts(): CacheCounts & {
    readonly entries: number
    readonly bytes: number
    readonly waiting: number
    readonly unchecked: number
  } {
    return {
      ...this.#machine.counts,
      entries: this.#machine.entries.size,
      bytes: this.#machine.entries.bytes,
      waiting: this.#machine.waiting,
      unchecked: this.#machine.entries.unchecked,
    }
  }

  /** Refuses the readers that still wait. */
  close(): void {
    this.#subscription[Symbol.dispose]()
    if (this.#ticking !== null) clearInterval(this.#ticking)
    for (const request of this.#requests.values())
      request.reject(new CacheDeadlineError('The node is stopping; ask another.'))
    this.#requests.clear()
  }

  #ageMs(now: number, asOfMs: number): number {
    return Math.max(
      0,
      now -
        Math.min(
          asOfMs === Number.POSITIVE_INFINITY ? this.#machine.polledAtMs : asOfMs,
          this.#machine.provenAtMs,
        ),
    )
  }

  async #ask<V>(
    key: string,
    fill: (context: FillContext) => Promise<V>,
    options: GetOptions<V> & { readonly part: boolean },
    now: number,
  ): Promise<Part<V>> {
    const {
      since = null,
      dependencies = [],
      timeoutMs = timeoutMsDefault,
      bytesOf = jsonBytes,
      part,
    } = options
    return new Promise((resolve, reject) => {
      const request = (this.#lastRequest += 1)
      const loader: Loader = {
        load: fill,
        bytesOf: bytesOf as (value: unknown) => number,
        dependencies,
        codec: (options.codec as Codec<unknown> | undefined) ?? null,
      }
      this.#requests.set(request, {
        resolve: resolve as (part: Part<unknown>) => void,
        reject,
        loader,
      })
      this.#step({
        kind: 'get',
        request,
        key,
        token: since,
        dependencies,
        deadlineMs: now + timeoutMs,
        part,
      })
    })
  }

  #step(event: CacheEvent<unknown>): void {
    this.#queue.push(event)
    if (this.#busy) return
    this.#busy = true
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const effects = this.#machine.step(next, this.#options.feed.nowMs())
        for (const effect of effects) this.#perform(effect)
      }
    } finally {
      this.#busy = false
    }
    this.#tick()
  }

  #tick(): void {
    if (this.#machine.waiting > 0)
      this.#ticking ??= setInterval(() => this.#step({ kind: 'tick' }), tickMs)
    else if (this.#ticking !== null) {
      clearInterval(this.#ticking)
      this.#ticking = null
    }
  }

  #perform(effect: CacheEffect<unknown>): void {
    switch (effect.kind) {
      case 'result':
        this.#finish(effect.request, effect.result)
        return
      case 'load':
        void this.#load(effect)
        return
      case 'want':
        this.#options.feed.want()
        return
      case 'secondGet':
        void this.#askSecond(effect.fill, effect.key)
        return
      case 'secondPut': {
        const { value } = effect.envelope
        const codec =
          typeof value === 'object' && value !== null ? this.#codecs.get(value) : undefined
        if (codec !== undefined) void this.#putSecond(effect.key, effect.envelope, codec)
      }
    }
  }

  #finish(id: number, result: CacheResult<unknown>): void {
    const request = this.#requests.get(id)
    if (request === undefined) return
    this.#requests.delete(id)
    if (result.kind === 'failed') request.reject(result.error)
    else if (result.kind === 'refused') request.reject(refusal(result.reason))
    else request.resolve(result)
  }

  /** The codec is that of the first waiter. A second level that fails is a miss. */
  async #askSecond(fill: number, key: string): Promise<void> {
    const { epoch, fills } = this.#machine
    const codec =
      this.#requests.get(fills.get(fill)?.waiters[0]?.request ?? 0)?.loader.codec ?? null
    let found: Envelope<unknown> | null = null
    if (codec !== null && epoch !== null)
      found = (await this.#secondLevel?.get(epoch, key, codec).catch(() => null)) ?? null
    this.#step({ kind: 'second', fill, found })
  }

  async #putSecond(key: string, envelope: Envelope<unknown>, codec: Codec<unknown>): Promise<void> {
    // A value that cannot be put there is loaded by the other nodes themselves.
    await this.#secondLevel?.put(key, envelope, codec).catch(() => undefined)
  }

  async #load(effect: Extract<CacheEffect<unknown>, { kind: 'load' }>): Promise<void> {
    const { fill } = effect
    const request = this.#requests.get(effect.request)
    if (request === undefined)
      return this.#step({
        kind: 'fillFailed',
        fill,
        error: new CacheDeadlineError('No reader waits for this value any more.'),
      })
    try {
      const { value, context, start } = await this.#run(effect, request.loader)
      if (request.loader.codec !== null && typeof value === 'object' && value !== null)
        this.#codecs.set(value, request.loader.codec)
      const result = context.result(start)
      // A character of the key takes one byte or two.
      const bytes =
        entryBytes +
        2 * effect.key.length +
        result.dependencies.reduce((sum, one) => sum + dependencyBytes(one), 0) +
        request.loader.bytesOf(value)
      this.#step({ kind: 'filled', fill, value, bytes, ...result })
    } catch (error) {
      this.#step({ kind: 'fillFailed', fill, error })
    }
  }

  /** A standby that does not respond would delay each fill by its deadline. */
  #leaveReplica(): void {
    this.#replicaFromMs = this.#options.feed.nowMs() + replicaPauseMs
  }

  /** A read is tried once more on another connection if its own broke. */
  async #run(
    effect: Extract<CacheEffect<unknown>, { kind: 'load' }>,
    loader: Loader,
  ): Promise<{
    value: unknown
    context: FillContext
    start: { epoch: Epoch | null; cursor: Snapshot }
  }> {
    const { database, replica, feed } = this.#options
    const asked =
      effect.replica !== null && replica !== undefined && feed.nowMs() >= this.#replicaFromMs
        ? { database: replica, ...effect.replica, failed: () => this.#leaveReplica() }
        : null
    const source = { database, feedEpoch: () => this.#machine.epoch, replica: asked }
    for (let attempt = 1; ; attempt += 1) {
      const start = { epoch: this.#machine.epoch, cursor: this.#machine.cursor }
      const context = new FillContext(source, loader.dependencies, async (key, fill, options) =>
        this.#ask(key, fill, { ...options, part: true }, this.#options.feed.nowMs()),
      )
      try {
        return { value: await loader.load(context), context, start }
      } catch (error) {
        if (!(error instanceof DatabaseUnavailableError) || attempt > 1) throw error
      }
    }
  }
}

function refusal(reason: 'deadline' | 'away' | 'token' | 'overload'): Error {
  switch (reason) {
    case 'deadline':
      return new CacheDeadlineError(
        'The database did not respond in time, and no cached value may still be shown; try again.',
      )
    case 'away':
      return new DatabaseAwayError(
        'The database does not respond, and no cached value may still be shown; try again shortly.',
      )
    case 'token':
      return new TokenNotSeenError(
        'This node cannot see the write that the token names; ask again, or another node.',
      )
    case 'overload':
      return new CacheOverloadError(
        'The database cannot take more requests at once; try again shortly.',
      )
  }
}

function jsonBytes(value: unknown): number {
  if (value instanceof Uint8Array) return value.byteLength
  return 2 * (typeof value === 'string' ? value.length : (JSON.stringify(value)?.length ?? 0))
}
