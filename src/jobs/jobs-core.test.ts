import assert from 'node:assert/strict'
import { test } from 'node:test'
import { nextJobsTickMs, startJobs, stepJobs } from '#jobs/jobs-core.ts'
import type { JobsEffect, JobsEvent, JobsState } from '#jobs/jobs-core.ts'

const idleMs = 5_000

/** A machine with two kinds, of which the test performs the looks. */
class Machine {
  state: JobsState = startJobs(
    new Map([
      ['mail', 2],
      ['purge', 1],
    ]),
    0,
  )
  now = 0
  effects: JobsEffect[] = []

  step(event: JobsEvent): this {
    const { state, effects } = stepJobs(this.state, event, this.now)
    this.state = state
    this.effects.push(...effects)
    return this
  }

  /** The effects since the last call, by kind. */
  take<Kind extends JobsEffect['kind']>(kind: Kind): Extract<JobsEffect, { kind: Kind }>[] {
    const found = this.effects.filter((one) => one.kind === kind)
    this.effects = this.effects.filter((one) => one.kind !== kind)
    return found as Extract<JobsEffect, { kind: Kind }>[]
  }

  looked(
    claimed: readonly (readonly [string, string])[],
    next: readonly (readonly [string, number])[] = [],
  ): this {
    return this.step({
      kind: 'looked',
      id: this.state.look!.id,
      claimed: claimed.map(([id, kind]) => ({ id, kind })),
      next: next.map(([kind, dueInMs]) => ({ kind, dueInMs })),
      idleMs,
    })
  }

  ended(id: string, { ordered = false, dueInMs = null as number | null } = {}): this {
    return this.step({ kind: 'ended', id, ordered, dueInMs })
  }
}

function idle(): Machine {
  const machine = new Machine().step({ kind: 'tick' }).looked([])
  machine.effects = []
  return machine
}

test('it looks at once, and when nothing waits again after the idle time', () => {
  const machine = new Machine().step({ kind: 'tick' })
  const [look] = machine.take('look')
  assert.deepEqual(
    [...look!.free],
    [
      ['mail', 2],
      ['purge', 1],
    ],
  )
  machine.looked([])
  assert.equal(nextJobsTickMs(machine.state), idleMs)
})

test('it looks when the next job is due, if that is sooner', () => {
  const machine = new Machine().step({ kind: 'tick' }).looked([], [['mail', 700.5]])
  assert.equal(nextJobsTickMs(machine.state), 701.5)
})

test('what this node adds it looks for at once, and the others hear nothing', () => {
  const machine = idle().step({ kind: 'added', job: 'mail' })
  assert.equal(machine.take('look').length, 1)
  assert.equal(machine.take('hint').length, 0)
})

test('what this node cannot take the others hear of', () => {
  const machine = idle().step({ kind: 'added', job: 'report' })
  assert.deepEqual(machine.take('hint'), [{ kind: 'hint', job: 'report' }])
  assert.equal(machine.take('look').length, 0)
  machine.step({ kind: 'added', job: 'purge' }).looked([['1', 'purge']])
  machine.effects = []
  machine.step({ kind: 'added', job: 'purge' })
  assert.deepEqual(machine.take('hint'), [{ kind: 'hint', job: 'purge' }])
})

test('news during a look is followed by another look', () => {
  const machine = idle().step({ kind: 'added', job: 'mail' })
  machine.step({ kind: 'added', job: 'mail' }).step({ kind: 'added', job: 'mail' })
  assert.equal(machine.take('look').length, 1, 'one look at a time')
  machine.looked([])
  assert.equal(machine.take('look').length, 1)
  machine.looked([])
  assert.equal(machine.take('look').length, 0)
})

