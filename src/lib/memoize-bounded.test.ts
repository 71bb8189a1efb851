import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoizeBounded } from '#lib/memoize-bounded.ts'

test('makes each value once while there are few, and keeps no more than the limit', () => {
  const made: string[] = []
  const lengthOf = memoizeBounded(2, (text) => {
    made.push(text)
    return text === '' ? null : text.length
  })
  assert.deepEqual(['a', 'bb', 'a', 'bb'].map(lengthOf), [1, 2, 1, 2])
  assert.deepEqual(made, ['a', 'bb'])
  assert.deepEqual([lengthOf(''), lengthOf('')], [null, null])
  lengthOf('a')
  assert.deepEqual(made, ['a', 'bb', '', 'a'], 'a third one made it begin anew')
})

test('long texts are not kept', () => {
  let made = 0
  const count = memoizeBounded(2, () => (made += 1))
  const long = 'x'.repeat(100_000)
  assert.deepEqual([count(long), count(long), count('short'), count('short')], [1, 2, 3, 3])
})

test('a failure is not kept', () => {
  let tries = 0
  const flaky = memoizeBounded(2, () => {
    tries += 1
    if (tries === 1) throw new Error('not yet')
    return tries
  })
  assert.throws(() => flaky('a'))
  assert.deepEqual([flaky('a'), flaky('a')], [2, 2])
})
