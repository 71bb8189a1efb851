import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  leads,
  liveMembers,
  nextNodesTickMs,
  preferredFor,
  startNodes,
  stepNodes,
} from '#nodes/nodes-core.ts'
import type { Member, NodesEffect, NodesEvent, NodesState, RoleRow } from '#nodes/nodes-core.ts'

const config = { leaseMs: 900, roles: ['r'] }

class Machine {
  state: NodesState

  constructor(id: string) {
    this.state = startNodes(id, 0)
  }

  step(event: NodesEvent, now: number): readonly NodesEffect[] {
    const { state, effects } = stepNodes(this.state, event, now, config)
    this.state = state
    return effects
  }

  /** A beat that starts at `now` and is answered 10 ms later. */
  beat(
    now: number,
    members: readonly Member[],
    roles: readonly RoleRow[] = [],
  ): readonly NodesEffect[] {
    this.step({ kind: 'tick' }, now)
    assert.ok(this.state.beat !== null, 'no beat was due')
    return this.step({ kind: 'beaten', id: this.state.beat.id, members, roles }, now + 10)
  }
}

const member = (id: string, counter = 1, draining = false): Member => ({ id, counter, draining })
const role = (holder: string, fence: number, renewal = 0): RoleRow => ({
  role: 'r',
  holder,
  fence,
  renewal,
})
const [first = '', second = ''] = ['a', 'b'].sort((one) =>
  preferredFor('r', [member('a'), member('b')]) === one ? -1 : 1,
)

test('joins by its first beat, takes a role that nobody has, and leads', () => {
  const machine = new Machine(first)
  assert.deepEqual(machine.beat(0, [member(first)]), [
    { kind: 'take', id: 1, role: 'r', seen: null },
  ])
  assert.deepEqual(machine.step({ kind: 'taken', role: 'r', id: 1, fence: 1 }, 20), [
    { kind: 'lead', role: 'r', fence: 1 },
  ])
  assert.equal(leads(machine.state, 'r', 20, config), 1)
})

test('a role without a row is taken by the preferred node, and by any after a lease: the preferred one may not know it', () => {
  const machine = new Machine(second)
  for (let now = 0; now < 900; now += 300)
    assert.deepEqual(machine.beat(now, [member(first, now), member(second, now)]), [])
  assert.deepEqual(machine.beat(1_200, [member(first, 1_200), member(second, 1_200)]), [
    { kind: 'take', id: 1, role: 'r', seen: null },
  ])
})

test('a leader that cannot renew steps down by its own clock, before anybody else may take over', () => {
  const machine = new Machine(first)
  machine.beat(0, [member(first)])
  machine.step({ kind: 'taken', role: 'r', id: 1, fence: 1 }, 20)
  assert.ok(nextNodesTickMs(machine.state, config) <= 10 + 900)
  assert.equal(leads(machine.state, 'r', 910, config), null)
  machine.step({ kind: 'tick' }, 300)
  assert.deepEqual(machine.step({ kind: 'tick' }, 910), [{ kind: 'stepDown', role: 'r' }])
})

test('a beat that left out a renewal, or began before the role was taken, prolongs nothing', () => {
  const machine = new Machine(first)
  machine.beat(0, [member(first)])
  machine.step({ kind: 'tick' }, 300)
  machine.step({ kind: 'taken', role: 'r', id: 1, fence: 1 }, 305)
  machine.step({ kind: 'beaten', id: 2, members: [member(first, 2)], roles: [role(first, 1)] }, 310)
  assert.equal(leads(machine.state, 'r', 909, config), 1)
  assert.equal(leads(machine.state, 'r', 910, config), null, 'it was asked for at 10')
  machine.beat(600, [member(first, 3)], [role(first, 1, 1)])
  machine.beat(900, [member(first, 4)], [role(first, 1, 1)])
  assert.equal(leads(machine.state, 'r', 1_499, config), 1)
  assert.equal(leads(machine.state, 'r', 1_500, config), null)
})

test('a renewal counts from the start of its beat', () => {
  const machine = new Machine(first)
  machine.beat(0, [member(first)])
  machine.step({ kind: 'taken', role: 'r', id: 1, fence: 1 }, 20)
  machine.beat(300, [member(first, 2)], [role(first, 1, 1)])
  assert.equal(leads(machine.state, 'r', 1_199, config), 1)
  assert.equal(leads(machine.state, 'r', 1_200, config), null)
})

test('a role whose renewals stand still is taken over with the row that was seen, the preferred node first', () => {
  for (const [id, at] of [
    [first, 900],
    [second, 1_800],
  ] as const) {
    const machine = new Machine(id)
    const others = [member(first, 1), member(second, 1)]
    let now = 0
    for (; now < at; now += 300)
      assert.deepEqual(
        machine.beat(
          now,
          others.map((one) => ({ ...one, counter: now })),
          [role('gone', 4, 7)],
        ),
        [],
        `${id} at ${now}`,
      )
    assert.deepEqual(
      machine.beat(
        now,
        others.map((one) => ({ ...one, counter: now })),
        [role('gone', 4, 7)],
      ),
      [{ kind: 'take', id: 1, role: 'r', seen: role('gone', 4, 7) }],
    )
  }
})

