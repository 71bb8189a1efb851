import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Change } from '#change-feed/change.ts'
import { parseSnapshot } from '#change-feed/snapshot.ts'
import type { Token } from '#change-feed/token.ts'
import { CacheMachine } from '#cache/cache-machine.ts'
import { cacheDefaults } from '#cache/cache-state.ts'
import type {
  CacheConfig,
  CacheEffect,
  CacheEvent,
  CacheResult,
  Loaded,
} from '#cache/cache-state.ts'
import type { Dependency } from '#cache/dependency.ts'

const epoch = '7.1.1'
const row = (key: string): Dependency => ({ kind: 'row', collection: 'c', key })
const change = (xid: number, key: string): Change => ({
  xid,
  collection: 'c',
  key,
  operation: 'update',
  before: null,
  after: null,
})

class Machine {
  readonly cache: CacheMachine<string>
  #requests = 0

  constructor(config: Partial<CacheConfig> = {}) {
    this.cache = new CacheMachine({ ...cacheDefaults, leaseMs: 1_000, ...config })
    this.step({ kind: 'flush', reason: 'start', epoch, cursor: parseSnapshot('10:10:'), lsn: 5 }, 0)
    this.lease(0)
  }

  step(event: CacheEvent<string>, now: number): CacheEffect<string>[] {
    return this.cache.step(event, now)
  }

  lease(at: number): CacheEffect<string>[] {
    return this.step({ kind: 'lease', polledAtMs: at, provenAtMs: at }, at)
  }

  get(
    key: string,
    now: number,
    options: { token?: Token; deadlineMs?: number; part?: boolean } = {},
  ): CacheEffect<string>[] {
    this.#requests += 1
    return this.step(
      {
        kind: 'get',
        request: this.#requests,
        key,
        token: options.token ?? null,
        dependencies: [row(key)],
        deadlineMs: options.deadlineMs ?? now + 5_000,
        part: options.part ?? false,
      },
      now,
    )
  }

  filled(now: number, at: string, more: Partial<Loaded<string>> = {}): CacheEffect<string>[] {
    return this.step(
      {
        kind: 'filled',
        fill: this.cache.fills.lastId,
        value: `v${now}`,
        bytes: 10,
        epoch,
        snapshot: parseSnapshot(at),
        dependencies: [row('k')],
        asOfMs: null,
        stale: false,
        ...more,
      },
      now,
    )
  }

  apply(cursor: string, ...changes: Change[]): void {
    this.step({ kind: 'apply', cursor: parseSnapshot(cursor), lsn: 6, changes }, 0)
  }
}

function results(effects: readonly CacheEffect<string>[]): unknown[] {
  return effects.flatMap((effect) => (effect.kind === 'result' ? [textOf(effect.result)] : []))
}

function textOf(result: CacheResult<string>): string {
  if (result.kind === 'refused') return result.reason
  return result.kind === 'failed' ? 'failed' : `${result.kind} ${result.value}`
}

test('a miss loads once for all readers; then it is a hit', () => {
  const machine = new Machine()
  assert.deepEqual(
    machine.get('k', 1).map((effect) => effect.kind),
    ['load'],
  )
  assert.deepEqual(machine.get('k', 2), [])
  assert.deepEqual(results(machine.filled(3, '10:10:')), ['filled v3', 'filled v3'])
  assert.deepEqual(results(machine.get('k', 4)), ['hit v3'])
  assert.equal(machine.cache.hit('k', 4)?.value, 'v3')
})

test('a fill that does not see an applied change is returned and not kept', () => {
  const machine = new Machine()
  machine.get('k', 1)
  machine.apply('11:11:', change(10, 'k'))
  assert.deepEqual(results(machine.filled(3, '10:10:')), ['filled v3'])
  assert.equal(machine.cache.entries.size, 0)
  assert.equal(machine.cache.counts.fenced, 1)
})

test('a fill that sees the change is kept, whenever the change arrived', () => {
  const machine = new Machine()
  machine.get('k', 1)
  machine.apply('11:11:', change(10, 'k'))
  machine.filled(3, '11:11:')
  assert.equal(machine.cache.entries.size, 1)
  machine.apply('12:12:', { ...change(10, 'k') })
  assert.equal(machine.cache.entries.size, 1, 'a change that the entry has seen does not drop it')
  machine.apply('13:13:', change(12, 'k'))
  assert.equal(machine.cache.entries.size, 0)
})

