import assert from 'node:assert/strict'
import { test } from 'node:test'
import { widened, WriteRecorder } from '#api/writes/write-recorder.ts'
import { formatToken } from '#change-feed/token.ts'
import type { Database } from '#database/database.ts'

const span = 2 ** 32
const nowhere = {} as Database

test('the lower half of a transaction id is completed by one that is near', () => {
  for (const [xid, xmax] of [
    [5, 7],
    [7, 5],
    [span - 1, span + 3],
    [span + 3, span - 1],
    [3 * span + 9, 3 * span + 9],
    [3 * span - 2 ** 30, 3 * span],
  ] as const) {
    assert.equal(widened(xid % span, xmax), xid)
  }
})

test('a write has a token only where its epoch is certain', () => {
  let now = { epoch: '7.1.1', leased: true }
  const recorder = new WriteRecorder(nowhere, () => now)
  recorder.wrote('41')
  const token = (epoch: string, settled: boolean): string | null => {
    const found = recorder.token({ epoch, xmax: 42, settled })
    return found === null ? null : formatToken(found)
  }
  assert.equal(token('7.1.1', true), '7.1.1-41')
  assert.equal(token('7.1.1', false), '7.1.1-41', 'the lease held')
  assert.equal(token('7.2.1', true), null, 'a failover came between')
  now = { epoch: '7.1.1', leased: false }
  recorder.wrote('43')
  assert.equal(token('7.1.1', false), '7.1.1-41', 'the place of the second one is unknown')
  assert.equal(token('7.1.1', true), '7.1.1-43')
})
