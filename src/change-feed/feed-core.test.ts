import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Change } from '#change-feed/change.ts'
import {
  feedDefaults,
  hintTravelMs,
  nextTickMs,
  startFeed,
  stepFeed,
} from '#change-feed/feed-core.ts'
import type { FeedEffect, FeedEvent, FeedState, PollResult } from '#change-feed/feed-core.ts'
import { parseSnapshot } from '#change-feed/snapshot.ts'
import { Random } from '../../sim/random.ts'

const config = { ...feedDefaults, leaseMs: 900 }

class Machine {
  state: FeedState = startFeed(0)

  step(event: FeedEvent, now: number): readonly FeedEffect[] {
    const { state, effects } = stepFeed(this.state, event, now, config)
    this.state = state
    return effects
  }

  kinds(event: FeedEvent, now: number): string[] {
    return this.step(event, now).map((effect) => effect.kind)
  }

  polled(
    now: number,
    result: Partial<PollResult> & { readonly at: string },
  ): readonly FeedEffect[] {
    const { at, ...rest } = result
    return this.step(
      {
        kind: 'polled',
        id: this.state.poll!.id,
        result: {
          epoch: '7.1.1',
          snapshot: parseSnapshot(at),
          lsn: 1,
          keptFrom: 0,
          beat: 0,
          changes: [],
          ...rest,
        },
      },
      now,
    )
  }

  static following(): Machine {
    const machine = new Machine()
    machine.step({ kind: 'tick' }, 0)
    machine.polled(1, { at: '10:10:' })
    machine.step({ kind: 'beaten', id: machine.state.beat!.id, won: true }, 2)
    return machine
  }
}

const change = (xid: number): Change => ({
  xid,
  collection: 'c',
  key: 'k',
  operation: 'update',
  before: null,
  after: null,
})

test('the first poll flushes, begins at its snapshot and proves the lease by a beat', () => {
  const machine = new Machine()
  assert.deepEqual(machine.step({ kind: 'tick' }, 0), [
    { kind: 'poll', id: 1, since: null, beginEpoch: false, changesMax: config.changesMax },
  ])
  const effects = machine.polled(1, { at: '10:10:', changes: [change(9)] })
  assert.deepEqual(
    effects.map((effect) => effect.kind),
    ['flush', 'lease', 'beat'],
  )
  assert.deepEqual(machine.step({ kind: 'beaten', id: 1, won: true }, 5), [
    { kind: 'lease', polledAtMs: 0, provenAtMs: 1 },
  ])
})

test('a database without an epoch gets one before anything is believed', () => {
  const machine = new Machine()
  machine.step({ kind: 'tick' }, 0)
  assert.deepEqual(machine.polled(1, { at: '10:10:', epoch: null }), [
    { kind: 'poll', id: 2, since: null, beginEpoch: true, changesMax: config.changesMax },
  ])
  assert.equal(machine.state.mode, 'starting')
})

test('an idle node polls every third of the lease, less a tenth at most', () => {
  const machine = Machine.following()
  const at = nextTickMs(machine.state, config)
  assert.ok(at >= 270 && at <= 300, String(at))
  assert.deepEqual(machine.kinds({ kind: 'tick' }, at - 1), [])
  assert.deepEqual(machine.kinds({ kind: 'tick' }, at), ['poll'])
})

test('a hint polls at once, hints during a poll make one more', () => {
  const machine = Machine.following()
  assert.deepEqual(machine.kinds({ kind: 'hint' }, 50), ['poll'])
  assert.deepEqual(machine.kinds({ kind: 'hint' }, 51), [])
  assert.deepEqual(machine.kinds({ kind: 'want' }, 51), [])
  assert.deepEqual(
    machine.polled(52, { at: '10:12:', changes: [change(11)] }).map((effect) => effect.kind),
    ['apply', 'lease', 'poll'],
  )
})

