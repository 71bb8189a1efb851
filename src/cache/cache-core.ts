import { compareEpochs } from '#change-feed/epoch.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import type { Change } from '#change-feed/change.ts'
import { Ring } from '#change-feed/ring.ts'
import { includes, visible } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { tokenSeen } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type {
  CacheConfig,
  CacheEffect,
  CacheEvent,
  CacheState,
  Entry,
  Envelope,
  Fill,
  Loaded,
  Waiter,
} from '#cache/cache-state.ts'
import { changedSince } from '#cache/dependency.ts'

/**
 * The cache of one node as a deterministic state machine without I/O; src/cache/SPEC.md is its
 * table.
 *
 * A reader is in one of three places: parked (it waits for the feed), in a fill, or answered. Every
 * event moves those that it can. The state is advanced in place. `now` is the feed's clock.
 */

/** Fills that one reader goes through before it is told that nothing certain can be had. */
const attemptsMax = 4
/** Fills for parts of others that may run for each fill that may. */
const partsPerFillMax = 4
/**
 * A fill that nobody waits for any more does not count after this: its loader may wait for
 * something that has no deadline.
 */
const abandonedMs = 30_000

type Out<V> = CacheEffect<V>[]

export function stepCache<V>(
  state: CacheState<V>,
  event: CacheEvent<V>,
  now: number,
  config: CacheConfig,
): { state: CacheState<V>; effects: CacheEffect<V>[] } {
  const out: Out<V> = []
  switch (event.kind) {
    case 'get':
      get(state, event, now, config, out)
      break
    case 'filled':
      filled(state, event, now, config, out)
      break
    case 'fillFailed':
      for (const waiter of end(state, event.fill)?.waiters ?? [])
        answer(state, waiter, { kind: 'failed', error: event.error }, out)
      break
    case 'second':
      second(state, event, now, config, out)
      break
    case 'apply':
      apply(state, event.changes, event.cursor, event.lsn, config)
      break
    case 'flush':
      flush(state, event, config)
      break
    case 'lease':
      state.polledAtMs = event.polledAtMs
      state.provenAtMs = event.provenAtMs
      state.lost = false
      readmit(state, now, config, out, { all: false })
      break
    case 'lost':
      state.lost = true
      readmit(state, now, config, out, { all: true })
      break
    case 'tick':
      expire(state, now, config, out)
      readmit(state, now, config, out, { all: false })
      break
  }
  return { state, effects: out }
}

/** Everything that this node has not dropped was true at some time after this. */
export function cacheAsOfMs<V>(state: CacheState<V>): number {
  return Math.min(state.polledAtMs, state.provenAtMs)
}

export function leaseHolds<V>(state: CacheState<V>, now: number, config: CacheConfig): boolean {
  return config.without === 'R6 lease'
    ? state.epoch !== null
    : cacheAsOfMs(state) > now - config.leaseMs
}

/**
 * The hot path: the value of a hit for a reader without a token; undefined: go through `stepCache`.
 */
export function hit<V>(
  state: CacheState<V>,
  key: string,
  now: number,
  config: CacheConfig,
): Entry<V> | undefined {
  const entry = state.entries.get(key)
  if (entry === undefined || !leaseHolds(state, now, config)) return undefined
  use(state, entry)
  return entry
}

/**
 * The same while nobody can tell whether it is still so: the database does not answer, and the
 * lease is over. It has to be marked.
 */
export function staleHit<V>(
  state: CacheState<V>,
  key: string,
  now: number,
  config: CacheConfig,
): Entry<V> | undefined {
  const entry = state.entries.get(key)
  if (entry === undefined || !isAway(state, now, config) || isTooStale(state, now, config))
    return undefined
  entry.used = true
  state.counts.stale += 1
  return entry
}

/**
 * The database does not answer the feed, and since longer than the lease: nothing that is loaded
 * now could be proven.
 */
export function isAway<V>(state: CacheState<V>, now: number, config: CacheConfig): boolean {
  return state.lost && !leaseHolds(state, now, config)
}

/**
 * The database is away: for a lease it may be a hiccup, which readers wait out; then a moment is
 * enough.
 */
function isAbandonedBackends<V>(
  state: CacheState<V>,
  waiter: Waiter,
  now: number,
  config: CacheConfig,
): boolean {
  return (
    isAway(state, now, config) &&
    now >= waiter.arrivedAtMs + config.patienceMs &&
    now > cacheAsOfMs(state) + 2 * config.leaseMs
  )
}

