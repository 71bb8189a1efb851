import { backoffMs } from '#lib/backoff.ts'

/**
 * When one node looks for jobs, as a deterministic state machine; SPEC.md is its table. The
 * database alone decides who gets which job: this machine decides only when to look, and for how
 * much.
 *
 * Modes: `running`; `draining`, claims nothing more; `stopped`, for ever. `now` is a monotonic
 * clock.
 */
export type JobsState = {
  readonly mode: 'running' | 'draining' | 'stopped'
  /** How many of each kind this node runs at a time. */
  readonly kinds: ReadonlyMap<string, number>
  /** Jobs that run here, with their kinds. */
  readonly running: ReadonlyMap<string, string>
  /** The look that is on its way. */
  readonly look: { readonly id: number; readonly free: ReadonlyMap<string, number> } | null
  readonly looks: number
  /** There was news since the look began: another one follows it. */
  readonly again: boolean
  readonly nextLookAtMs: number
  /** Looks in a row that failed, or found jobs due that could not be claimed. */
  readonly inVain: number
  /** Kinds of which more may wait than this node could take. */
  readonly more: ReadonlySet<string>
}

export type JobsEvent =
  | { readonly kind: 'tick' }
  /** This node has added jobs of the kind. */
  | { readonly kind: 'added'; readonly job: string }
  /** Another node says that jobs of the kind wait. */
  | { readonly kind: 'hint'; readonly job: string }
  /** Jobs became free, of whatever kind. */
  | { readonly kind: 'freed' }
  | {
      readonly kind: 'looked'
      readonly id: number
      readonly claimed: readonly { readonly id: string; readonly kind: string }[]
      readonly next: readonly { readonly kind: string; readonly dueInMs: number }[]
      /** How long a node that knows of nothing may wait. */
      readonly idleMs: number
    }
  | { readonly kind: 'lookFailed'; readonly id: number }
  /**
   * `ordered`: the next one of its order key may be free now. `dueInMs`: it was put back, and is
   * due again then.
   */
  | {
      readonly kind: 'ended'
      readonly id: string
      readonly ordered: boolean
      readonly dueInMs: number | null
    }
  | { readonly kind: 'drain' }
  | { readonly kind: 'stop' }

export type JobsEffect =
  | { readonly kind: 'look'; readonly id: number; readonly free: ReadonlyMap<string, number> }
  | { readonly kind: 'start'; readonly ids: readonly string[] }
  /** Claimed by a look that returned too late. */
  | { readonly kind: 'giveBack'; readonly ids: readonly string[] }
  /** Set aside jobs of these kinds that are due and wait for an earlier one. */
  | { readonly kind: 'setAside'; readonly kinds: readonly string[] }
  /** Let the other nodes know that jobs of the kind wait. */
  | { readonly kind: 'hint'; readonly job: string }

type Step = { readonly state: JobsState; readonly effects: readonly JobsEffect[] }

/** After a look in vain, doubled with each further one. */
const againFirstMs = 20
const againMaxMs = 1_000
/** Timers of Node.js may fire a little early. */
const timerMs = 1
/** A place that has become free waits so long for others to be filled with it. */
const gatherMs = 2

export function startJobs(kinds: ReadonlyMap<string, number>, now: number): JobsState {
  return {
    mode: 'running',
    kinds,
    running: new Map(),
    look: null,
    looks: 0,
    again: false,
    nextLookAtMs: now,
    inVain: 0,
    more: new Set(),
  }
}

export function nextJobsTickMs(state: JobsState): number {
  return state.mode === 'running' && state.look === null && state.kinds.size > 0
    ? state.nextLookAtMs
    : Number.POSITIVE_INFINITY
}

export function stepJobs(before: JobsState, event: JobsEvent, now: number): Step {
  if (before.mode === 'stopped') return { state: before, effects: lateClaims(event) }
  const { state, effects } = handle(before, event, now)
  if (state.mode !== 'running' || state.look !== null || state.nextLookAtMs > now)
    return { state, effects }
  const looking = beginLook(state)
  return { state: looking.state, effects: [...effects, ...looking.effects] }
}

function handle(state: JobsState, event: JobsEvent, now: number): Step {
  switch (event.kind) {
    case 'tick':
      return { state, effects: [] }
    case 'added':
      return added(state, event.job, now)
    case 'hint':
      return state.kinds.has(event.job)
        ? { state: wantMore(state, event.job, now), effects: [] }
        : { state, effects: [] }
    case 'freed':
      return { state: want(state, now), effects: [] }
    case 'looked':
      return state.look?.id === event.id
        ? looked(state, event, now)
        : { state, effects: lateClaims(event) }
    case 'lookFailed':
      return state.look?.id === event.id ? failed(state, now) : { state, effects: [] }
    case 'ended':
      return { state: ended(state, event, now), effects: [] }
    case 'drain':
      return { state: { ...state, mode: 'draining' }, effects: [] }
    case 'stop':
      return { state: { ...state, mode: 'stopped', look: null }, effects: [] }
  }
}