test('hints of one node go out at once and then at most once per gap', () => {
  const machine = Machine.following()
  assert.ok(machine.kinds({ kind: 'committed' }, 50).includes('sendHint'))
  assert.ok(!machine.kinds({ kind: 'committed' }, 50.5).includes('sendHint'))
  assert.ok(!machine.kinds({ kind: 'committed' }, 51).includes('sendHint'))
  assert.equal(nextTickMs(machine.state, config), 52)
  assert.deepEqual(machine.kinds({ kind: 'tick' }, 52), ['sendHint'])
})

test('where hints are spaced, those of others count: N nodes send about as many as one', () => {
  const [nodes, gapMs, travelMs, untilMs] = [50, 25, 1, 2_000]
  const spaced = { ...config, pollGapMs: gapMs, hintGapMs: gapMs }
  const random = new Random(1)
  const states = Array.from({ length: nodes }, () => ({
    ...Machine.following().state,
    polls: random.below(1_000),
  }))
  const arriving: { readonly atMs: number }[] = []
  const sentAtMs: number[] = []
  const committedAtMs: number[] = []
  const step = (node: number, event: FeedEvent, now: number): void => {
    const { state, effects } = stepFeed(states[node]!, event, now, spaced)
    states[node] = state
    for (const effect of effects) {
      if (effect.kind === 'sendHint') {
        sentAtMs.push(now)
        arriving.push({ atMs: now + travelMs })
      } else if (effect.kind === 'poll')
        step(
          node,
          {
            kind: 'polled',
            id: effect.id,
            result: {
              epoch: '7.1.1',
              snapshot: parseSnapshot('10:10:'),
              lsn: 1,
              keptFrom: 0,
              beat: 0,
              changes: [],
            },
          },
          now,
        )
    }
  }
  for (let now = 10; now < untilMs + 4 * gapMs; now += 0.5) {
    for (; arriving.length > 0 && arriving[0]!.atMs <= now; arriving.shift())
      for (let node = 0; node < nodes; node += 1) step(node, { kind: 'hint' }, now)
    for (let node = 0; node < nodes; node += 1) {
      if (states[node]!.hintAtMs !== null && states[node]!.hintAtMs! <= now)
        step(node, { kind: 'tick' }, now)
      if (now >= untilMs || !random.chance(0.01)) continue
      committedAtMs.push(now)
      step(node, { kind: 'committed' }, now)
    }
  }
  assert.ok(committedAtMs.length > 1_500)
  assert.ok(sentAtMs.length < (4 * untilMs) / gapMs, `${sentAtMs.length} hints`)
  for (const at of committedAtMs) {
    // A hint that was sent after it, or so shortly before it that no poll has begun for it yet.
    assert.ok(
      sentAtMs.some((sent) => sent > at - hintTravelMs && sent <= at + 2 * gapMs),
      `no hint followed the commit at ${at}`,
    )
  }
})

test('changes trimmed past the cursor, too many, or a snapshot that went back: flush', () => {
  for (const [reason, result] of [
    ['behind', { at: '20:20:', keptFrom: 11 }],
    [
      'too many',
      { at: '20:20:', changes: Array.from({ length: config.changesMax + 1 }, () => change(15)) },
    ],
    ['regressed', { at: '8:8:' }],
  ] as const) {
    const machine = Machine.following()
    machine.step({ kind: 'hint' }, 50)
    const [effect] = machine.polled(51, result)
    assert.ok(effect?.kind === 'flush' && effect.reason === reason, reason)
  }
})

test('another epoch flushes and starts without proof; an older one is not listened to', () => {
  const machine = Machine.following()
  machine.step({ kind: 'hint' }, 50)
  const effects = machine.polled(51, { at: '8:8:', epoch: '7.2.2', beat: 40 })
  assert.ok(effects[0]?.kind === 'flush' && effects[0].reason === 'epoch')
  assert.equal(machine.state.provenAtMs, Number.NEGATIVE_INFINITY)
  machine.step({ kind: 'want' }, 60)
  assert.deepEqual(
    machine.polled(61, { at: '30:30:', epoch: '7.1.1' }).map((effect) => effect.kind),
    ['abandonPoll', 'lost'],
  )
  assert.equal(machine.state.epoch, '7.2.2')
})