test('an invalidated fill is detached: later readers get their own', () => {
  const machine = new Machine()
  machine.get('k', 1)
  machine.apply('11:11:', change(10, 'k'))
  assert.deepEqual(
    machine.get('k', 2).map((effect) => effect.kind),
    ['load'],
  )
  assert.deepEqual(
    results(
      machine.step(
        {
          kind: 'filled',
          fill: 1,
          value: 'old',
          bytes: 1,
          epoch,
          snapshot: parseSnapshot('10:10:'),
          dependencies: [row('k')],
          asOfMs: null,
          stale: false,
        },
        3,
      ),
    ),
    ['filled old'],
  )
  assert.deepEqual(results(machine.filled(4, '11:11:')), ['filled v4'])
})

test('a reader that joined after a change only the loader could name gets another fill', () => {
  const machine = new Machine()
  machine.get('k', 1)
  machine.apply('11:11:', change(10, 'part'))
  assert.deepEqual(machine.get('k', 2), [])
  const effects = machine.filled(3, '10:10:', { dependencies: [row('part')] })
  assert.deepEqual(results(effects), ['filled v3'])
  assert.ok(effects.some((effect) => effect.kind === 'load'))
})

test('a fill from another epoch is not kept, and its readers wait for the feed', () => {
  const machine = new Machine()
  machine.get('k', 1)
  assert.deepEqual(
    machine.filled(2, '10:10:', { epoch: '7.2.2' }).map((effect) => effect.kind),
    ['want'],
  )
  machine.step(
    { kind: 'flush', reason: 'epoch', epoch: '7.2.2', cursor: parseSnapshot('10:10:'), lsn: 1 },
    3,
  )
  assert.deepEqual(
    machine.lease(3).map((effect) => effect.kind),
    ['load'],
  )
})

test('a token that the cursor does not see waits for one poll, and then is refused', () => {
  const machine = new Machine()
  machine.get('k', 1)
  machine.filled(2, '10:10:')
  assert.deepEqual(
    machine.get('k', 3, { token: { epoch, xid: 10 } }).map((effect) => effect.kind),
    ['want'],
  )
  assert.deepEqual(machine.lease(2), [], 'a poll that began before the reader came proves nothing')
  machine.apply('11:11:', change(10, 'k'))
  assert.deepEqual(
    machine.lease(4).map((effect) => effect.kind),
    ['load'],
  )
  machine.get('k', 5, { token: { epoch, xid: 99 } })
  assert.deepEqual(results(machine.lease(6)), ['token'])
  machine.get('k', 7, { token: { epoch: '7.9.9', xid: 1 } })
  assert.deepEqual(results(machine.lease(8)), ['token'])
})

test('tokens of an earlier epoch and of other systems are ignored', () => {
  const machine = new Machine()
  machine.get('k', 1)
  machine.filled(2, '10:10:')
  assert.deepEqual(results(machine.get('k', 3, { token: { epoch: '7.1.0', xid: 999 } })), [
    'hit v2',
  ])
  machine.get('k', 4, { token: { epoch: '8.1.1', xid: 999 } })
  assert.deepEqual(results(machine.lease(5)), ['hit v2'])
})

test('a reader with a token does not join a fill that began before the token was seen', () => {
  const machine = new Machine()
  machine.get('k', 1)
  machine.apply('11:11:', change(10, 'other'))
  assert.deepEqual(
    machine.get('k', 2, { token: { epoch, xid: 10 } }).map((effect) => effect.kind),
    ['load'],
  )
})

test('past the lease a reader waits, then gets a stale value; a new lease makes it fresh', () => {
  const machine = new Machine({ leaseWaitMs: 100, staleMs: 5_000 })
  machine.get('k', 1)
  machine.filled(2, '10:10:')
  assert.equal(machine.cache.hit('k', 1_000), undefined)
  assert.deepEqual(
    machine.get('k', 2_000).map((effect) => effect.kind),
    ['want'],
  )
  assert.deepEqual(results(machine.lease(2_001)), ['hit v2'])
  machine.get('k', 4_000)
  assert.deepEqual(machine.step({ kind: 'tick' }, 4_050), [])
  assert.deepEqual(results(machine.step({ kind: 'tick' }, 4_100)), ['stale v2'])
  machine.step({ kind: 'lost' }, 4_200)
  assert.deepEqual(
    results(machine.get('k', 4_300)),
    ['stale v2'],
    'no reader waits for a database that is known to be away',
  )
})

