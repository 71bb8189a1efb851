import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  leads,
  liveNodes,
  nextNodesTickMs,
  preferredFor,
  startNodes,
  stepNodes,
} from '#nodes/nodes-core.ts'
import type { NodeRow, NodesEffect, NodesEvent, NodesState, DutyRow } from '#nodes/nodes-core.ts'

const config = { leaseMs: 900 }
const offered = ['r']

class Machine {
  state: NodesState

  constructor(id: string) {
    this.state = startNodes(id, 0, offered)
  }

  step(event: NodesEvent, now: number): readonly NodesEffect[] {
    const { state, effects } = stepNodes(this.state, event, now, config)
    this.state = state
    return effects
  }

  /** A beat that starts at `now` and returns 10 ms later. */
  beat(
    now: number,
    nodes: readonly NodeRow[],
    duties: readonly DutyRow[] = [],
  ): readonly NodesEffect[] {
    this.step({ kind: 'tick' }, now)
    assert.ok(this.state.beat !== null, 'no beat was due')
    return this.step({ kind: 'beaten', id: this.state.beat.id, nodes, duties }, now + 10)
  }
}

const node = (id: string, counter = 1, draining = false): NodeRow => ({ id, counter, draining })
const duty = (holder: string, fence: number, renewal = 0): DutyRow => ({
  duty: 'r',
  holder,
  fence,
  renewal,
})
const [first = '', second = ''] = ['a', 'b'].sort((one) =>
  preferredFor('r', [node('a'), node('b')]) === one ? -1 : 1,
)

test('joins by its first beat, takes a free duty, and leads', () => {
  const machine = new Machine(first)
  assert.deepEqual(machine.beat(0, [node(first)]), [{ kind: 'take', id: 1, duty: 'r', seen: null }])
  assert.deepEqual(machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 1 }, 20), [
    { kind: 'lead', duty: 'r', fence: 1 },
  ])
  assert.equal(leads(machine.state, 'r', 20, config), 1)
})

test('a duty without a row is taken by the preferred node, and by any node after a lease', () => {
  const machine = new Machine(second)
  for (let now = 0; now < 900; now += 300)
    assert.deepEqual(machine.beat(now, [node(first, now), node(second, now)]), [])
  assert.deepEqual(machine.beat(1_200, [node(first, 1_200), node(second, 1_200)]), [
    { kind: 'take', id: 1, duty: 'r', seen: null },
  ])
})

test('a leader that cannot renew steps down by its own clock, before others may take over', () => {
  const machine = new Machine(first)
  machine.beat(0, [node(first)])
  machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 1 }, 20)
  assert.ok(nextNodesTickMs(machine.state, config) <= 10 + 900)
  assert.equal(leads(machine.state, 'r', 910, config), null)
  machine.step({ kind: 'tick' }, 300)
  assert.deepEqual(machine.step({ kind: 'tick' }, 910), [{ kind: 'stepDown', duty: 'r' }])
})

test('a beat that left out a renewal, or began before the duty was taken, prolongs nothing', () => {
  const machine = new Machine(first)
  machine.beat(0, [node(first)])
  machine.step({ kind: 'tick' }, 300)
  machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 1 }, 305)
  machine.step({ kind: 'beaten', id: 2, nodes: [node(first, 2)], duties: [duty(first, 1)] }, 310)
  assert.equal(leads(machine.state, 'r', 909, config), 1)
  assert.equal(leads(machine.state, 'r', 910, config), null, 'it was asked for at 10')
  machine.beat(600, [node(first, 3)], [duty(first, 1, 1)])
  machine.beat(900, [node(first, 4)], [duty(first, 1, 1)])
  assert.equal(leads(machine.state, 'r', 1_499, config), 1)
  assert.equal(leads(machine.state, 'r', 1_500, config), null)
})

test('a renewal counts from the start of its beat', () => {
  const machine = new Machine(first)
  machine.beat(0, [node(first)])
  machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 1 }, 20)
  machine.beat(300, [node(first, 2)], [duty(first, 1, 1)])
  assert.equal(leads(machine.state, 'r', 1_199, config), 1)
  assert.equal(leads(machine.state, 'r', 1_200, config), null)
})

test('a duty whose renewals stand still is taken over, by the preferred node first', () => {
  for (const [id, at] of [
    [first, 900],
    [second, 1_800],
  ] as const) {
    const machine = new Machine(id)
    const others = [node(first, 1), node(second, 1)]
    let now = 0
    for (; now < at; now += 300)
      assert.deepEqual(
        machine.beat(
          now,
          others.map((one) => ({ ...one, counter: now })),
          [duty('gone', 4, 7)],
        ),
        [],
        `${id} at ${now}`,
      )
    assert.deepEqual(
      machine.beat(
        now,
        others.map((one) => ({ ...one, counter: now })),
        [duty('gone', 4, 7)],
      ),
      [{ kind: 'take', id: 1, duty: 'r', seen: duty('gone', 4, 7) }],
    )
  }
})

test('a holder that renews is left alone', () => {
  const machine = new Machine(first)
  for (let now = 0; now < 9_000; now += 300)
    assert.deepEqual(
      machine.beat(now, [node(first, now), node(second, now)], [duty(second, 4, now)]),
      [],
    )
})