function ended(
  state: JobsState,
  { id, ordered, dueInMs }: Extract<JobsEvent, { kind: 'ended' }>,
  now: number,
): JobsState {
  const kind = state.running.get(id)
  const running = new Map(state.running)
  running.delete(id)
  const without = { ...state, running }
  if (ordered || (kind !== undefined && state.more.has(kind))) return wantSoon(without, now)
  if (dueInMs === null) return without
  // A look that is on its way may have missed it.
  return state.look === null
    ? { ...without, nextLookAtMs: Math.min(state.nextLookAtMs, now + dueInMs + timerMs) }
    : { ...without, again: true }
}

/** This node takes as many as it can; the others get a hint of the rest. */
function added(state: JobsState, job: string, now: number): Step {
  const isTaken = state.mode === 'running' && freeOf(state, job) > 0
  return {
    state: state.kinds.has(job) ? wantMore(state, job, now) : state,
    effects: isTaken ? [] : [{ kind: 'hint', job }],
  }
}

/** A node whose places for the kind are taken looks when one of them is free. */
function wantMore(state: JobsState, job: string, now: number): JobsState {
  return freeOf(state, job) > 0
    ? want(state, now)
    : { ...state, more: new Set(state.more).add(job) }
}

function want(state: JobsState, now: number): JobsState {
  return state.look === null ? { ...state, nextLookAtMs: now } : { ...state, again: true }
}

/** Jobs end in groups, as their commits do: one look fills the places of all of them. */
function wantSoon(state: JobsState, now: number): JobsState {
  if (state.look !== null) return { ...state, again: true }
  const atMs = state.running.size === 0 ? now : now + gatherMs
  return { ...state, nextLookAtMs: Math.min(state.nextLookAtMs, atMs) }
}

function freeOf({ kinds, running }: JobsState, job: string): number {
  const taken = [...running.values()].filter((kind) => kind === job).length
  return Math.max(0, (kinds.get(job) ?? 0) - taken)
}

function beginLook(state: JobsState): Step {
  const free = new Map<string, number>()
  const more = new Set(state.more)
  for (const job of state.kinds.keys()) {
    const count = freeOf(state, job)
    if (count > 0) free.set(job, count)
    else more.add(job)
  }
  // With all places taken there is nothing to look for until one is free.
  if (free.size === 0)
    return {
      state: { ...state, more, nextLookAtMs: Number.POSITIVE_INFINITY },
      effects: [],
    }
  const id = state.looks + 1
  return {
    state: { ...state, more, looks: id, look: { id, free }, again: false },
    effects: [{ kind: 'look', id, free }],
  }
}

function looked(
  state: JobsState,
  event: Extract<JobsEvent, { kind: 'looked' }>,
  now: number,
): Step {
  const free = state.look?.free ?? new Map<string, number>()
  if (state.mode !== 'running')
    return { state: { ...state, look: null }, effects: lateClaims(event) }
  const running = new Map(state.running)
  const counts = new Map<string, number>()
  for (const { id, kind } of event.claimed) {
    running.set(id, kind)
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  const more = new Set(state.more)
  const full: string[] = []
  for (const [job, asked] of free) {
    if ((counts.get(job) ?? 0) < asked) more.delete(job)
    else {
      more.add(job)
      full.push(job)
    }
  }
  const left = event.next.filter(({ kind }) => !full.includes(kind))
  const overdue = left.filter(({ dueInMs }) => dueInMs <= 0).map(({ kind }) => kind)
  const inVain = overdue.length === 0 || event.claimed.length > 0 ? 0 : state.inVain + 1
  const dueAtMs = left
    .filter(({ dueInMs }) => dueInMs > 0)
    .map(({ dueInMs }) => now + dueInMs + timerMs)
  const againMs = overdue.length === 0 ? Number.POSITIVE_INFINITY : now + pauseMs(inVain)
  const effects: JobsEffect[] = full
    .filter((job) => event.next.some(({ kind, dueInMs }) => kind === job && dueInMs <= 0))
    .map((job) => ({ kind: 'hint', job }))
  if (event.claimed.length > 0)
    effects.unshift({ kind: 'start', ids: event.claimed.map(({ id }) => id) })
  if (overdue.length > 0) effects.push({ kind: 'setAside', kinds: overdue })
  return {
    state: {
      ...state,
      look: null,
      running,
      more,
      inVain,
      again: false,
      nextLookAtMs: state.again ? now : Math.min(now + event.idleMs, againMs, ...dueAtMs),
    },
    effects,
  }
}

function failed(state: JobsState, now: number): Step {
  const inVain = state.inVain + 1
  return {
    state: { ...state, look: null, inVain, nextLookAtMs: now + pauseMs(inVain) },
    effects: [],
  }
}

function pauseMs(inVain: number): number {
  return backoffMs(inVain - 1, { firstMs: againFirstMs, maxMs: againMaxMs })
}

function lateClaims(event: JobsEvent): JobsEffect[] {
  if (event.kind !== 'looked' || event.claimed.length === 0) return []
  return [{ kind: 'giveBack', ids: event.claimed.map(({ id }) => id) }]
}