test('stale values end too: after that readers are refused', () => {
  const machine = new Machine({ leaseWaitMs: 10, staleMs: 1_000 })
  machine.get('k', 1)
  machine.filled(2, '10:10:')
  machine.step({ kind: 'lost' }, 100)
  assert.equal(machine.cache.staleHit('k', 1_999)?.value, 'v2')
  assert.deepEqual(results(machine.get('k', 1_999)), ['stale v2'])
  assert.equal(machine.cache.staleHit('k', 2_001), undefined)
  assert.deepEqual(machine.get('k', 2_001), [])
  assert.deepEqual(results(machine.step({ kind: 'tick' }, 2_010)), [])
  assert.deepEqual(results(machine.step({ kind: 'tick' }, 2_011)), ['away'])
})

test('while the database is away no reader waits beyond a lease, and nothing is loaded', () => {
  const machine = new Machine({ leaseWaitMs: 10 })
  machine.get('k', 900)
  machine.step({ kind: 'lost' }, 950)
  assert.equal(machine.cache.staleHit('k', 950), undefined, 'the lease still holds')
  // With the lease over: a reader in a fill, one without an entry, and one whose token waits for a
  // poll.
  assert.deepEqual(machine.get('other', 1_100), [])
  assert.deepEqual(results(machine.step({ kind: 'tick' }, 2_000)), [], 'a hiccup is waited out')
  assert.deepEqual(results(machine.step({ kind: 'tick' }, 2_001)), ['away', 'away'])
  assert.deepEqual(machine.get('other', 2_002), [])
  assert.deepEqual(
    machine.get('k', 2_003, { token: { epoch, xid: 50 } }).map((effect) => effect.kind),
    ['want'],
  )
  assert.deepEqual(results(machine.step({ kind: 'lost' }, 2_005)), [])
  assert.deepEqual(results(machine.step({ kind: 'tick' }, 2_014)), ['away', 'away'])
  assert.deepEqual(machine.get('other', 2_020), [])
  assert.deepEqual(
    machine.lease(2_025).map((effect) => effect.kind),
    ['load'],
  )
  assert.equal(machine.cache.waiting, 1)
})

test('a fill does not prove that the primary is current: without a lease its readers wait', () => {
  const machine = new Machine({ leaseWaitMs: 10_000 })
  machine.get('k', 5_000)
  assert.deepEqual(
    machine.filled(5_001, '10:10:').map((effect) => effect.kind),
    ['want'],
  )
  assert.deepEqual(results(machine.lease(5_002)), ['hit v5001'])
})

test('a value made of a stale one is marked and not kept', () => {
  const machine = new Machine()
  machine.get('k', 1)
  assert.deepEqual(results(machine.filled(2, '10:10:', { stale: true })), ['stale v2'])
  assert.equal(machine.cache.entries.size, 0)
})

test('a failed fill fails its readers, and the next one tries again', () => {
  const machine = new Machine()
  machine.get('k', 1)
  machine.get('k', 1)
  assert.deepEqual(
    results(machine.step({ kind: 'fillFailed', fill: 1, error: new Error('no') }, 2)),
    ['failed', 'failed'],
  )
  assert.deepEqual(
    machine.get('k', 3).map((effect) => effect.kind),
    ['load'],
  )
})

test('fills and readers beyond the limits are refused', () => {
  const machine = new Machine({ fillsMax: 2, waitersMax: 3 })
  machine.get('a', 1)
  machine.get('b', 1)
  assert.deepEqual(results(machine.get('c', 1)), ['overload'])
  machine.get('b', 1)
  assert.deepEqual(results(machine.get('b', 1)), ['overload'])
  assert.equal(machine.cache.waiting, 3)
})

test('a loader that never ends takes its place for a while only', () => {
  const machine = new Machine({ fillsMax: 2 })
  machine.get('a', 1)
  machine.get('b', 1)
  machine.lease(5_001)
  assert.deepEqual(results(machine.step({ kind: 'tick' }, 5_001)), ['deadline', 'deadline'])
  assert.deepEqual(results(machine.get('c', 5_002)), ['overload'])
  machine.lease(30_001)
  assert.deepEqual(
    machine.get('c', 30_001).map((effect) => effect.kind),
    ['load'],
  )
  assert.deepEqual(
    machine.step(
      {
        kind: 'filled',
        fill: 1,
        value: 'late',
        bytes: 10,
        epoch,
        snapshot: parseSnapshot('10:10:'),
        dependencies: [row('a')],
        asOfMs: null,
        stale: false,
      },
      30_002,
    ),
    [],
  )
  assert.equal(machine.cache.entries.size, 0)
})

