import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { compareText } from '#lib/scalar.ts'

test('text order is the byte order of UTF-8', () => {
  const text = fc.string({
    unit: fc.oneof(
      fc.constantFrom('\uffff', '\ue000', '\ud7ff', '😀', '\u{10ffff}', 'é', 'e\u0301', 'a'),
      fc.string({ minLength: 1, maxLength: 1, unit: 'binary' }),
    ),
  })
  fc.assert(
    fc.property(text, text, (a, b) => {
      assert.equal(Math.sign(compareText(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)))
    }),
    { numRuns: 2_000 },
  )
  assert.ok(compareText('\u{10000}', '\uffff') > 0)
})
