import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Change } from '#change-feed/change.ts'
import { Ring } from '#change-feed/ring.ts'
import { parseSnapshot, visible } from '#change-feed/snapshot.ts'

const change = (xid: number, key: string | null, collection = 'c'): Change => ({
  xid,
  collection,
  key,
  operation: key === null ? 'flush' : 'update',
  before: null,
  after: null,
})

test('finds the first batch with an unseen change, and only those', () => {
  const ring = new Ring(parseSnapshot('10:10:'))
  ring.append(1, parseSnapshot('11:12:'), [change(11, 'a')])
  ring.append(2, parseSnapshot('13:13:'), [change(10, 'a'), change(12, 'b')])
  assert.equal(ring.changedKey('c', 'a', parseSnapshot('10:10:')), 1)
  assert.equal(ring.changedKey('c', 'a', parseSnapshot('10:12:10')), 2)
  assert.equal(ring.changedKey('c', 'a', parseSnapshot('12:12:')), null)
  assert.equal(ring.changedKey('c', 'z', parseSnapshot('10:10:')), null)
  assert.equal(ring.changedKey('other', 'a', parseSnapshot('10:10:')), null)
  assert.equal(
    ring.changedWhere('c', parseSnapshot('12:12:'), (one) => one.key === 'b'),
    2,
  )
})

test('a flush of the collection is a change to every key of it', () => {
  const ring = new Ring(parseSnapshot('10:10:'))
  ring.append(1, parseSnapshot('11:11:'), [change(10, null)])
  assert.equal(ring.changedKey('c', 'a', parseSnapshot('10:10:')), 1)
  assert.equal(
    ring.changedWhere('c', parseSnapshot('10:10:'), () => false),
    1,
  )
})

test('changes with large rows are fewer', () => {
  const ring = new Ring(parseSnapshot('10:10:'))
  for (let xid = 10; xid < 110; xid += 1)
    ring.append(xid, { xmin: xid + 1, xmax: xid + 1, xip: [] }, [
      { ...change(xid, `key ${xid % 7}`), bytes: 1024 * 1024 },
    ])
  assert.equal(ring.size, 16)
  assert.equal(ring.covers(parseSnapshot('93:93:')), false)
  assert.equal(ring.covers(parseSnapshot('94:94:')), true)
  assert.equal(ring.changedKey('c', `key ${109 % 7}`, parseSnapshot('94:94:')), 95)
  ring.append(110, parseSnapshot('111:111:'), [{ ...change(110, 'key'), bytes: 64 * 1024 * 1024 }])
  assert.deepEqual(
    [ring.size, ring.covers(parseSnapshot('110:110:')), ring.covers(parseSnapshot('111:111:'))],
    [0, false, true],
  )
})

test('a forgotten change is not covered, and a covered one is decided exactly', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.constantFrom('a', 'b', null), { maxLength: 4 }), { maxLength: 40 }),
      fc.integer({ min: 1, max: 12 }),
      (batches, changesMax) => {
        const ring = new Ring(parseSnapshot('10:10:'), changesMax)
        const all: Change[] = []
        let xid = 10
        batches.forEach((keys, index) => {
          const changes = keys.map((key) => change(xid++, key))
          all.push(...changes)
          ring.append(index + 1, { xmin: xid, xmax: xid, xip: [] }, changes)
        })
        assert.ok(ring.size <= changesMax)
        for (let at = 10; at <= xid; at += 1) {
          const snapshot = { xmin: at, xmax: at, xip: [] }
          if (!ring.covers(snapshot)) continue
          const expected = all.some(
            (one) => (one.key === 'a' || one.key === null) && !visible(snapshot, one.xid),
          )
          assert.equal(ring.changedKey('c', 'a', snapshot) !== null, expected)
        }
        assert.ok(ring.covers({ xmin: xid, xmax: xid, xip: [] }))
      },
    ),
  )
})