/** Past it nothing is answered from here, not even as stale. */
export function isTooStale<V>(state: CacheState<V>, now: number, config: CacheConfig): boolean {
  return cacheAsOfMs(state) <= now - config.leaseMs - config.staleMs
}

function use<V>(state: CacheState<V>, entry: Entry<V>): void {
  state.counts.hits += 1
  entry.used = true
}

function get<V>(
  state: CacheState<V>,
  event: Extract<CacheEvent<V>, { kind: 'get' }>,
  now: number,
  config: CacheConfig,
  out: Out<V>,
): void {
  const { request, key, token, dependencies, deadlineMs, part } = event
  const waiter: Waiter = {
    request,
    key,
    token,
    dependencies,
    deadlineMs,
    part,
    arrivedAtMs: now,
    attempts: 0,
    batch: 0,
    pollFromMs: Number.NEGATIVE_INFINITY,
  }
  state.waiters += 1
  // To refuse a part would be to fail all who wait for the whole, and the work done for them.
  if (state.waiters > config.waitersMax && !part)
    answer(state, waiter, { kind: 'refused', reason: 'overload' }, out)
  else admit(state, waiter, now, config, out)
}

function admit<V>(
  state: CacheState<V>,
  waiter: Waiter,
  now: number,
  config: CacheConfig,
  out: Out<V>,
): void {
  if (waiter.deadlineMs <= now)
    return answer(state, waiter, { kind: 'refused', reason: 'deadline' }, out)
  if (state.epoch === null) return park(state, waiter, waiter.arrivedAtMs, out)
  if (waiter.token !== null && config.without !== 'R7 tokens') {
    const seen = tokenSeen(waiter.token, state.epoch, state.cursor)
    if (seen === 'unseen' || seen === 'unknown') {
      if (state.polledAtMs < waiter.arrivedAtMs) return park(state, waiter, waiter.arrivedAtMs, out)
      // A poll of its own could not see it. A token of another system is none of ours, and is let
      // pass.
      if (compareEpochs(waiter.token.epoch, state.epoch) !== 'unrelated')
        return answer(state, waiter, { kind: 'refused', reason: 'token' }, out)
    }
  }
  const entry = state.entries.get(waiter.key)
  if (entry === undefined) return miss(state, waiter, now, config, out)
  if (leaseHolds(state, now, config)) {
    use(state, entry)
    return answer(state, waiter, { kind: 'hit', ...told(state, entry) }, out)
  }
  if (!state.lost && now < waiter.arrivedAtMs + config.patienceMs)
    return park(state, waiter, Number.NEGATIVE_INFINITY, out)
  if (isTooStale(state, now, config)) {
    // A node that has just started may have read the value before its first proof: to read it again
    // would prove no more.
    if (waiter.attempts > 0 && !state.lost)
      return park(state, waiter, Number.NEGATIVE_INFINITY, out)
    return miss(state, waiter, now, config, out)
  }
  return answer(state, waiter, { kind: 'stale', ...told(state, entry) }, out)
}

/** An entry that was not dropped is as good as one read at the cursor. */
function told<V>(
  state: CacheState<V>,
  entry: Entry<V>,
): {
  value: V
  epoch: Epoch
  snapshot: Snapshot
  dependencies: Entry<V>['dependencies']
  asOfMs: number
} {
  const snapshot = includes(state.cursor, entry.snapshot) ? state.cursor : entry.snapshot
  return {
    value: entry.value,
    epoch: state.epoch!,
    snapshot,
    dependencies: entry.dependencies,
    asOfMs: cacheAsOfMs(state),
  }
}

