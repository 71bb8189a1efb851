/**
 * Membership and leadership of one node as a deterministic state machine; src/nodes/SPEC.md is its
 * table.
 *
 * Modes: `joining` until the first beat is written; `live`; `draining`, which releases its duties
 * and takes no more; `left` for ever. Only this node's own clock is used: another node lives while
 * its counter moves. `now` is the feed's clock.
 */
export type NodesState = {
  readonly mode: 'joining' | 'live' | 'draining' | 'left'
  readonly id: string
  readonly beat: { readonly id: number; readonly startedAtMs: number } | null
  readonly beats: number
  readonly nextBeatAtMs: number
  /** When the last good beat started. */
  readonly beatenAtMs: number
  /** When the first beat was written. */
  readonly joinedAtMs: number
  readonly nodes: ReadonlyMap<string, Seen<NodeRow>>
  readonly duties: ReadonlyMap<string, Seen<DutyRow>>
  /** Duties that this node holds as of its last reading: since when, and with which fence. */
  readonly held: ReadonlyMap<string, { readonly fence: number; readonly renewedAtMs: number }>
  /** Duties that this node can take now. */
  readonly offered: readonly string[]
  /** Duties whose start of leading was announced, and not yet its end. */
  readonly leading: ReadonlySet<string>
  readonly taking: ReadonlyMap<string, { readonly id: number; readonly startedAtMs: number }>
  readonly takes: number
  /** Duties that this node holds though another one is preferred: which, and since when. */
  readonly misplaced: ReadonlyMap<string, { readonly to: string; readonly sinceMs: number }>
}

/** A row as last read, and when it was first read so. */
type Seen<T> = { readonly row: T; readonly sinceMs: number }

/** `duties`: those that the node can take; left out, all. */
export type NodeRow = {
  readonly id: string
  readonly counter: number
  readonly draining: boolean
  readonly duties?: readonly string[]
}
/** `holder` is empty after the duty was released. */
export type DutyRow = {
  readonly duty: string
  readonly holder: string
  readonly fence: number
  readonly renewal: number
}

export type NodesConfig = {
  /**
   * A node whose counter stands still for so long is gone; a duty whose holder has not renewed it
   * for so long is free.
   */
  readonly leaseMs: number
}

/** Rows of nodes that are gone are removed after so many leases. */
const removeAfterLeases = 20
/**
 * A duty is handed to the preferred node when that one has been there for so many leases, so that a
 * node which comes and goes moves nothing.
 */
const balanceAfterLeases = 3

export type NodesEvent =
  | { readonly kind: 'tick' }
  | {
      readonly kind: 'beaten'
      readonly id: number
      readonly nodes: readonly NodeRow[]
      readonly duties: readonly DutyRow[]
    }
  | { readonly kind: 'beatFailed'; readonly id: number }
  /** The outcome of `take`: the fence, or null if another node was faster or it failed. */
  | {
      readonly kind: 'taken'
      readonly duty: string
      readonly id: number
      readonly fence: number | null
    }
  /** The database refused a fence of this node: another node leads. */
  | { readonly kind: 'fenced'; readonly duty: string; readonly fence: number }
  /**
   * The description of this node has changed: the others learn it from a beat, which need not wait
   * for its time.
   */
  | { readonly kind: 'described' }
  /** From now on this node can take these duties; those that it leads beside them are released. */
  | { readonly kind: 'offer'; readonly duties: readonly string[] }
  | { readonly kind: 'drain' }
  | { readonly kind: 'leave' }

export type NodesEffect =
  /**
   * One transaction raises this node's counter, renews the duties whose fences still hold and that
   * nothing has locked, and reads all nodes and duties.
   */
  | {
      readonly kind: 'beat'
      readonly id: number
      readonly draining: boolean
      readonly renew: readonly { readonly duty: string; readonly fence: number }[]
    }
  /** Take the duty with the next fence, if its row is still `seen` (null: there is none). */
  | {
      readonly kind: 'take'
      readonly id: number
      readonly duty: string
      readonly seen: DutyRow | null
    }
  | { readonly kind: 'release'; readonly duty: string; readonly fence: number }
  | { readonly kind: 'lead'; readonly duty: string; readonly fence: number }
  | { readonly kind: 'stepDown'; readonly duty: string }
  | { readonly kind: 'remove'; readonly nodes: readonly string[] }
  | { readonly kind: 'leave' }