test('a duty goes to the preferred node after three leases, unless that one cannot take it', () => {
  for (const [duties, given] of [
    [undefined, 2_700],
    [[], null],
  ] as const) {
    const machine = new Machine(second)
    machine.beat(0, [node(second)])
    machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 1 }, 20)
    let releasedAt: number | null = null
    for (let now = 300; now < 6_000 && releasedAt === null; now += 300) {
      const joining = { ...node(first, now), ...(duties === undefined ? {} : { duties }) }
      const kinds = machine
        .beat(now, [joining, node(second, now)], [duty(second, 1, now)])
        .map((effect) => effect.kind)
      if (kinds.length === 0) continue
      assert.deepEqual(kinds, ['release', 'stepDown'])
      releasedAt = now - 300
    }
    assert.equal(releasedAt, given)
    if (given !== null)
      assert.deepEqual(
        machine.beat(6_000, [node(first, 6_000), node(second, 6_000)], [duty('', 1)]),
        [],
        'and is not taken back at once',
      )
  }
})

test('losing the row, or being fenced, ends the leadership at once', () => {
  for (const lose of [
    (machine: Machine) => machine.beat(300, [node(first, 2)], [duty(second, 2, 0)]),
    (machine: Machine) => machine.step({ kind: 'fenced', duty: 'r', fence: 1 }, 300),
  ]) {
    const machine = new Machine(first)
    machine.beat(0, [node(first)])
    machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 1 }, 20)
    assert.deepEqual(
      lose(machine).map((effect) => effect.kind),
      ['stepDown'],
    )
  }
})

test('a new description does not wait for the time of the next beat', () => {
  const machine = new Machine(first)
  machine.beat(0, [node(first)])
  assert.deepEqual(
    machine.step({ kind: 'tick' }, 30).map((effect) => effect.kind),
    [],
  )
  machine.step({ kind: 'described' }, 31)
  assert.deepEqual(
    machine.step({ kind: 'tick' }, 31).map((effect) => effect.kind),
    ['beat'],
  )
})

test('drain releases all duties and takes none; leave is the end', () => {
  const machine = new Machine(first)
  machine.beat(0, [node(first)])
  machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 1 }, 20)
  assert.deepEqual(machine.step({ kind: 'drain' }, 30), [
    { kind: 'release', duty: 'r', fence: 1 },
    { kind: 'stepDown', duty: 'r' },
  ])
  assert.deepEqual(machine.beat(40, [node(first, 2, true)], [duty('', 1)]), [])
  assert.deepEqual(machine.step({ kind: 'leave' }, 50), [{ kind: 'leave' }])
  assert.deepEqual(machine.step({ kind: 'tick' }, 9_999), [])
})

test('a withdrawn duty is released at once, and taken again only when it is offered again', () => {
  const machine = new Machine(first)
  machine.beat(0, [node(first)])
  machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 1 }, 20)
  assert.deepEqual(machine.step({ kind: 'offer', duties: [] }, 30), [
    { kind: 'release', duty: 'r', fence: 1 },
    { kind: 'stepDown', duty: 'r' },
  ])
  assert.deepEqual(machine.beat(40, [node(first, 2)], [duty('', 1)]), [])
  machine.step({ kind: 'offer', duties: ['r'] }, 3_000)
  assert.deepEqual(
    machine.beat(3_010, [node(first, 3)], [duty('', 1)]).map((effect) => effect.kind),
    ['take'],
  )
})

test('a duty that comes too late is given back', () => {
  const machine = new Machine(first)
  machine.beat(0, [node(first)])
  machine.step({ kind: 'drain' }, 15)
  assert.deepEqual(machine.step({ kind: 'taken', duty: 'r', id: 1, fence: 3 }, 20), [
    { kind: 'release', duty: 'r', fence: 3 },
  ])
})

test('a node whose counter stands still is gone within the lease, and removed later', () => {
  const machine = new Machine(first)
  let removed = -1
  for (let now = 0; now < 30_000 && removed < 0; now += 300) {
    const effects = machine.beat(now, [node(first, now), node('dead', 5)], [duty(first, 1, now)])
    assert.equal(liveNodes(machine.state, now + 10, config).length === 2, now < 900, String(now))
    if (effects.some((effect) => effect.kind === 'remove')) removed = now
  }
  assert.equal(removed, 18_000)
})

test('duties are spread over the nodes, and each node has the same opinion', () => {
  const nodes = ['n1', 'n2', 'n3'].map((id) => node(id))
  const counts = new Map<string | null, number>()
  for (let index = 0; index < 300; index += 1) {
    const chosen = preferredFor(`duty${index}`, nodes)
    assert.equal(preferredFor(`duty${index}`, nodes.toReversed()), chosen)
    counts.set(chosen, (counts.get(chosen) ?? 0) + 1)
  }
  for (const id of ['n1', 'n2', 'n3'])
    assert.ok((counts.get(id) ?? 0) > 60, JSON.stringify([...counts]))
  assert.equal(preferredFor('r', [node('n1', 1, true)]), null)
})
