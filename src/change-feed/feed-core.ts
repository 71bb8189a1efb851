import type { Change } from '#change-feed/change.ts'
import { compareEpochs } from '#change-feed/epoch.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import { includes } from '#change-feed/snapshot.ts'
import { everyRule } from '#change-feed/rules.ts'
import type { Rules } from '#change-feed/rules.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { backoffMs } from '#lib/backoff.ts'

/**
 * The change feed of one node as a pure state machine; src/change-feed/SPEC.md is its table.
 *
 * Modes: `starting`, no cursor yet, left by the first good poll; `following`, left by `stop`;
 * `stopped`, never left. One poll at a time. `now` is milliseconds of a clock that is never slower
 * than real time.
 */
export type FeedState = {
  readonly mode: 'starting' | 'following' | 'stopped'
  readonly epoch: Epoch | null
  readonly cursor: Snapshot | null
  readonly poll: {
    readonly id: number
    readonly startedAtMs: number
    readonly changesMax: number
  } | null
  readonly polls: number
  /** A reader needs a poll that starts after the one in flight. */
  readonly pollAgain: boolean
  readonly nextPollAtMs: number
  /** When the last good poll started. */
  readonly polledAtMs: number
  /** The database has no epoch, as after a crash or a promotion: the next poll begins one first. */
  readonly beginEpoch: boolean
  readonly failures: number
  readonly beat: { readonly id: number; readonly startedAtMs: number } | null
  readonly beats: number
  /**
   * For each recent value of the heartbeat counter, when the last poll that saw it started.
   * Ascending, at most `beatsKept`.
   */
  readonly beatsSeen: readonly { readonly counter: number; readonly atMs: number }[]
  /**
   * The primary was in touch with its synchronous standby, and so not replaced, at some time after
   * this.
   */
  readonly provenAtMs: number
  /** When a hint goes out; null: none is due. */
  readonly hintAtMs: number | null
  /** When a hint last went out, or, of nodes that space them, came in. */
  readonly hintedAtMs: number
  /** When this node last committed. */
  readonly committedAtMs: number
}

export type FeedConfig = {
  /** `L`: how long the cache is trusted after a poll started. */
  readonly leaseMs: number
  /**
   * At least this long between two polls that hints ask for. Longer: fewer polls under load, later
   * changes.
   */
  readonly pollGapMs: number
  /** A poll or beat without a response for so long is abandoned. */
  readonly pollTimeoutMs: number
  /**
   * Hints of one node are at least this far apart; the first goes at once. Above `hintTravelMs`
   * those of all nodes are.
   */
  readonly hintGapMs: number
  /** A batch with more changes than this is not applied: the node flushes, which is cheaper. */
  readonly changesMax: number
  readonly rules: Rules
}

export const feedDefaults: FeedConfig = {
  leaseMs: 1_000,
  pollGapMs: 2,
  pollTimeoutMs: 1_000,
  hintGapMs: 2,
  changesMax: 10_000,
  rules: everyRule,
}

/**
 * After a failed poll the next one waits this long, doubled with each further failure up to `L`/3.
 */
const retryFirstMs = 10
const beatsKept = 6
/** After failed polls, by how much fewer changes are asked for at most. */
const changesShareMin = 0.01
/**
 * A hint that came in was sent less than this ago, mostly: what this node had committed before that
 * needs no other.
 */
export const hintTravelMs = 5
/** Past this share of the lease without proof, a node writes the heartbeat itself. */
const proofShare = 0.4

export type PollResult = {
  /** Null: the database has begun a new epoch that has no name yet. */
  readonly epoch: Epoch | null
  readonly snapshot: Snapshot
  /** A WAL position at or after every commit that `snapshot` sees. */
  readonly lsn: number
  /** Changes of transactions below it may have been trimmed. */
  readonly keptFrom: number
  readonly beat: number
  /**
   * Those not visible in the cursor that was asked with. Its length is above `changesMax` if there
   * are more.
   */
  readonly changes: readonly Change[]
}

export type FeedEvent =
  | { readonly kind: 'tick' }
  /** A node committed. Carries nothing that is trusted. */
  | { readonly kind: 'hint' }
  /** A reader needs a poll that starts now or later. */
  | { readonly kind: 'want' }
  /** This node committed a write. */
  | { readonly kind: 'committed' }
  | { readonly kind: 'polled'; readonly id: number; readonly result: PollResult }
  | { readonly kind: 'pollFailed'; readonly id: number }
  /** `won`: this node's own write of the heartbeat committed. */
  | { readonly kind: 'beaten'; readonly id: number; readonly won: boolean }
  | { readonly kind: 'stop' }

