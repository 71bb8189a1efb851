import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { JsonMalformedError } from '#api/problems/errors.ts'
import { parseJson } from '#api/http/json-body.ts'
import { malformedAt } from '#api/http/json-position.ts'

const parse = (text: string | Buffer) => parseJson(Buffer.from(text as string), 8)

test('JSON.parse decides what is valid; a refusal has a position at or before the damage', () => {
  fc.assert(
    fc.property(
      fc.json({ maxDepth: 5 }),
      fc.nat(),
      fc.constantFrom('', 'x', '"', '{', ']', ',', ':', '\\', '\n', '0', '-', '\u0001'),
      (text, where, extra) => {
        const at = where % (text.length + 1)
        const damaged = text.slice(0, at) + extra + text.slice(at + 1)
        let valid = true
        try {
          JSON.parse(damaged)
        } catch {
          valid = false
        }
        const position = malformedAt(damaged)
        if (valid) assert.equal(position, damaged.length)
        else assert.ok(position >= 0 && position <= damaged.length)
      },
    ),
    { numRuns: 2_000 },
  )
})

test('positions', () => {
  for (const [text, position] of [
    ['{"a": oops}', 6],
    ['{"a" 1}', 5],
    ['[1,]', 3],
    ['{', 1],
    ['', 0],
    ['[1] 2', 4],
    ['"a\nb"', 2],
    ['{"a":01}', 5],
    ['"\\x"', 1],
    ['nul', 0],
  ] as const) {
    assert.equal(malformedAt(text), position, text)
  }
})

test('bytes that are not UTF-8, deep nesting and __proto__ are refused', () => {
  assert.throws(() => parse(Buffer.from([0x22, 0xff, 0x22])), /UTF-8/)
  assert.throws(
    () => parse('['.repeat(9) + ']'.repeat(9)),
    (error) => error instanceof JsonMalformedError && error.facts['position'] === 8,
  )
  assert.deepEqual(parse('['.repeat(8) + ']'.repeat(8)), [[[[[[[[]]]]]]]])
  assert.deepEqual(parse('"[[[[[[[[[[[[[["'), '[[[[[[[[[[[[[[')
  assert.throws(() => parse('{"a":[{"__proto__":1}]}'), /__proto__/)
  assert.throws(() => parse('{"\\u005f_proto__":1}'), /__proto__/)
  assert.equal(parse('"__proto__"'), '__proto__')
  assert.deepEqual(parse('\ufeff{}'), {})
})

test('a key that an object has twice is refused, however it is written', () => {
  for (const text of ['{"a":1,"a":2}', '[{"b":{"a":1, "\\u0061" : 2}}]', '{"a":{},"a":[]}'])
    assert.throws(() => parseJson(Buffer.from(text), 10), /has the key "a" twice/, text)
  for (const text of ['{"a":{"a":1},"b":[{"a":1},{"a":2}]}', '["a","a"]', '{"a":"a","b":"a\\":a"}'])
    assert.deepEqual(parseJson(Buffer.from(text), 10), JSON.parse(text), text)
})