function miss<V>(
  state: CacheState<V>,
  waiter: Waiter,
  now: number,
  config: CacheConfig,
  out: Out<V>,
): void {
  if (isAway(state, now, config)) {
    // A fill would wait for a database that does not answer, and so would all that come after it.
    if (isAbandonedBackends(state, waiter, now, config))
      return answer(state, waiter, { kind: 'refused', reason: 'away' }, out)
    // The feed tries again by itself, at its own pace: readers must not hurry it.
    waiter.pollFromMs = Number.NEGATIVE_INFINITY
    state.parked.add(waiter)
    return
  }
  const running = state.joinable.get(waiter.key)
  if (running !== undefined && mayJoin(state, running, waiter.token, now, config)) {
    state.counts.joined += 1
    waiter.batch = state.batch
    running.waiters.push(waiter)
    return
  }
  if (isFull(state, waiter, config)) endAbandoned(state, now)
  if (isFull(state, waiter, config) || waiter.attempts >= attemptsMax) {
    return answer(
      state,
      waiter,
      { kind: 'refused', reason: waiter.attempts >= attemptsMax ? 'deadline' : 'overload' },
      out,
    )
  }
  state.counts.misses += 1
  waiter.attempts += 1
  waiter.batch = state.batch
  if (running !== undefined) detach(state, running)
  const fill: Fill = {
    id: state.lastFill + 1,
    key: waiter.key,
    startedAtMs: now,
    batch: state.batch,
    dependencies: waiter.dependencies,
    waiters: [waiter],
    part: waiter.part,
    cursor: state.cursor,
    asOfMs: now,
    joinable: true,
  }
  state.lastFill = fill.id
  if (fill.part) state.parts += 1
  state.fills.set(fill.id, fill)
  state.joinable.set(fill.key, fill)
  state.fillIndex.add(fill.id, fill.dependencies)
  if (config.secondLevel) out.push({ kind: 'secondGet', fill: fill.id, key: fill.key })
  else load(state, fill, now, config, out)
}

/**
 * Parts have a bound of their own: fills that wait for parts must not be what keeps these from
 * beginning.
 */
function isFull<V>(state: CacheState<V>, { part }: Waiter, config: CacheConfig): boolean {
  return part
    ? state.parts >= config.fillsMax * partsPerFillMax
    : state.fills.size - state.parts >= config.fillsMax
}

function endAbandoned<V>(state: CacheState<V>, now: number): void {
  // In the order in which they began.
  for (const fill of state.fills.values()) {
    if (fill.startedAtMs > now - abandonedMs) return
    if (fill.waiters.length === 0) end(state, fill.id)
  }
}

/**
 * A fill that began too long ago, or before this node had seen the reader's own write, may hold an
 * older value (R7).
 */
function mayJoin<V>(
  state: CacheState<V>,
  fill: Fill,
  token: Token | null,
  now: number,
  config: CacheConfig,
): boolean {
  if (fill.startedAtMs <= now - config.leaseMs) return false
  if (token === null || config.without === 'R7 tokens') return true
  return tokenSeen(token, state.epoch!, fill.cursor) !== 'unseen'
}

function load<V>(
  state: CacheState<V>,
  fill: Fill,
  now: number,
  config: CacheConfig,
  out: Out<V>,
): void {
  fill.cursor = state.cursor
  // A replica that has reached the feed's position is as new as the last poll; the primary is as
  // new as now.
  fill.asOfMs = config.replica ? Math.min(now, state.polledAtMs) : now
  const replica = config.replica ? { lsn: state.lsn, epoch: state.epoch! } : null
  out.push({
    kind: 'load',
    fill: fill.id,
    key: fill.key,
    request: fill.waiters[0]?.request ?? 0,
    replica,
  })
}

function second<V>(
  state: CacheState<V>,
  event: Extract<CacheEvent<V>, { kind: 'second' }>,
  now: number,
  config: CacheConfig,
  out: Out<V>,
): void {
  const fill = state.fills.get(event.fill)
  if (fill === undefined) return
  if (event.found === null || !fill.joinable || !trusted(state, event.found, config))
    return load(state, fill, now, config, out)
  end(state, fill.id)
  state.counts.second += 1
  keep(state, fill.key, event.found, config)
  // It is an entry like any other now, or too large to keep; either way it is judged as one.
  for (const waiter of fill.waiters) {
    if (leaseHolds(state, now, config))
      answer(state, waiter, { kind: 'hit', ...told(state, event.found) }, out)
    else park(state, waiter, Number.NEGATIVE_INFINITY, out)
  }
}

/**
 * The second level may have lost, reordered or resurrected what it was given (R9): only this node's
 * own ring can tell.
 */
function trusted<V>(state: CacheState<V>, found: Envelope<V>, config: CacheConfig): boolean {
  if (config.without === 'R9 the second level is validated') return true
  if (found.epoch !== state.epoch && config.without !== 'R11 epoch') return false
  return (
    state.ring.covers(found.snapshot) &&
    changedSince(state.ring, found.dependencies, found.snapshot, before(config)) === null
  )
}

function before(config: CacheConfig): { ignoreBefore: boolean } {
  return { ignoreBefore: config.without === 'R12 the row before counts' }
}

