import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { compilePattern, PatternProblem, patternTextMax } from '#content/validation/pattern.ts'

/** Patterns as text, made of parts that both engines take. */
const pattern: fc.Arbitrary<string> = fc.letrec<{ part: string }>((tie) => ({
  part: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(
      'a',
      'b',
      '.',
      '[ab]',
      '[^a]',
      '\\d',
      '\\w',
      'é',
      '😀',
      '\\p{L}',
      '\\.',
      '^',
      '$',
      '',
    ),
    fc.tuple(tie('part'), tie('part')).map(([one, two]) => one + two),
    fc.tuple(tie('part'), tie('part')).map(([one, two]) => `(${one}|${two})`),
    fc
      .tuple(tie('part'), fc.constantFrom('*', '+', '?', '{2}', '{1,3}', '{2,}', '*?'))
      .map(([one, times]) => `(?:${one})${times}`),
  ),
})).part

test('agrees with the engine of JavaScript on whole values', () => {
  fc.assert(
    fc.property(
      pattern,
      fc.string({ unit: fc.constantFrom('a', 'b', '1', '.', 'é', '😀', '\n'), maxLength: 8 }),
      (source, text) => {
        const expected = new RegExp(`^(?:${source})$`, 'u').test(text)
        assert.equal(
          compilePattern(source).matches(text),
          expected,
          `${source} on ${JSON.stringify(text)}`,
        )
      },
    ),
    { numRuns: 3_000 },
  )
})

test('stays linear where backtracking would take for ever', () => {
  const hard = ['(a+)+$', '(a|a)*b', '(.*)*x', '(a?){50}a{50}', '([a-z]+)*\\d']
  for (const source of hard)
    assert.equal(compilePattern(source).matches('a'.repeat(patternTextMax - 1) + '!'), false)
})

test('says what it does not take', () => {
  for (const source of [
    '(?=a)',
    '\\1',
    '(a',
    'a)',
    '[a',
    'a{',
    '*a',
    'a**',
    'a{2,1}',
    'a{999}',
    '(?i)a',
    '\\p{Script=Greek}',
    '(a{100}){100}',
    'x'.repeat(600),
  ]) {
    assert.throws(() => compilePattern(source), PatternProblem, source)
  }
})