test('a place that is free is filled soon where more may wait', () => {
  const machine = idle().step({ kind: 'added', job: 'mail' })
  machine.looked(
    [
      ['1', 'mail'],
      ['2', 'mail'],
    ],
    [['mail', -3]],
  )
  assert.deepEqual(machine.take('start')[0]!.ids, ['1', '2'])
  assert.deepEqual(machine.take('hint'), [{ kind: 'hint', job: 'mail' }], 'others may take more')
  machine.effects = []
  machine.ended('1')
  assert.equal(nextJobsTickMs(machine.state), 2, 'others may end with it')
  machine.now = 2
  machine.step({ kind: 'tick' })
  assert.deepEqual(
    [...machine.take('look')[0]!.free],
    [
      ['mail', 1],
      ['purge', 1],
    ],
  )
  machine.looked([]).ended('2')
  assert.equal(machine.take('look').length, 0, 'nothing more waits')
})

test('with all places taken it waits for one to be free', () => {
  const machine = idle().step({ kind: 'added', job: 'mail' })
  machine.looked([
    ['1', 'mail'],
    ['2', 'mail'],
    ['3', 'purge'],
  ])
  machine.effects = []
  machine.now = idleMs * 3
  machine.step({ kind: 'tick' })
  assert.equal(machine.take('look').length, 0)
  assert.equal(nextJobsTickMs(machine.state), Number.POSITIVE_INFINITY)
  machine.ended('3')
  machine.now += 2
  machine.step({ kind: 'tick' })
  assert.equal(machine.take('look').length, 1)
})

test('jobs that are due and blocked are set aside, and looked for ever more rarely', () => {
  const machine = idle().step({ kind: 'added', job: 'mail' })
  const pauses: number[] = []
  for (let round = 0; round < 9; round += 1) {
    machine.looked([], [['mail', -1]])
    assert.deepEqual(machine.take('setAside'), [{ kind: 'setAside', kinds: ['mail'] }])
    const at = nextJobsTickMs(machine.state)
    pauses.push(at - machine.now)
    machine.now = at
    machine.step({ kind: 'tick' })
  }
  assert.deepEqual(pauses, [20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000])
})

test('the next one of an order key is looked for when one has ended', () => {
  const machine = idle()
    .step({ kind: 'added', job: 'mail' })
    .looked([['1', 'mail']])
  machine.effects = []
  machine.ended('1', { ordered: true })
  assert.equal(machine.take('look').length, 1)
})

test('a job that was put back is looked for when it is due again', () => {
  const machine = idle()
    .step({ kind: 'added', job: 'mail' })
    .looked([['1', 'mail']])
  machine.effects = []
  machine.now = 100
  machine.ended('1', { dueInMs: 1_000 })
  assert.equal(nextJobsTickMs(machine.state), 1_101)
})

test('a look that fails is repeated after a pause that grows', () => {
  const machine = new Machine().step({ kind: 'tick' })
  machine.step({ kind: 'lookFailed', id: machine.state.look!.id })
  assert.equal(nextJobsTickMs(machine.state), 20)
  machine.now = 20
  machine.step({ kind: 'tick' }).step({ kind: 'lookFailed', id: 2 })
  assert.equal(nextJobsTickMs(machine.state), 60)
})

test('a node that drains claims nothing, and gives back what a late look claimed', () => {
  const machine = new Machine().step({ kind: 'tick' }).step({ kind: 'drain' })
  machine.looked([['1', 'mail']])
  assert.deepEqual(machine.take('giveBack'), [{ kind: 'giveBack', ids: ['1'] }])
  assert.equal(machine.take('start').length, 0)
  machine.effects = []
  machine.step({ kind: 'added', job: 'mail' })
  assert.equal(machine.take('look').length, 0)
  assert.deepEqual(machine.take('hint'), [{ kind: 'hint', job: 'mail' }])
})

test('one that has stopped gives back what a late look claimed', () => {
  const machine = new Machine().step({ kind: 'tick' })
  const { id } = machine.state.look!
  machine.step({ kind: 'stop' })
  machine.step({ kind: 'looked', id, claimed: [{ id: '7', kind: 'mail' }], next: [], idleMs })
  assert.deepEqual(machine.take('giveBack'), [{ kind: 'giveBack', ids: ['7'] }])
})