function filled<V>(
  state: CacheState<V>,
  event: Loaded<V>,
  now: number,
  config: CacheConfig,
  out: Out<V>,
): void {
  const fill = end(state, event.fill)
  if (fill === undefined) return
  const snapshot = event.snapshot ?? fill.cursor
  if (event.epoch !== state.epoch && config.without !== 'R11 epoch') {
    // It came from another life of the database than the feed's: only the feed can tell which of
    // them is over.
    for (const waiter of fill.waiters) park(state, waiter, now, out)
    return
  }
  const unfenced = config.without === 'R5 fills are fenced'
  const covered = unfenced || state.ring.covers(snapshot)
  const conflict =
    covered && !unfenced
      ? changedSince(state.ring, event.dependencies, snapshot, before(config))
      : null
  const kept = covered && conflict === null && !event.stale
  if (kept) {
    keep(
      state,
      fill.key,
      { value: event.value, bytes: event.bytes, snapshot, dependencies: event.dependencies },
      config,
    )
    if (config.secondLevel)
      out.push({
        kind: 'secondPut',
        key: fill.key,
        envelope: {
          value: event.value,
          bytes: event.bytes,
          snapshot,
          dependencies: event.dependencies,
          epoch: state.epoch!,
        },
      })
  } else if (!event.stale) state.counts.fenced += 1
  const lastBatch =
    config.without === 'R5 an invalidated fill is detached'
      ? null
      : covered
        ? conflict
        : fill.batch + 1
  const asOfMs = Math.min(event.asOfMs ?? fill.asOfMs, fill.asOfMs)
  for (const waiter of fill.waiters) {
    const told = {
      value: event.value,
      epoch: state.epoch!,
      snapshot,
      dependencies: event.dependencies,
      asOfMs,
    }
    if (lastBatch !== null && waiter.batch >= lastBatch) admit(state, waiter, now, config, out)
    else if (waiter.token !== null && hides(state, snapshot, waiter.token, config))
      admit(state, waiter, now, config, out)
    else if (event.stale) answer(state, waiter, { kind: 'stale', ...told }, out)
    else if (proven(state, asOfMs, waiter, config))
      answer(state, waiter, { kind: 'filled', ...told }, out)
    else if (kept || waiter.attempts < attemptsMax)
      park(state, waiter, kept ? Number.NEGATIVE_INFINITY : now, out)
    else answer(state, waiter, { kind: 'stale', ...told }, out)
  }
}

function hides<V>(
  state: CacheState<V>,
  snapshot: Snapshot,
  token: Token,
  config: CacheConfig,
): boolean {
  if (config.without === 'R7 tokens') return false
  return token.epoch === state.epoch && !visible(snapshot, token.xid)
}

/**
 * Whether the value is known to have been true at some time after `L` before the reader came. The
 * database alone does not prove it: a primary that was replaced an hour ago answers queries too, so
 * the feed's proof bounds a fill as it bounds a hit.
 */
function proven<V>(
  state: CacheState<V>,
  asOfMs: number,
  waiter: Waiter,
  config: CacheConfig,
): boolean {
  if (config.without === 'R6 lease') return true
  return Math.min(asOfMs, state.provenAtMs) > waiter.arrivedAtMs - config.leaseMs
}

function keep<V>(state: CacheState<V>, key: string, entry: Entry<V>, config: CacheConfig): void {
  drop(state, key)
  if (entry.bytes > config.entryBytesMax) return
  state.entries.set(key, entry)
  state.index.add(key, entry.dependencies)
  state.bytes += entry.bytes
  evict(state, config)
}

/**
 * The oldest goes, unless it was used since it last came to the front: then it has a second chance
 * at the back (CLOCK: Corbató, *A paging experiment with the Multics system*, 1968). Nearly as good
 * as the order of use, and a hit only sets a flag.
 */
function evict<V>(state: CacheState<V>, config: CacheConfig): void {
  for (const [key, entry] of state.entries) {
    if (state.bytes <= config.bytesMax) return
    if (entry.used) {
      entry.used = false
      state.entries.delete(key)
      state.entries.set(key, entry)
    } else {
      drop(state, key)
      state.counts.evicted += 1
    }
  }
}

function drop<V>(state: CacheState<V>, key: string): void {
  const entry = state.entries.get(key)
  if (entry === undefined) return
  state.entries.delete(key)
  state.index.remove(key, entry.dependencies)
  state.bytes -= entry.bytes
}

