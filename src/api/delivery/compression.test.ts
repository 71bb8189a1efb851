import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chooseEncoding } from '#api/delivery/compression.ts'

test('Accept-Encoding is negotiated', () => {
  const cases: readonly (readonly [string | undefined, string | null])[] = [
    [undefined, null],
    ['', null],
    ['identity', null],
    ['gzip', 'gzip'],
    ['gzip, deflate, br, zstd', 'zstd'],
    ['gzip, br', 'br'],
    ['br;q=0.5, gzip', 'gzip'],
    ['br;q=0, gzip;q=0', null],
    ['*', 'zstd'],
    ['*;q=0', null],
    ['zstd;q=0, *', 'br'],
    ['GZIP', 'gzip'],
    ['gzip;q=x', null],
  ]
  for (const [accept, expected] of cases) assert.equal(chooseEncoding(accept), expected, accept)
})