type Step = { readonly state: NodesState; readonly effects: readonly NodesEffect[] }

export function startNodes(id: string, now: number, offered: readonly string[]): NodesState {
  return {
    mode: 'joining',
    id,
    beat: null,
    beats: 0,
    nextBeatAtMs: now,
    beatenAtMs: Number.NEGATIVE_INFINITY,
    joinedAtMs: Number.POSITIVE_INFINITY,
    nodes: new Map(),
    duties: new Map(),
    held: new Map(),
    offered,
    leading: new Set(),
    taking: new Map(),
    takes: 0,
    misplaced: new Map(),
  }
}

/**
 * Whether this node leads: by its last renewal and its own clock. Only the fence in the transaction
 * itself is proof (G5).
 */
export function leads(
  state: NodesState,
  duty: string,
  now: number,
  config: NodesConfig,
): number | null {
  const held = state.held.get(duty)
  return held !== undefined && held.renewedAtMs > now - config.leaseMs && state.mode === 'live'
    ? held.fence
    : null
}

/** The others as this node sees them, itself included once it has joined. */
export function liveNodes(state: NodesState, now: number, config: NodesConfig): NodeRow[] {
  return [...state.nodes.values()]
    .filter(({ row, sinceMs }) => row.id === state.id || sinceMs > now - config.leaseMs)
    .map(({ row }) => row)
}

export function nextNodesTickMs(state: NodesState, config: NodesConfig): number {
  if (state.mode === 'left') return Number.POSITIVE_INFINITY
  const expiries = [...state.held]
    .filter(([duty]) => state.leading.has(duty))
    .map(([, held]) => held.renewedAtMs + config.leaseMs)
  return Math.min(
    state.beat === null ? state.nextBeatAtMs : state.beat.startedAtMs + config.leaseMs,
    ...expiries,
  )
}

export function stepNodes(
  before: NodesState,
  event: NodesEvent,
  now: number,
  config: NodesConfig,
): Step {
  if (before.mode === 'left') return { state: before, effects: [] }
  const { state, effects } = handle(before, event, now, config)
  const announced = announce(state, now, config)
  return { state: announced.state, effects: [...effects, ...announced.effects] }
}

function handle(state: NodesState, event: NodesEvent, now: number, config: NodesConfig): Step {
  switch (event.kind) {
    case 'tick':
      return tick(state, now, config)
    case 'beaten':
      return state.beat?.id === event.id
        ? beaten(state, event, now, config)
        : { state, effects: [] }
    case 'beatFailed':
      return state.beat?.id === event.id
        ? { state: { ...state, beat: null, nextBeatAtMs: now + config.leaseMs / 10 }, effects: [] }
        : { state, effects: [] }
    case 'taken':
      return taken(state, event)
    case 'fenced':
      return state.held.get(event.duty)?.fence === event.fence
        ? { state: { ...state, held: without(state.held, event.duty) }, effects: [] }
        : { state, effects: [] }
    case 'described':
      return { state: { ...state, nextBeatAtMs: now }, effects: [] }
    case 'offer':
      return offer(state, event.duties, now)
    case 'drain':
      return {
        state: { ...state, mode: 'draining', held: new Map(), nextBeatAtMs: now },
        effects: [...state.held].map(([duty, { fence }]) => ({ kind: 'release', duty, fence })),
      }
    case 'leave':
      return {
        state: { ...state, mode: 'left', beat: null, held: new Map() },
        effects: [
          ...[...state.held].map(([duty, { fence }]) => ({
            kind: 'release' as const,
            duty,
            fence,
          })),
          { kind: 'leave' },
        ],
      }
  }
}

function offer(state: NodesState, duties: readonly string[], now: number): Step {
  const withdrawn = [...state.held].filter(([duty]) => !duties.includes(duty))
  const held = new Map([...state.held].filter(([duty]) => duties.includes(duty)))
  return {
    state: { ...state, offered: duties, held, nextBeatAtMs: now },
    effects: withdrawn.map(([duty, { fence }]) => ({ kind: 'release', duty, fence })),
  }
}