test('the counter proves a poll once it has risen by two since, not by one', () => {
  const machine = Machine.following()
  machine.step({ kind: 'want' }, 100)
  machine.polled(101, { at: '10:10:', beat: 5 })
  machine.step({ kind: 'want' }, 200)
  machine.polled(201, { at: '10:10:', beat: 6 })
  assert.equal(machine.state.provenAtMs, 1)
  machine.step({ kind: 'want' }, 300)
  machine.polled(301, { at: '10:10:', beat: 7 })
  assert.equal(machine.state.provenAtMs, 100)
})

test('a poll without a response is abandoned; retries are spaced and bounded', () => {
  const machine = Machine.following()
  machine.step({ kind: 'want' }, 100)
  assert.deepEqual(machine.kinds({ kind: 'tick' }, 100 + config.pollTimeoutMs), [
    'abandonPoll',
    'lost',
  ])
  const gaps = []
  let now = 100 + config.pollTimeoutMs
  for (let attempt = 0; attempt < 12; attempt += 1) {
    gaps.push(nextTickMs(machine.state, config) - now)
    now = nextTickMs(machine.state, config)
    assert.deepEqual(machine.kinds({ kind: 'tick' }, now), ['poll'])
    assert.deepEqual(machine.kinds({ kind: 'pollFailed', id: machine.state.poll!.id }, now), [
      'lost',
    ])
  }
  assert.equal(gaps[0], 10)
  assert.ok(gaps.every((gap) => gap <= 300))
})

test('after failed polls fewer changes are asked for, until a poll comes back', () => {
  const machine = Machine.following()
  const asked: number[] = []
  const attempts = 10
  for (let attempt = 0; attempt < attempts; attempt += 1) {
    const [effect] = machine.step({ kind: 'tick' }, nextTickMs(machine.state, config))
    asked.push(effect?.kind === 'poll' ? effect.changesMax : 0)
    if (attempt < attempts - 1)
      machine.step(
        { kind: 'pollFailed', id: machine.state.poll!.id },
        machine.state.poll!.startedAtMs,
      )
  }
  const most = config.changesMax
  assert.deepEqual(
    asked,
    [1, 1, 2, 4, 8, 16, 32, 64, 100, 100].map((share) => Math.ceil(most / share)),
  )
  const changes = Array.from({ length: most / 100 + 1 }, (_, at): Change => ({
    xid: 11,
    collection: 'item',
    key: String(at),
    operation: 'update',
    before: null,
    after: null,
  }))
  const { poll } = machine.state
  assert.deepEqual(
    machine
      .kinds(
        {
          kind: 'polled',
          id: poll!.id,
          result: {
            epoch: '7.1.1',
            snapshot: parseSnapshot('12:12:'),
            lsn: 1,
            keptFrom: 0,
            beat: 1,
            changes,
          },
        },
        poll!.startedAtMs + 1,
      )
      .slice(0, 1),
    ['flush'],
  )
  const [next] = machine.step({ kind: 'want' }, poll!.startedAtMs + 500)
  assert.equal(next?.kind === 'poll' ? next.changesMax : 0, most)
})

test('responses to polls and beats that were abandoned change nothing', () => {
  const machine = Machine.following()
  const before = machine.state
  assert.deepEqual(
    machine.kinds(
      {
        kind: 'polled',
        id: 99,
        result: {
          epoch: '7.1.1',
          snapshot: parseSnapshot('99:99:'),
          lsn: 9,
          keptFrom: 0,
          beat: 9,
          changes: [],
        },
      },
      50,
    ),
    [],
  )
  assert.deepEqual(machine.kinds({ kind: 'beaten', id: 99, won: true }, 50), [])
  assert.equal(machine.state, before)
})

test('after stop nothing happens', () => {
  const machine = Machine.following()
  machine.step({ kind: 'stop' }, 50)
  assert.deepEqual(machine.kinds({ kind: 'hint' }, 60), [])
  assert.equal(nextTickMs(machine.state, config), Number.POSITIVE_INFINITY)
})