export type FlushReason = 'start' | 'epoch' | 'behind' | 'too many' | 'regressed'

export type FeedEffect =
  /** `changesMax`: if there are more changes, one more than that is enough of them. */
  | {
      readonly kind: 'poll'
      readonly id: number
      readonly since: Snapshot | null
      readonly beginEpoch: boolean
      readonly changesMax: number
    }
  /** The poll is no longer waited for: its connection may be a black hole, so use another. */
  | { readonly kind: 'abandonPoll'; readonly id: number }
  /**
   * Raise the heartbeat counter from `seen` by one, committed synchronously; not if it has moved or
   * in another epoch.
   */
  | { readonly kind: 'beat'; readonly id: number; readonly seen: number; readonly epoch: Epoch }
  | {
      readonly kind: 'flush'
      readonly reason: FlushReason
      readonly epoch: Epoch
      readonly cursor: Snapshot
      readonly lsn: number
    }
  | {
      readonly kind: 'apply'
      readonly cursor: Snapshot
      readonly lsn: number
      readonly changes: readonly Change[]
    }
  /** After every good poll or beat, and after `flush` or `apply` of the same step. */
  | { readonly kind: 'lease'; readonly polledAtMs: number; readonly provenAtMs: number }
  /** A poll failed: the database, or the way to it, does not work. */
  | { readonly kind: 'lost' }
  | { readonly kind: 'sendHint' }

type Step = { readonly state: FeedState; readonly effects: readonly FeedEffect[] }

const never = Number.NEGATIVE_INFINITY

export function startFeed(now: number): FeedState {
  return {
    mode: 'starting',
    epoch: null,
    cursor: null,
    poll: null,
    polls: 0,
    pollAgain: false,
    nextPollAtMs: now,
    polledAtMs: never,
    beginEpoch: false,
    failures: 0,
    beat: null,
    beats: 0,
    beatsSeen: [],
    provenAtMs: never,
    hintAtMs: null,
    hintedAtMs: never,
    committedAtMs: never,
  }
}

/** When the machine needs its next `tick`. */
export function nextTickMs(state: FeedState, config: FeedConfig): number {
  if (state.mode === 'stopped') return Number.POSITIVE_INFINITY
  return Math.min(
    state.poll === null ? state.nextPollAtMs : state.poll.startedAtMs + config.pollTimeoutMs,
    state.beat === null ? Number.POSITIVE_INFINITY : state.beat.startedAtMs + config.pollTimeoutMs,
    state.hintAtMs ?? Number.POSITIVE_INFINITY,
  )
}

export function stepFeed(
  state: FeedState,
  event: FeedEvent,
  now: number,
  config: FeedConfig,
): Step {
  if (state.mode === 'stopped') return { state, effects: [] }
  switch (event.kind) {
    case 'tick':
      return tick(state, now, config)
    case 'hint':
      return poll(
        hinted(state, now, config),
        Math.max(now, state.polledAtMs + config.pollGapMs),
        now,
        config,
      )
    case 'want':
      return poll(state, now, now, config)
    case 'committed':
      return committed(state, now, config)
    case 'polled':
      return state.poll?.id === event.id
        ? polled(state, { ...state.poll, result: event.result }, now, config)
        : { state, effects: [] }
    case 'pollFailed':
      return state.poll?.id === event.id ? failed(state, now, config, []) : { state, effects: [] }
    case 'beaten':
      return state.beat?.id === event.id
        ? beaten(state, state.beat.startedAtMs, event.won)
        : { state, effects: [] }
    case 'stop':
      return {
        state: { ...state, mode: 'stopped', poll: null, beat: null, hintAtMs: null },
        effects: [],
      }
  }
}

function tick(before: FeedState, now: number, config: FeedConfig): Step {
  let state = before
  const effects: FeedEffect[] = []
  if (state.hintAtMs !== null && state.hintAtMs <= now) {
    state = { ...state, hintAtMs: null, hintedAtMs: now }
    effects.push({ kind: 'sendHint' })
  }
  if (state.beat !== null && state.beat.startedAtMs + config.pollTimeoutMs <= now)
    state = { ...state, beat: null }
  if (state.poll !== null && state.poll.startedAtMs + config.pollTimeoutMs <= now) {
    return failed(state, now, config, [...effects, { kind: 'abandonPoll', id: state.poll.id }])
  }
  if (!config.rules.hintsUntrusted && state.mode === 'following') {
    // The rule removed: silence is taken for "nothing happened".
    return {
      state: { ...state, polledAtMs: now, provenAtMs: now, nextPollAtMs: now + config.leaseMs / 3 },
      effects: [...effects, { kind: 'lease', polledAtMs: now, provenAtMs: now }],
    }
  }
  if (state.poll !== null || state.nextPollAtMs > now) return { state, effects }
  const started = startPoll(state, now, config)
  return { state: started.state, effects: [...effects, ...started.effects] }
}

