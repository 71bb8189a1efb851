import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareEpochs } from '#change-feed/epoch.ts'
import { parseSnapshot } from '#change-feed/snapshot.ts'
import { formatToken, laterToken, parseToken, tokenSeen } from '#change-feed/token.ts'

test('epochs are ordered by timeline, then life; other systems not at all', () => {
  assert.equal(compareEpochs('7.1.4', '7.1.4'), 'same')
  assert.equal(compareEpochs('7.1.9', '7.2.3'), 'older')
  assert.equal(compareEpochs('7.2.3', '7.1.9'), 'newer')
  assert.equal(compareEpochs('7.1.10', '7.1.9'), 'newer')
  assert.equal(compareEpochs('8.1.1', '7.1.1'), 'unrelated')
})

test('a token is printed and parsed; anything else is none', () => {
  const token = { epoch: '7301.1.4', xid: 918 }
  assert.deepEqual(parseToken(formatToken(token)), token)
  for (const text of [
    '',
    '-',
    '7.1.4',
    '7.1.4-',
    '7.1-5',
    '7.1.4-x',
    '7.1.4-99999999999999999999',
    'a.b.c-1',
    '7.1.4-5 ',
  ])
    assert.equal(parseToken(text), null, text)
})

test('a token is seen, unseen, ended or unknown', () => {
  const cursor = parseSnapshot('10:20:10,14')
  assert.equal(tokenSeen({ epoch: '7.1.4', xid: 13 }, '7.1.4', cursor), 'seen')
  assert.equal(tokenSeen({ epoch: '7.1.4', xid: 14 }, '7.1.4', cursor), 'unseen')
  assert.equal(tokenSeen({ epoch: '7.1.3', xid: 99 }, '7.1.4', cursor), 'ended')
  assert.equal(tokenSeen({ epoch: '7.2.5', xid: 3 }, '7.1.4', cursor), 'unknown')
  assert.equal(tokenSeen({ epoch: '8.1.1', xid: 3 }, '7.1.4', cursor), 'unknown')
})

test('the later of two tokens', () => {
  const early = { epoch: '7.1.4', xid: 13 }
  assert.deepEqual(laterToken(early, { epoch: '7.1.4', xid: 12 }), early)
  assert.deepEqual(laterToken(early, { epoch: '7.2.5', xid: 3 }), { epoch: '7.2.5', xid: 3 })
  assert.deepEqual(laterToken(null, early), early)
  assert.equal(laterToken(null, null), null)
})
