import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeCursor, encodeCursor } from '#content/query/cursor.ts'
import { QueryCursorError } from '#content/query/errors.ts'
import type { Sort } from '#content/query/query.ts'
import { thingSchema } from '#test/support/query-cases.ts'

const id = '0197a000-0000-7000-8000-000000000000'
const byTitle: Sort[] = [{ field: 'title', descending: false }]
const decode = (token: string, sort = byTitle, type = 'thing'): unknown =>
  decodeCursor(token, type, sort, thingSchema)
const raw = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

test('a cursor comes back as it was', () => {
  const text = fc.string({ unit: 'binary' }).filter((value) => !value.includes('\0'))
  fc.assert(
    fc.property(
      fc.option(text),
      fc.option(fc.double({ noNaN: true, noDefaultInfinity: true })),
      fc.boolean(),
      (title, rank, hot) => {
        const sort: Sort[] = [
          ...byTitle,
          { field: 'rank', descending: true },
          { field: 'hot', descending: false },
        ]
        const position = [title, rank === null ? null : rank + 0, hot, id]
        assert.deepEqual(decode(encodeCursor('thing', sort, position), sort), position)
      },
    ),
  )
})

test('a cursor of another sort, direction or type is refused', () => {
  const token = encodeCursor('thing', byTitle, ['a', id])
  assert.deepEqual(decode(token), ['a', id])
  assert.throws(() => decode(token, [{ field: 'title', descending: true }]), QueryCursorError)
  assert.throws(() => decode(token, [{ field: 'slug', descending: false }]), QueryCursorError)
  assert.throws(() => decode(token, []), QueryCursorError)
  assert.throws(() => decode(token, byTitle, 'other'), QueryCursorError)
})

test('what is no cursor is refused, whatever it is', () => {
  const token = encodeCursor('thing', byTitle, ['a', id])
  const signature = 'thing:title,id'
  const garbled = [
    '',
    'x',
    '%',
    token.slice(1),
    token.slice(0, -3),
    `${token}=`,
    `${token}!`,
    ` ${token}`,
    'a'.repeat(20_000),
    raw(1),
    raw(null),
    raw({}),
    raw([]),
    raw([signature]),
  ]
  const misfit = [
    ['a'],
    ['a', id, id],
    [1, id],
    [['a'], id],
    ['a\0', id],
    ['\ud800', id],
    ['a', null],
    ['a', 'x'],
    ['a', `${id}' or true`],
    [{}, id],
  ].map((position) => raw([signature, ...position]))
  for (const bad of [...garbled, ...misfit]) assert.throws(() => decode(bad), QueryCursorError, bad)
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (noise) =>
      assert.throws(() => decode(noise), QueryCursorError),
    ),
  )
})
