import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { ContentType } from '#content/content-type.ts'
import { FilterValueTooLongError } from '#content/query/errors.ts'
import { filterOf, normalInstant, normalValue, querySchema } from '#content/query/normal-form.ts'
import { compareText } from '#lib/scalar.ts'

const article: ContentType = {
  name: 'article',
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text', filterable: true },
    { name: 'secret', kind: 'text' },
    { name: 'code', kind: 'text', unique: true },
    { name: 'slug', kind: 'slug' },
    { name: 'rank', kind: 'number', filterable: true },
    { name: 'hot', kind: 'boolean', filterable: true },
    { name: 'day', kind: 'dateTime', filterable: true },
    { name: 'tags', kind: 'select', options: ['a', 'b'], many: true, filterable: true },
    { name: 'author', kind: 'reference', filterable: true },
    { name: 'scores', kind: 'list', of: { name: 'score', kind: 'number' }, filterable: true },
    {
      name: 'pairs',
      kind: 'list',
      of: { name: 'pair', kind: 'select', options: ['a'], many: true },
      filterable: true,
    },
    {
      name: 'parts',
      kind: 'list',
      of: { name: 'part', kind: 'group', fields: [] },
      filterable: true,
    },
    { name: 'constructor', kind: 'text', filterable: true },
  ],
}

test('the fields that queries can use, with their types', () => {
  const own = [...querySchema(article).values()].filter((field) => !field.system)
  assert.deepEqual(
    own.map((field) => `${field.name}:${field.type}${field.many ? '[]' : ''}`),
    [
      'title:text',
      'code:text',
      'slug:text',
      'rank:number',
      'hot:boolean',
      'day:instant',
      'tags:text[]',
      'author:id',
      'scores:number[]',
      'constructor:text',
    ],
  )
  assert.equal(querySchema(article), querySchema(article))
  assert.equal(querySchema(article).has('type'), false)
})

test('the normal form keeps what is filterable and leaves out what is missing', () => {
  const id = '0197a000-0000-7000-8000-000000000000'
  const fields = {
    title: 'Hi',
    secret: 'x',
    rank: -0,
    hot: false,
    day: '2026-02-01T01:00:00+02:00',
    tags: ['b', 'b', 'a'],
    author: id,
    scores: [],
  }
  const found = filterOf(article, fields)
  assert.deepEqual(found, {
    title: 'Hi',
    rank: 0,
    hot: false,
    day: '2026-01-31T23:00:00.000Z',
    tags: ['b', 'a'],
    author: id,
  })
  assert.ok(Object.is(found['rank'], 0))
  assert.deepEqual(filterOf(article, { title: null, rank: undefined, tags: null }), {})
})

test('a filterable text that no index could hold is refused', () => {
  assert.deepEqual(Object.keys(filterOf(article, { title: 'é'.repeat(300) })), ['title'])
  assert.throws(() => filterOf(article, { title: `${'é'.repeat(300)}a` }), FilterValueTooLongError)
  assert.throws(() => filterOf(article, { tags: ['a', '😀'.repeat(151)] }), FilterValueTooLongError)
})

const instants: [string, string | null][] = [
  ['2026-02-28', '2026-02-28T00:00:00.000Z'],
  ['2026-02-28T10:20Z', '2026-02-28T10:20:00.000Z'],
  ['2026-02-28 10:20:30+0530', '2026-02-28T04:50:30.000Z'],
  ['2026-02-28T10:20:30.1239-23:59', '2026-03-01T10:19:30.123Z'],
  ['0000-01-01T00:00:00Z', '0000-01-01T00:00:00.000Z'],
  ['9999-12-31T23:59:59.999Z', '9999-12-31T23:59:59.999Z'],
  ['9999-12-31T23:59:59.999-00:01', null],
  ['0000-01-01T00:00:00+00:01', null],
  ['2026-02-30', null],
  ['2026-01-01T24:00:00Z', null],
  ['2026-01-01T23:59:60Z', null],
  ['2026-01-01T10:00:00', null],
  ['2026-01-01T10:00:00+24:00', null],
  ['2026-01-01T10:00:00+01:60', null],
  ['26-01-01', null],
  ['now', null],
  ['', null],
]
for (const [text, expected] of instants) {
  test(`the instant ${JSON.stringify(text)} is ${expected ?? 'refused'}`, () =>
    assert.equal(normalInstant(text), expected))
}

test('an instant in normal form stays as it is, and text order is time order', () => {
  const instant = fc.date({
    min: new Date('0000-01-01T00:00:00.000Z'),
    max: new Date('9999-12-31T23:59:59.999Z'),
    noInvalidDate: true,
  })
  fc.assert(
    fc.property(instant, instant, (a, b) => {
      assert.equal(normalInstant(a.toISOString()), a.toISOString())
      assert.equal(
        Math.sign(a.getTime() - b.getTime()),
        Math.sign(compareText(a.toISOString(), b.toISOString())),
      )
    }),
  )
})

test('what is none of the type has no normal form', () => {
  for (const text of ['a\0b', '\ud800', '\udc00x', 1, null, ['a']])
    assert.equal(normalValue('text', text), null)
  for (const number of [Number.NaN, Number.POSITIVE_INFINITY, '1', null])
    assert.equal(normalValue('number', number), null)
  for (const id of ['', 'x', '0197A000-0000-7000-8000-000000000000'])
    assert.equal(normalValue('id', id), null)
  assert.equal(normalValue('boolean', 'true'), null)
})
