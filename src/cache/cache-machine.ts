import { compareEpochs } from '#change-feed/epoch.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import { Ring } from '#change-feed/ring.ts'
import { includes, visible } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { tokenSeen } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type {
  CacheConfig,
  CacheCounts,
  CacheEffect,
  CacheEvent,
  CacheResult,
  Entry,
  Envelope,
  Fill,
  Known,
  Loaded,
  RefusalReason,
  Waiter,
} from '#cache/cache-state.ts'
import { changedSince } from '#cache/dependency.ts'
import { EntryStore } from '#cache/entry-store.ts'
import { FillTable } from '#cache/fill-table.ts'

/** Fills that one reader goes through before it is refused. */
const attemptsMax = 4

const atAnyPoll = Number.NEGATIVE_INFINITY
const emptySnapshot: Snapshot = { xmin: 0, xmax: 0, xip: [] }

type Event<V, Kind> = Extract<CacheEvent<V>, { kind: Kind }>

/**
 * The cache of one node as a deterministic state machine without I/O: it owns its state, and `step`
 * advances it. src/cache/SPEC.md is its table.
 *
 * A reader is in one of three places: parked (it waits for the feed), in a fill, or done. Every
 * event moves those that it can. `now` is the feed's clock.
 */
export class CacheMachine<V> {
  readonly config: CacheConfig
  readonly counts: CacheCounts = {
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
  }
  readonly entries: EntryStore<V>
  readonly fills: FillTable
  readonly #parked = new Set<Waiter>()
  #epoch: Epoch | null = null
  #cursor = emptySnapshot
  #lsn = 0
  #ring = new Ring(emptySnapshot)
  /** Counts what the feed delivered. */
  #batch = 0
  #polledAtMs = Number.NEGATIVE_INFINITY
  #provenAtMs = Number.NEGATIVE_INFINITY
  /** The last poll failed. */
  #lost = false
  #waiting = 0
  #now = 0
  #effects: CacheEffect<V>[] = []
  /** This step has asked for a poll already. */
  #wanted = false

  constructor(config: CacheConfig) {
    this.config = config
    this.entries = new EntryStore(config)
    this.fills = new FillTable(config)
  }

  get epoch(): Epoch | null {
    return this.#epoch
  }

  get cursor(): Snapshot {
    return this.#cursor
  }

  get polledAtMs(): number {
    return this.#polledAtMs
  }

  get provenAtMs(): number {
    return this.#provenAtMs
  }

  /** Readers that wait. */
  get waiting(): number {
    return this.#waiting
  }

  /** Everything that this node has not dropped was true at some time after this. */
  get asOfMs(): number {
    return Math.min(this.#polledAtMs, this.#provenAtMs)
  }

  leaseHolds(now: number): boolean {
    return this.config.rules.lease ? this.asOfMs > now - this.config.leaseMs : this.#epoch !== null
  }

  /** The database does not respond, and nothing that is loaded now could be proven. */
  isAway(now: number): boolean {
    return this.#lost && !this.leaseHolds(now)
  }

  /** Past this nothing is served from here, not even as stale. */
  isTooStale(now: number): boolean {
    return this.asOfMs <= now - this.config.leaseMs - this.config.staleMs
  }

  /** The hot path for a reader without a token. Undefined: go through `step`. */
  hit(key: string, now: number): Entry<V> | undefined {
    const entry = this.entries.get(key)
    if (entry === undefined || !this.leaseHolds(now)) return undefined
    this.#use(entry)
    return entry
  }

  /** The same while the database is away and the lease is over: the value has to be marked. */
  staleHit(key: string, now: number): Entry<V> | undefined {
    const entry = this.entries.get(key)
    if (entry === undefined || !this.isAway(now) || this.isTooStale(now)) return undefined
    entry.used = true
    this.counts.stale += 1
    return entry
  }

  step(event: CacheEvent<V>, now: number): CacheEffect<V>[] {
    this.#now = now
    this.#effects = []
    this.#wanted = false
    this.#handle(event)
    return this.#effects
  }

  #handle(event: CacheEvent<V>): void {
    switch (event.kind) {
      case 'get':
        return this.#get(event)
      case 'filled':
        return this.#filled(event)
      case 'fillFailed':
        for (const waiter of this.fills.end(event.fill)?.waiters ?? [])
          this.#finish(waiter, { kind: 'failed', error: event.error })
        return
      case 'second':
        return this.#second(event)
      case 'apply':
        return this.#apply(event)
      case 'flush':
        return this.#flush(event)
      case 'lease':
        this.#polledAtMs = event.polledAtMs
        this.#provenAtMs = event.provenAtMs
        this.#lost = false
        return this.#readmit({ all: false })
      case 'lost':
        this.#lost = true
        return this.#readmit({ all: true })
      case 'tick':
        this.#expire()
        return this.#readmit({ all: false })
    }
  }

