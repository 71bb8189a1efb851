import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { inexactNumber, isExact } from '#lib/exact-numbers.ts'

test('numbers that a double would change are found, and no others', () => {
  for (const numeral of [
    '750727362669608961',
    '9007199254740993',
    '1e400',
    '-0.12345678901234567891',
  ])
    assert.equal(inexactNumber(`{"a":[1,"x",{"b":${numeral}}]}`), numeral)
  const kept = [
    '0',
    '-0',
    '1.50',
    '1e3',
    '1E-7',
    '5e-324',
    '9007199254740992',
    '0.30000000000000004',
  ]
  for (const numeral of [
    ...kept,
    '0.10000000000000001',
    '100000000000000000000',
    '1.7976931348623157e308',
  ])
    assert.equal(inexactNumber(`[${numeral}]`), null, numeral)
  assert.equal(
    inexactNumber('{"750727362669608961":"750727362669608961 \\" 750727362669608961"}'),
    null,
  )
})

test('every double survives in the forms in which programs write it', () => {
  fc.assert(
    fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
      assert.ok(isExact(String(value)))
      assert.ok(isExact(value.toPrecision(17)))
      assert.equal(inexactNumber(JSON.stringify({ value })), null)
    }),
  )
})