/** Asks for a poll at `atMs`; one that is in flight is followed by another. */
function poll(state: FeedState, atMs: number, now: number, config: FeedConfig): Step {
  if (state.poll !== null)
    return { state: state.pollAgain ? state : { ...state, pollAgain: true }, effects: [] }
  if (atMs <= now) return startPoll(state, now, config)
  return { state: { ...state, nextPollAtMs: Math.min(state.nextPollAtMs, atMs) }, effects: [] }
}

function startPoll(state: FeedState, now: number, config: FeedConfig): Step {
  const id = state.polls + 1
  const changesMax = changesMaxAfter(state.failures, config)
  return {
    state: {
      ...state,
      poll: { id, startedAtMs: now, changesMax },
      polls: id,
      pollAgain: false,
      nextPollAtMs: now + idleGapMs(id, config),
    },
    effects: [{ kind: 'poll', id, since: state.cursor, beginEpoch: state.beginEpoch, changesMax }],
  }
}

/**
 * Changes can be so large that so many do not come within the deadline; the same question would
 * fail for as long as they are kept. From the second failure in a row on, half as many are asked
 * for each time: soon they come, or are too many, and the node flushes.
 */
function changesMaxAfter(failures: number, config: FeedConfig): number {
  return Math.ceil(config.changesMax * Math.max(changesShareMin, 2 ** -Math.max(0, failures - 1)))
}

/** `L`/3, less up to a tenth, so that nodes which started together do not stay in step. */
function idleGapMs(id: number, config: FeedConfig): number {
  return (config.leaseMs / 3) * (0.9 + spread(id) / 10)
}

/** From 0 to 1, and far apart for numbers that follow each other. */
function spread(id: number): number {
  return ((id * 2_654_435_761) % 1_000) / 1_000
}

/**
 * A hint makes all nodes poll, whichever node sent it. Without this each of N nodes would wake N
 * listeners once per gap. Those that have a hint due wait for one gap more, each a little longer
 * than another, and the first that sends speaks for the rest: Floyd et al., A Reliable Multicast
 * Framework for Light-weight Sessions (1997), suppress repeated requests like this. Where a hint
 * had set out before this node's commit and took longer than usual, the commit is found by the next
 * poll.
 */
function hinted(state: FeedState, now: number, config: FeedConfig): FeedState {
  if (config.hintGapMs <= hintTravelMs) return state
  if (state.hintAtMs === null) return { ...state, hintedAtMs: now }
  const covered = state.committedAtMs + hintTravelMs <= now
  return {
    ...state,
    hintedAtMs: now,
    hintAtMs: covered ? null : nextHintMs(state, now, now, config),
  }
}

/** When the hint after that of `lastMs` is due. */
function nextHintMs(state: FeedState, lastMs: number, now: number, config: FeedConfig): number {
  const longer = config.hintGapMs > hintTravelMs ? spread(state.polls + Math.floor(now)) / 2 : 0
  return lastMs + config.hintGapMs * (1 + longer)
}

function committed(before: FeedState, now: number, config: FeedConfig): Step {
  const state = { ...before, committedAtMs: now }
  const polling = poll(state, Math.max(now, state.polledAtMs + config.pollGapMs), now, config)
  if (state.hintAtMs !== null) return polling
  const atMs = nextHintMs(state, state.hintedAtMs, now, config)
  if (atMs > now) return { state: { ...polling.state, hintAtMs: atMs }, effects: polling.effects }
  return {
    state: { ...polling.state, hintedAtMs: now },
    effects: [{ kind: 'sendHint' }, ...polling.effects],
  }
}

function failed(
  state: FeedState,
  now: number,
  config: FeedConfig,
  effects: readonly FeedEffect[],
): Step {
  const waitMs = backoffMs(state.failures, { firstMs: retryFirstMs, maxMs: config.leaseMs / 3 })
  return {
    state: {
      ...state,
      poll: null,
      pollAgain: false,
      failures: state.failures + 1,
      nextPollAtMs: now + waitMs,
    },
    effects: [...effects, { kind: 'lost' }],
  }
}

