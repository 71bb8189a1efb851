import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  earlierOf,
  formatSnapshot,
  includes,
  parseSnapshot,
  parseXid,
  visible,
} from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'

const snapshots: fc.Arbitrary<Snapshot> = fc
  .tuple(
    fc.integer({ min: 3, max: 40 }),
    fc.uniqueArray(fc.integer({ min: 3, max: 60 }), { maxLength: 40 }),
  )
  .map(([floor, ids]) => {
    const xip = ids.filter((id) => id >= floor).sort((one, other) => one - other)
    const xmax = Math.max(floor, (xip.at(-1) ?? 0) + 1)
    return { xmin: xip[0] ?? xmax, xmax, xip }
  })

test('parses and prints what the server prints', () => {
  for (const text of [
    '10:10:',
    '10:20:10,14,15',
    '745:745:',
    '9007199254740990:9007199254740991:9007199254740990',
  ]) {
    assert.equal(formatSnapshot(parseSnapshot(text)), text)
  }
})

test('refuses what is not a snapshot', () => {
  for (const text of [
    '',
    '10',
    '10:20',
    '10:20:5',
    '10:20:20',
    '10:20:14,12',
    '10:20:14,14',
    '20:10:',
    'a:b:',
    '10:20:x',
    '10:20:1:2',
    '-1:2:',
    '1:9007199254740993:',
  ]) {
    assert.throws(() => parseSnapshot(text), RangeError, text)
  }
  assert.throws(() => parseXid('18446744073709551615'), RangeError)
  assert.throws(() => parseXid('1e3'), RangeError)
})

test('visible is what pg_visible_in_snapshot says', () => {
  const snapshot = parseSnapshot('10:20:10,14,15')
  const seen = Array.from({ length: 25 }, (_, xid) => xid).filter((xid) => visible(snapshot, xid))
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 18, 19])
})

test('visible by definition, for short and long lists of running transactions', () => {
  fc.assert(
    fc.property(snapshots, (snapshot) => {
      for (let xid = 0; xid < 65; xid += 1) {
        assert.equal(visible(snapshot, xid), xid < snapshot.xmax && !snapshot.xip.includes(xid))
      }
    }),
  )
})

test('includes by definition: nothing is visible in the earlier one only', () => {
  fc.assert(
    fc.property(snapshots, snapshots, (later, earlier) => {
      let expected = true
      for (let xid = 0; xid < 65; xid += 1)
        if (visible(earlier, xid) && !visible(later, xid)) expected = false
      assert.equal(includes(later, earlier), expected)
    }),
    { numRuns: 2_000 },
  )
})

test('earlierOf takes the one that sees less', () => {
  const early = parseSnapshot('10:20:10,14')
  const late = parseSnapshot('14:21:14')
  assert.equal(earlierOf(early, late), early)
  assert.equal(earlierOf(late, early), early)
})