test('parts of running fills have a limit of their own', () => {
  const machine = new Machine({ fillsMax: 2, waitersMax: 2 })
  machine.get('a', 1)
  machine.get('b', 1)
  for (let part = 1; part <= 8; part += 1)
    assert.deepEqual(
      machine.get(`part ${part}`, 1, { part: true }).map((effect) => effect.kind),
      ['load'],
    )
  assert.deepEqual(results(machine.get('part 9', 1, { part: true })), ['overload'])
  assert.deepEqual(
    results(
      machine.step(
        {
          kind: 'filled',
          fill: 3,
          value: 'v',
          bytes: 10,
          epoch,
          snapshot: parseSnapshot('10:10:'),
          dependencies: [],
          asOfMs: null,
          stale: false,
        },
        2,
      ),
    ),
    ['filled v'],
  )
  assert.deepEqual(
    machine.get('part 9', 3, { part: true }).map((effect) => effect.kind),
    ['load'],
  )
  assert.deepEqual(results(machine.get('c', 3)), ['overload'])
})

test('memory is bounded in bytes, and unused entries go first', () => {
  const machine = new Machine({ bytesMax: 25, entryBytesMax: 20 })
  for (const key of ['a', 'b']) {
    machine.get(key, 1)
    machine.filled(1, '10:10:', { dependencies: [row(key)] })
  }
  machine.get('a', 2)
  machine.get('c', 3)
  machine.filled(3, '10:10:', { dependencies: [row('c')] })
  assert.equal(machine.cache.entries.get('b'), undefined)
  assert.equal(machine.cache.entries.size, 2)
  assert.equal(machine.cache.entries.bytes, 20)
  machine.get('huge', 4)
  assert.deepEqual(
    results(machine.filled(4, '10:10:', { bytes: 21, dependencies: [row('huge')] })),
    ['filled v4'],
  )
  assert.equal(machine.cache.entries.get('huge'), undefined)
})

test('a node without its first proof reads once and waits, however long the proof takes', () => {
  const machine = new Machine({ leaseWaitMs: 100 })
  machine.step({ kind: 'lease', polledAtMs: 1, provenAtMs: Number.NEGATIVE_INFINITY }, 1)
  assert.deepEqual(
    machine.get('k', 2).map((effect) => effect.kind),
    ['load'],
  )
  assert.deepEqual(results(machine.filled(3, '10:10:')), [])
  for (let now = 100; now < 4_900; now += 100) {
    const effects = [
      ...machine.step(
        { kind: 'lease', polledAtMs: now, provenAtMs: Number.NEGATIVE_INFINITY },
        now,
      ),
      ...machine.step({ kind: 'tick' }, now),
    ]
    assert.deepEqual(
      effects.filter((effect) => effect.kind !== 'want'),
      [],
      'it is neither read again nor refused',
    )
  }
  assert.deepEqual(
    results(machine.step({ kind: 'lease', polledAtMs: 4_950, provenAtMs: 4_940 }, 4_950)),
    ['hit v3'],
  )
})

test('the second level is believed only as far as the ring reaches', () => {
  const machine = new Machine({ secondLevel: true })
  const found = {
    value: 'second',
    bytes: 1,
    snapshot: parseSnapshot('10:10:'),
    dependencies: [row('k')],
    epoch,
  }
  assert.deepEqual(
    machine.get('k', 1).map((effect) => effect.kind),
    ['secondGet'],
  )
  assert.deepEqual(results(machine.step({ kind: 'second', fill: 1, found }, 2)), ['hit second'])
  machine.apply('11:11:', change(10, 'k'))
  const wrong = [
    found,
    { ...found, epoch: '7.0.1', snapshot: parseSnapshot('99:99:') },
    { ...found, snapshot: parseSnapshot('9:9:') },
    null,
  ]
  wrong.forEach((one, index) => {
    const xid = 20 + index
    machine.get('k', 3)
    assert.deepEqual(
      machine
        .step({ kind: 'second', fill: machine.cache.fills.lastId, found: one }, 4)
        .map((effect) => effect.kind),
      ['load'],
    )
    assert.ok(machine.filled(5, `${xid}:${xid}:`).some((effect) => effect.kind === 'secondPut'))
    machine.apply(`${xid + 1}:${xid + 1}:`, change(xid, 'k'))
  })
})

test('a fill from a replica is as new as the cursor it waited for', () => {
  const machine = new Machine({ replica: true })
  assert.deepEqual(machine.get('k', 1), [
    { kind: 'load', fill: 1, key: 'k', request: 1, replica: { lsn: 5, epoch } },
  ])
  machine.apply('11:11:', change(10, 'k'))
  machine.filled(2, '10:10:', { snapshot: null })
  assert.equal(machine.cache.entries.size, 0)
})