  #use(entry: Entry<V>): void {
    this.counts.hits += 1
    entry.used = true
  }

  #get({ request, key, token, dependencies, deadlineMs, part }: Event<V, 'get'>): void {
    const waiter: Waiter = {
      request,
      key,
      token,
      dependencies,
      deadlineMs,
      part,
      arrivedAtMs: this.#now,
      attempts: 0,
      batch: 0,
      pollFromMs: atAnyPoll,
    }
    this.#waiting += 1
    // Refusing a part would fail all readers of the whole, and waste the work done for them.
    if (this.#waiting > this.config.waitersMax && !part) this.#refuse(waiter, 'overload')
    else this.#admit(waiter)
  }

  #admit(waiter: Waiter): void {
    if (waiter.deadlineMs <= this.#now) return this.#refuse(waiter, 'deadline')
    if (this.#epoch === null) return this.#park(waiter, waiter.arrivedAtMs)
    if (this.#mayMissToken(waiter, this.#epoch)) {
      if (this.#polledAtMs < waiter.arrivedAtMs) return this.#park(waiter, waiter.arrivedAtMs)
      // A poll of its own could not see it. A token of another system is ignored.
      if (compareEpochs(waiter.token!.epoch, this.#epoch) !== 'unrelated')
        return this.#refuse(waiter, 'token')
    }
    const entry = this.entries.get(waiter.key)
    if (entry === undefined) return this.#miss(waiter)
    if (this.leaseHolds(this.#now)) {
      this.#use(entry)
      return this.#finish(waiter, { kind: 'hit', ...this.#known(entry) })
    }
    if (!this.#lost && this.#now < waiter.arrivedAtMs + this.config.leaseWaitMs)
      return this.#park(waiter, atAnyPoll)
    if (!this.isTooStale(this.#now))
      return this.#finish(waiter, { kind: 'stale', ...this.#known(entry) })
    // A node that has just started may have read the value before its first proof: reading it again
    // would prove no more.
    if (waiter.attempts > 0 && !this.#lost) this.#park(waiter, atAnyPoll)
    else this.#miss(waiter)
  }

  #mayMissToken({ token }: Waiter, epoch: Epoch): boolean {
    if (token === null || !this.config.rules.tokens) return false
    const seen = tokenSeen(token, epoch, this.#cursor)
    return seen === 'unseen' || seen === 'unknown'
  }

  /** An entry that was not dropped is as good as one read at the cursor. */
  #known(entry: Entry<V>): Known<V> {
    return {
      value: entry.value,
      epoch: this.#epoch!,
      snapshot: includes(this.#cursor, entry.snapshot) ? this.#cursor : entry.snapshot,
      dependencies: entry.dependencies,
      asOfMs: this.asOfMs,
    }
  }

  #miss(waiter: Waiter): void {
    if (this.isAway(this.#now)) {
      // A fill would wait for a database that does not respond, and so would all later readers.
      if (this.#isAwayForLong(waiter)) return this.#refuse(waiter, 'away')
      // The feed retries at its own pace: readers must not hurry it.
      waiter.pollFromMs = atAnyPoll
      this.#parked.add(waiter)
      return
    }
    const running = this.fills.joinable(waiter.key)
    if (running !== undefined && this.#mayJoin(running, waiter.token)) {
      this.counts.joined += 1
      waiter.batch = this.#batch
      running.waiters.push(waiter)
      return
    }
    if (waiter.attempts >= attemptsMax) return this.#refuse(waiter, 'deadline')
    if (!this.fills.hasRoom(waiter, this.#now)) return this.#refuse(waiter, 'overload')
    this.counts.misses += 1
    waiter.attempts += 1
    waiter.batch = this.#batch
    const fill = this.fills.begin(waiter, {
      now: this.#now,
      batch: this.#batch,
      cursor: this.#cursor,
    })
    if (this.config.secondLevel)
      this.#effects.push({ kind: 'secondGet', fill: fill.id, key: fill.key })
    else this.#load(fill)
  }

  /**
   * Readers wait out a hiccup of one lease; after that a short wait is enough to call the database
   * away.
   */
  #isAwayForLong(waiter: Waiter): boolean {
    return (
      this.isAway(this.#now) &&
      this.#now >= waiter.arrivedAtMs + this.config.leaseWaitMs &&
      this.#now > this.asOfMs + 2 * this.config.leaseMs
    )
  }

  /**
   * A fill that began too long ago, or before this node had seen the reader's own write, may hold
   * an older value (R7).
   */
  #mayJoin(fill: Fill, token: Token | null): boolean {
    if (fill.startedAtMs <= this.#now - this.config.leaseMs) return false
    if (token === null || !this.config.rules.tokens) return true
    return tokenSeen(token, this.#epoch!, fill.cursor) !== 'unseen'
  }

  #load(fill: Fill): void {
    const { replica } = this.config
    fill.cursor = this.#cursor
    // A replica that has reached the feed's position is as new as the last poll; the primary is as
    // new as now.
    fill.asOfMs = replica ? Math.min(this.#now, this.#polledAtMs) : this.#now
    this.#effects.push({
      kind: 'load',
      fill: fill.id,
      key: fill.key,
      request: fill.waiters[0]?.request ?? 0,
      replica: replica ? { lsn: this.#lsn, epoch: this.#epoch! } : null,
    })
  }

  #second({ fill: id, found }: Event<V, 'second'>): void {
    const fill = this.fills.get(id)
    if (fill === undefined) return
    if (found === null || !fill.joinable || !this.#isTrusted(found)) return this.#load(fill)
    this.fills.end(fill.id)
    this.counts.second += 1
    this.#keep(fill.key, found)
    for (const waiter of fill.waiters) {
      if (this.leaseHolds(this.#now)) this.#finish(waiter, { kind: 'hit', ...this.#known(found) })
      else this.#park(waiter, atAnyPoll)
    }
  }

  /**
   * The second level may have lost, reordered or resurrected values (R9): only this node's own ring
   * decides.
   */
  #isTrusted(found: Envelope<V>): boolean {
    const { rules } = this.config
    if (!rules.secondLevelChecked) return true
    if (found.epoch !== this.#epoch && rules.epoch) return false
    return this.#ring.covers(found.snapshot) && this.#changedSince(found) === null
  }

  #changedSince({ dependencies, snapshot }: Pick<Entry<V>, 'dependencies' | 'snapshot'>) {
    const ignoreBefore = !this.config.rules.rowBefore
    return changedSince(this.#ring, dependencies, snapshot, { ignoreBefore })
  }

  #filled(event: Loaded<V>): void {
    const fill = this.fills.end(event.fill)
    if (fill === undefined) return
    const { rules } = this.config
    if (event.epoch !== this.#epoch && rules.epoch) {
      // The fill read another epoch of the database than the feed: only the feed knows which of
      // them is over.
      for (const waiter of fill.waiters) this.#park(waiter, this.#now)
      return
    }
    const { value, bytes, dependencies } = event
    const snapshot = event.snapshot ?? fill.cursor
    const covered = !rules.fillsFenced || this.#ring.covers(snapshot)
    const conflict =
      covered && rules.fillsFenced ? this.#changedSince({ dependencies, snapshot }) : null
    const kept = covered && conflict === null && !event.stale
    if (kept) {
      this.#keep(fill.key, { value, bytes, snapshot, dependencies })
      if (this.config.secondLevel) {
        const envelope = { value, bytes, snapshot, dependencies, epoch: this.#epoch! }
        this.#effects.push({ kind: 'secondPut', key: fill.key, envelope })
      }
    } else if (!event.stale) this.counts.fenced += 1
    const asOfMs = Math.min(event.asOfMs ?? fill.asOfMs, fill.asOfMs)
    const known = { value, epoch: this.#epoch!, snapshot, dependencies, asOfMs }
    const outdatedFrom = covered ? conflict : fill.batch + 1
    for (const waiter of fill.waiters) {
      const isOutdated =
        rules.fillsDetached && outdatedFrom !== null && waiter.batch >= outdatedFrom
      if (isOutdated || this.#hidesWrite(snapshot, waiter.token)) this.#admit(waiter)
      else if (event.stale) this.#finish(waiter, { kind: 'stale', ...known })
      else this.#finishFilled(waiter, known, kept)
    }
  }

  #finishFilled(waiter: Waiter, known: Known<V>, kept: boolean): void {
    if (this.#isProven(known.asOfMs, waiter)) this.#finish(waiter, { kind: 'filled', ...known })
    else if (kept || waiter.attempts < attemptsMax) this.#park(waiter, kept ? atAnyPoll : this.#now)
    else this.#finish(waiter, { kind: 'stale', ...known })
  }

  #hidesWrite(snapshot: Snapshot, token: Token | null): boolean {
    if (token === null || !this.config.rules.tokens) return false
    return token.epoch === this.#epoch && !visible(snapshot, token.xid)
  }

  /**
   * Whether the value is known to have been true at some time after `L` before the reader came. The
   * database alone does not prove it: a primary that was replaced an hour ago responds too, so the
   * feed's proof bounds a fill as it bounds a hit.
   */
  #isProven(asOfMs: number, waiter: Waiter): boolean {
    if (!this.config.rules.lease) return true
    return Math.min(asOfMs, this.#provenAtMs) > waiter.arrivedAtMs - this.config.leaseMs
  }

  #keep(key: string, entry: Entry<V>): void {
    this.counts.evicted += this.entries.keep(key, entry)
  }

  #apply({ changes, cursor, lsn }: Event<V, 'apply'>): void {
    this.#batch += 1
    for (const change of changes) {
      this.counts.invalidated += this.entries.invalidate(change)
      if (this.config.rules.fillsDetached) this.fills.detachTouched(change)
    }
    this.#ring.append(this.#batch, cursor, changes)
    this.#cursor = cursor
    this.#lsn = lsn
  }

  #flush({ epoch, cursor, lsn }: Event<V, 'flush'>): void {
    this.#batch += 1
    this.counts.flushes += 1
    this.entries.clear()
    if (this.config.rules.fillsDetached) this.fills.detachAll()
    this.#ring = new Ring(cursor)
    this.#epoch = epoch
    this.#cursor = cursor
    this.#lsn = lsn
  }

  #park(waiter: Waiter, pollFromMs: number): void {
    waiter.pollFromMs = pollFromMs
    this.#parked.add(waiter)
    if (this.#wanted) return
    this.#wanted = true
    this.#effects.push({ kind: 'want' })
  }

  /**
   * Decides again about readers that wait for the feed. `all`: also those whose poll has not come,
   * because none will soon.
   */
  #readmit({ all }: { readonly all: boolean }): void {
    for (const waiter of Array.from(this.#parked)) {
      const polled = this.#polledAtMs >= waiter.pollFromMs
      if (!polled && !(all && this.#now >= waiter.deadlineMs)) continue
      const waitsForLease =
        waiter.pollFromMs === atAnyPoll &&
        !this.leaseHolds(this.#now) &&
        this.#now < waiter.arrivedAtMs + this.config.leaseWaitMs
      if (!all && waitsForLease) continue
      this.#parked.delete(waiter)
      this.#admit(waiter)
    }
  }

  /**
   * Refuses readers whose deadline is over and, while the database is away, those that wait for it:
   * for their fill, or for a poll.
   */
  #expire(): void {
    for (const waiter of this.#parked) {
      const reason = this.#expiry(waiter, waiter.pollFromMs !== atAnyPoll)
      if (reason === null) continue
      this.#parked.delete(waiter)
      this.#refuse(waiter, reason)
    }
    for (const fill of this.fills.all()) {
      for (let at = fill.waiters.length - 1; at >= 0; at -= 1) {
        const reason = this.#expiry(fill.waiters[at]!, true)
        if (reason === null) continue
        const [waiter] = fill.waiters.splice(at, 1)
        this.#refuse(waiter!, reason)
      }
    }
  }

  #expiry(waiter: Waiter, waitsForDatabase: boolean): RefusalReason | null {
    if (waiter.deadlineMs <= this.#now) return 'deadline'
    return waitsForDatabase && this.#isAwayForLong(waiter) ? 'away' : null
  }

  #refuse(waiter: Waiter, reason: RefusalReason): void {
    this.#finish(waiter, { kind: 'refused', reason })
  }

  #finish({ request }: Waiter, result: CacheResult<V>): void {
    this.#waiting -= 1
    if (result.kind === 'stale') this.counts.stale += 1
    if (result.kind === 'refused') this.counts.refused += 1
    this.#effects.push({ kind: 'result', request, result })
  }
}