/** Announces each start and end of leading, from any cause, the clock included. */
function announce(state: NodesState, now: number, config: NodesConfig): Step {
  const effects: NodesEffect[] = []
  const leading = new Set<string>()
  for (const duty of state.leading)
    if (leads(state, duty, now, config) === null) effects.push({ kind: 'stepDown', duty })
  for (const duty of state.held.keys()) {
    const fence = leads(state, duty, now, config)
    if (fence === null) continue
    leading.add(duty)
    if (!state.leading.has(duty)) effects.push({ kind: 'lead', duty, fence })
  }
  return effects.length === 0 ? { state, effects } : { state: { ...state, leading }, effects }
}

function tick(state: NodesState, now: number, config: NodesConfig): Step {
  if (state.beat !== null && now < state.beat.startedAtMs + config.leaseMs)
    return { state, effects: [] }
  if (state.beat === null && now < state.nextBeatAtMs) return { state, effects: [] }
  const id = state.beats + 1
  const renew = [...state.held].map(([duty, { fence }]) => ({ duty, fence }))
  return {
    state: {
      ...state,
      beat: { id, startedAtMs: now },
      beats: id,
      nextBeatAtMs: now + config.leaseMs / 3,
    },
    effects: [{ kind: 'beat', id, draining: state.mode === 'draining', renew }],
  }
}

function beaten(
  state: NodesState,
  event: Extract<NodesEvent, { kind: 'beaten' }>,
  now: number,
  config: NodesConfig,
): Step {
  const startedAtMs = state.beat?.startedAtMs ?? now
  const nodes = seen(state.nodes, event.nodes, now, {
    keyOf: (row) => row.id,
    same: (one, other) => one.counter === other.counter && one.draining === other.draining,
  })
  const duties = seen(state.duties, event.duties, now, {
    keyOf: (row) => row.duty,
    same: (one, other) =>
      one.fence === other.fence && one.renewal === other.renewal && one.holder === other.holder,
  })
  const held = new Map<string, { fence: number; renewedAtMs: number }>()
  for (const [duty, mine] of state.held) {
    const row = duties.get(duty)?.row
    if (row?.holder !== state.id || row.fence !== mine.fence) continue
    const known = state.duties.get(duty)?.row
    const before = known?.fence === mine.fence ? known.renewal : 0
    // A renewal may have been left out: others count from the last one, and so does this node.
    held.set(duty, row.renewal > before ? { fence: mine.fence, renewedAtMs: startedAtMs } : mine)
  }
  const next: NodesState = {
    ...state,
    beat: null,
    beatenAtMs: startedAtMs,
    joinedAtMs: Math.min(state.joinedAtMs, now),
    nodes,
    duties,
    held,
    mode: state.mode === 'joining' ? 'live' : state.mode,
  }
  const effects: NodesEffect[] = []
  const gone = [...nodes.values()].filter(
    ({ row, sinceMs }) =>
      row.id !== state.id && sinceMs <= now - config.leaseMs * removeAfterLeases,
  )
  if (gone.length > 0) effects.push({ kind: 'remove', nodes: gone.map(({ row }) => row.id) })
  if (next.mode !== 'live') return { state: next, effects }
  const balanced = balance(next, now, config)
  return take(balanced.state, [...effects, ...balanced.effects], now, config)
}

/** Takes the duties that are free. */
function take(
  state: NodesState,
  before: readonly NodesEffect[],
  now: number,
  config: NodesConfig,
): Step {
  const effects = [...before]
  const taking = new Map(
    [...state.taking].filter(([, { startedAtMs: since }]) => since > now - config.leaseMs),
  )
  let { takes } = state
  for (const duty of state.offered) {
    if (state.held.has(duty) || taking.has(duty) || !free(state, duty, now, config)) continue
    takes += 1
    taking.set(duty, { id: takes, startedAtMs: now })
    effects.push({ kind: 'take', id: takes, duty, seen: state.duties.get(duty)?.row ?? null })
  }
  return { state: { ...state, taking, takes }, effects }
}

/**
 * Gives a duty to the node that is preferred for it, one at a time: nodes that come later get their
 * share.
 */