test('a holder that renews is left alone', () => {
  const machine = new Machine(first)
  for (let now = 0; now < 9_000; now += 300)
    assert.deepEqual(
      machine.beat(now, [member(first, now), member(second, now)], [role(second, 4, now)]),
      [],
    )
})

test('a role goes to the preferred node when that one has been there for three leases, unless it cannot take it', () => {
  for (const [roles, given] of [
    [undefined, 2_700],
    [[], null],
  ] as const) {
    const machine = new Machine(second)
    machine.beat(0, [member(second)])
    machine.step({ kind: 'taken', role: 'r', id: 1, fence: 1 }, 20)
    let releasedAt: number | null = null
    for (let now = 300; now < 6_000 && releasedAt === null; now += 300) {
      const newcomer = { ...member(first, now), ...(roles === undefined ? {} : { roles }) }
      const kinds = machine
        .beat(now, [newcomer, member(second, now)], [role(second, 1, now)])
        .map((effect) => effect.kind)
      if (kinds.length === 0) continue
      assert.deepEqual(kinds, ['release', 'stepDown'])
      releasedAt = now - 300
    }
    assert.equal(releasedAt, given)
    if (given !== null)
      assert.deepEqual(
        machine.beat(6_000, [member(first, 6_000), member(second, 6_000)], [role('', 1)]),
        [],
        'and is not taken back at once',
      )
  }
})

test('losing the row, or being fenced, ends the leadership at once', () => {
  for (const lose of [
    (machine: Machine) => machine.beat(300, [member(first, 2)], [role(second, 2, 0)]),
    (machine: Machine) => machine.step({ kind: 'fenced', role: 'r', fence: 1 }, 300),
  ]) {
    const machine = new Machine(first)
    machine.beat(0, [member(first)])
    machine.step({ kind: 'taken', role: 'r', id: 1, fence: 1 }, 20)
    assert.deepEqual(
      lose(machine).map((effect) => effect.kind),
      ['stepDown'],
    )
  }
})

test('what a node tells of itself does not wait for the time of its next beat', () => {
  const machine = new Machine(first)
  machine.beat(0, [member(first)])
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

test('drain gives up what it holds and takes nothing; leave is the end', () => {
  const machine = new Machine(first)
  machine.beat(0, [member(first)])
  machine.step({ kind: 'taken', role: 'r', id: 1, fence: 1 }, 20)
  assert.deepEqual(machine.step({ kind: 'drain' }, 30), [
    { kind: 'release', role: 'r', fence: 1 },
    { kind: 'stepDown', role: 'r' },
  ])
  assert.deepEqual(machine.beat(40, [member(first, 2, true)], [role('', 1)]), [])
  assert.deepEqual(machine.step({ kind: 'leave' }, 50), [{ kind: 'leave' }])
  assert.deepEqual(machine.step({ kind: 'tick' }, 9_999), [])
})

test('a role that comes too late is given back', () => {
  const machine = new Machine(first)
  machine.beat(0, [member(first)])
  machine.step({ kind: 'drain' }, 15)
  assert.deepEqual(machine.step({ kind: 'taken', role: 'r', id: 1, fence: 3 }, 20), [
    { kind: 'release', role: 'r', fence: 3 },
  ])
})

test('a node whose counter stands still is gone within the lease, and buried later', () => {
  const machine = new Machine(first)
  let buried = -1
  for (let now = 0; now < 30_000 && buried < 0; now += 300) {
    const effects = machine.beat(
      now,
      [member(first, now), member('dead', 5)],
      [role(first, 1, now)],
    )
    assert.equal(liveMembers(machine.state, now + 10, config).length === 2, now < 900, String(now))
    if (effects.some((effect) => effect.kind === 'bury')) buried = now
  }
  assert.equal(buried, 18_000)
})

test('roles are spread over the nodes, and each node has the same opinion', () => {
  const members = ['n1', 'n2', 'n3'].map((id) => member(id))
  const counts = new Map<string | null, number>()
  for (let index = 0; index < 300; index += 1) {
    const chosen = preferredFor(`role${index}`, members)
    assert.equal(preferredFor(`role${index}`, members.toReversed()), chosen)
    counts.set(chosen, (counts.get(chosen) ?? 0) + 1)
  }
  for (const id of ['n1', 'n2', 'n3'])
    assert.ok((counts.get(id) ?? 0) > 60, JSON.stringify([...counts]))
  assert.equal(preferredFor('r', [member('n1', 1, true)]), null)
})