function polled(
  state: FeedState,
  { startedAtMs, result }: { readonly startedAtMs: number; readonly result: PollResult },
  now: number,
  config: FeedConfig,
): Step {
  if (result.epoch === null)
    return poll({ ...state, poll: null, beginEpoch: true, nextPollAtMs: now }, now, now, config)
  const epoch = !config.rules.epoch && state.epoch !== null ? state.epoch : result.epoch
  const order = state.epoch === null ? 'newer' : compareEpochs(epoch, state.epoch)
  // A replaced primary still responds. Its response is out of date.
  if (order === 'older')
    return failed(state, now, config, [{ kind: 'abandonPoll', id: state.poll?.id ?? 0 }])
  const idle: FeedState = {
    ...state,
    poll: null,
    pollAgain: false,
    beginEpoch: false,
    failures: 0,
    epoch,
    cursor: result.snapshot,
    mode: 'following',
    polledAtMs: startedAtMs,
  }
  const begins = state.epoch === null ? 'start' : 'epoch'
  const reason = order === 'same' ? flushReason(state, result, config) : begins
  const effects: FeedEffect[] = []
  let next: FeedState
  if (reason === null) {
    next = prove(idle, result.beat, startedAtMs)
    effects.push({
      kind: 'apply',
      cursor: result.snapshot,
      lsn: result.lsn,
      changes: result.changes,
    })
  } else {
    // Proof for one epoch says nothing about another.
    next =
      order === 'same'
        ? prove(idle, result.beat, startedAtMs)
        : {
            ...idle,
            beat: null,
            beatsSeen: [{ counter: result.beat, atMs: startedAtMs }],
            provenAtMs: never,
          }
    effects.push({ kind: 'flush', reason, epoch, cursor: result.snapshot, lsn: result.lsn })
  }
  if (!config.rules.heartbeat) next = { ...next, provenAtMs: now }
  effects.push({ kind: 'lease', polledAtMs: next.polledAtMs, provenAtMs: next.provenAtMs })
  if (next.beat === null && now - next.provenAtMs > config.leaseMs * proofShare) {
    next = { ...next, beat: { id: next.beats + 1, startedAtMs: now }, beats: next.beats + 1 }
    effects.push({ kind: 'beat', id: next.beats, seen: result.beat, epoch: result.epoch })
  }
  if (!state.pollAgain) return { state: next, effects }
  const again = poll(next, Math.max(now, startedAtMs + config.pollGapMs), now, config)
  return { state: again.state, effects: [...effects, ...again.effects] }
}

/** Why the batch cannot be applied on top of the cursor; null: it can. */
function flushReason(state: FeedState, result: PollResult, config: FeedConfig): FlushReason | null {
  if (state.cursor === null) return 'start'
  if (result.keptFrom > state.cursor.xmin && config.rules.trimmedFlush) return 'behind'
  if (result.changes.length > (state.poll?.changesMax ?? config.changesMax)) return 'too many'
  // Within one epoch snapshots only grow. Where one does not, the epoch lies, and nothing may be
  // built on it.
  if (!includes(result.snapshot, state.cursor) && config.rules.epoch) return 'regressed'
  return null
}

/**
 * A poll that started at `t` saw the counter at `c`. The writer of `c + 2` began after seeing `c +
 * 1` committed, which was after `t`; and its commit, being synchronous, reached the standby. So
 * once a poll sees `c + 2`, the primary is known not to have been replaced before `t`. (`c + 1` is
 * not enough: it may have reached the standby before `t`.)
 */
function prove(state: FeedState, counter: number, startedAtMs: number): FeedState {
  let provenAtMs = state.provenAtMs
  const beatsSeen = []
  for (const seen of state.beatsSeen) {
    if (seen.counter <= counter - 2) provenAtMs = Math.max(provenAtMs, seen.atMs)
    else if (seen.counter < counter) beatsSeen.push(seen)
  }
  beatsSeen.push({ counter, atMs: startedAtMs })
  return { ...state, provenAtMs, beatsSeen: beatsSeen.slice(-beatsKept) }
}

function beaten(state: FeedState, startedAtMs: number, won: boolean): Step {
  if (!won) return { state: { ...state, beat: null }, effects: [] }
  const provenAtMs = Math.max(state.provenAtMs, startedAtMs)
  return {
    state: { ...state, beat: null, provenAtMs },
    effects: [{ kind: 'lease', polledAtMs: state.polledAtMs, provenAtMs }],
  }
}