function apply<V>(
  state: CacheState<V>,
  changes: readonly Change[],
  cursor: Snapshot,
  lsn: number,
  config: CacheConfig,
): void {
  state.batch += 1
  for (const change of changes) {
    for (const key of state.index.touched(change)) {
      if (visible(state.entries.get(key)!.snapshot, change.xid)) continue
      drop(state, key)
      state.counts.invalidated += 1
    }
    if (config.without === 'R5 an invalidated fill is detached') continue
    for (const id of state.fillIndex.touched(change)) detach(state, state.fills.get(id)!)
  }
  state.ring.append(state.batch, cursor, changes)
  state.cursor = cursor
  state.lsn = lsn
}

function flush<V>(
  state: CacheState<V>,
  event: Extract<CacheEvent<V>, { kind: 'flush' }>,
  config: CacheConfig,
): void {
  state.batch += 1
  state.counts.flushes += 1
  state.entries.clear()
  state.index.clear()
  state.bytes = 0
  if (config.without !== 'R5 an invalidated fill is detached')
    for (const fill of state.joinable.values()) detach(state, fill)
  state.ring = new Ring(event.cursor)
  state.epoch = event.epoch
  state.cursor = event.cursor
  state.lsn = event.lsn
}

/** Who has joined keeps waiting for it; who comes later starts another. */
function detach<V>(state: CacheState<V>, fill: Fill): void {
  if (!fill.joinable) return
  fill.joinable = false
  state.fillIndex.remove(fill.id, fill.dependencies)
  if (state.joinable.get(fill.key) === fill) state.joinable.delete(fill.key)
}

function end<V>(state: CacheState<V>, id: number): Fill | undefined {
  const fill = state.fills.get(id)
  if (fill === undefined) return undefined
  detach(state, fill)
  state.fills.delete(id)
  if (fill.part) state.parts -= 1
  return fill
}

function park<V>(state: CacheState<V>, waiter: Waiter, pollFromMs: number, out: Out<V>): void {
  waiter.pollFromMs = pollFromMs
  state.parked.add(waiter)
  if (out.at(-1)?.kind !== 'want') out.push({ kind: 'want' })
}

/**
 * Looks again at those who wait for the feed. `all`: also at those whose poll has not come, because
 * none will soon.
 */
function readmit<V>(
  state: CacheState<V>,
  now: number,
  config: CacheConfig,
  out: Out<V>,
  which: { readonly all: boolean },
): void {
  if (state.parked.size === 0) return
  const wants: Out<V> = []
  for (const waiter of Array.from(state.parked)) {
    const polled = state.polledAtMs >= waiter.pollFromMs
    if (!polled && !(which.all && now >= waiter.deadlineMs)) continue
    if (
      !which.all &&
      polled &&
      waiter.pollFromMs === Number.NEGATIVE_INFINITY &&
      !leaseHolds(state, now, config) &&
      now < waiter.arrivedAtMs + config.patienceMs
    )
      continue
    state.parked.delete(waiter)
    admit(state, waiter, now, config, wants)
  }
  for (const effect of wants)
    if (effect.kind !== 'want' || !out.some((other) => other.kind === 'want')) out.push(effect)
}

/**
 * Turns away those whose time is over, and, while the database is away, those who wait for it: for
 * their fill, or for a poll.
 */
function expire<V>(state: CacheState<V>, now: number, config: CacheConfig, out: Out<V>): void {
  const reason = (waiter: Waiter, waitsForDatabase: boolean): 'deadline' | 'away' | null =>
    waiter.deadlineMs <= now
      ? 'deadline'
      : waitsForDatabase && isAbandonedBackends(state, waiter, now, config)
        ? 'away'
        : null
  for (const waiter of state.parked) {
    const refused = reason(waiter, waiter.pollFromMs !== Number.NEGATIVE_INFINITY)
    if (refused === null) continue
    state.parked.delete(waiter)
    answer(state, waiter, { kind: 'refused', reason: refused }, out)
  }
  for (const fill of state.fills.values()) {
    for (let at = fill.waiters.length - 1; at >= 0; at -= 1) {
      const refused = reason(fill.waiters[at]!, true)
      if (refused === null) continue
      const [waiter] = fill.waiters.splice(at, 1)
      answer(state, waiter!, { kind: 'refused', reason: refused }, out)
    }
  }
}

function answer<V>(
  state: CacheState<V>,
  waiter: Waiter,
  given: Extract<CacheEffect<V>, { kind: 'answer' }>['answer'],
  out: Out<V>,
): void {
  state.waiters -= 1
  if (given.kind === 'stale') state.counts.stale += 1
  if (given.kind === 'refused') state.counts.refused += 1
  out.push({ kind: 'answer', request: waiter.request, answer: given })
}