function balance(state: NodesState, now: number, config: NodesConfig): Step {
  const nodes = liveNodes(state, now, config)
  const misplaced = new Map<string, { to: string; sinceMs: number }>()
  for (const duty of state.held.keys()) {
    const to = preferredFor(duty, nodes)
    if (to === null || to === state.id) continue
    const known = state.misplaced.get(duty)
    misplaced.set(duty, known?.to === to ? known : { to, sinceMs: now })
  }
  const due = [...misplaced].find(
    ([, { sinceMs }]) => sinceMs <= now - config.leaseMs * balanceAfterLeases,
  )
  if (due === undefined) return { state: { ...state, misplaced }, effects: [] }
  const [duty] = due
  misplaced.delete(duty)
  // Known as this node's own until the next reading, and so not free for it.
  return {
    state: { ...state, misplaced, held: without(state.held, duty) },
    effects: [{ kind: 'release', duty, fence: state.held.get(duty)!.fence }],
  }
}

/**
 * The preferred node takes a free duty at once, any other one a lease later: so duties are spread,
 * and none stays without a leader.
 */
function free(state: NodesState, duty: string, now: number, config: NodesConfig): boolean {
  const known = state.duties.get(duty)
  const preferred = preferredFor(duty, liveNodes(state, now, config))
  const graceMs = preferred === state.id ? 0 : config.leaseMs
  // The preferred node may run a version that does not know the duty.
  if (known === undefined) return state.joinedAtMs <= now - graceMs
  const unclaimed = known.row.holder === '' || known.row.holder === state.id
  return known.sinceMs <= now - (unclaimed ? 0 : config.leaseMs) - graceMs
}

/**
 * Rendezvous hashing (Thaler and Ravishankar, 1998): every node comes to the same result without
 * talking.
 */
export function preferredFor(duty: string, nodes: readonly NodeRow[]): string | null {
  let best: { readonly id: string; readonly weight: number } | null = null
  for (const { id, draining, duties } of nodes) {
    const weight = hash(`${duty} ${id}`)
    if (
      !draining &&
      duties?.includes(duty) !== false &&
      (best === null || weight > best.weight || (weight === best.weight && id < best.id))
    )
      best = { id, weight }
  }
  return best?.id ?? null
}

/** FNV-1a with a final mix, 32 bits. */
function hash(text: string): number {
  let value = 0x811c_9dc5
  for (let at = 0; at < text.length; at += 1)
    value = Math.imul(value ^ text.charCodeAt(at), 0x0100_0193)
  value = Math.imul(value ^ (value >>> 16), 0x85eb_ca6b)
  return (value ^ (value >>> 13)) >>> 0
}

function taken(state: NodesState, event: Extract<NodesEvent, { kind: 'taken' }>): Step {
  const asked = state.taking.get(event.duty)
  if (asked === undefined || asked.id !== event.id) {
    // The attempt was abandoned long ago, so the duty is given back.
    return {
      state,
      effects:
        event.fence === null ? [] : [{ kind: 'release', duty: event.duty, fence: event.fence }],
    }
  }
  const taking = without(state.taking, event.duty)
  if (event.fence === null) return { state: { ...state, taking }, effects: [] }
  if (state.mode !== 'live' || !state.offered.includes(event.duty))
    return {
      state: { ...state, taking },
      effects: [{ kind: 'release', duty: event.duty, fence: event.fence }],
    }
  // The lease counts from before the attempt: others count it from when they see the row, which is
  // later.
  const held = new Map(state.held).set(event.duty, {
    fence: event.fence,
    renewedAtMs: asked.startedAtMs,
  })
  return { state: { ...state, taking, held }, effects: [] }
}

function without<T>(map: ReadonlyMap<string, T>, key: string): ReadonlyMap<string, T> {
  const copy = new Map(map)
  copy.delete(key)
  return copy
}

type RowIdentity<T> = {
  readonly keyOf: (row: T) => string
  readonly same: (one: T, other: T) => boolean
}

/**
 * A row stands still from when its reading ended: its writer counts its own lease from before it
 * wrote, which is earlier.
 */
function seen<T>(
  before: ReadonlyMap<string, Seen<T>>,
  rows: readonly T[],
  now: number,
  { keyOf, same }: RowIdentity<T>,
): ReadonlyMap<string, Seen<T>> {
  return new Map(
    rows.map((row) => {
      const known = before.get(keyOf(row))
      return [
        keyOf(row),
        known !== undefined && same(known.row, row)
          ? { row, sinceMs: known.sinceMs }
          : { row, sinceMs: now },
      ]
    }),
  )
}
