import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import { querySchema } from '#content/query/normal-form.ts'
import { compileComparator, compilePredicate } from '#content/query/predicate.ts'
import type { QueryRow } from '#content/query/predicate.ts'
import type { Filter, Test } from '#content/query/query.ts'

const type: ContentType = {
  name: 'thing',
  label: 'Thing',
  fields: [
    { name: 'title', kind: 'text', filterable: true },
    { name: 'rank', kind: 'number', filterable: true },
    { name: 'tags', kind: 'select', options: [], many: true, filterable: true },
    { name: 'constructor', kind: 'text', filterable: true },
  ],
}
const schema = querySchema(type)

function row(filter: QueryRow['filter'], more: Partial<QueryRow> = {}): QueryRow {
  const at = '2026-01-01T00:00:00.000Z'
  const id = '0197a000-0000-7000-8000-000000000000'
  return {
    id,
    locale: 'en',
    version: 1,
    status: 'published',
    createdAt: at,
    updatedAt: at,
    publishedAt: at,
    firstPublishedAt: at,
    createdBy: null,
    filter,
    filterRevision: 1,
    ...more,
  }
}

const compare = (field: string, test: Test): Filter => ({ op: 'compare', field, test })
const holds = (filter: Filter, data: QueryRow['filter']): boolean =>
  compilePredicate(filter, schema)(row(data))

test('a comparison with a missing value is false, and its negation true', () => {
  for (const is of ['eq', 'lt', 'lte', 'gt', 'gte'] as const) {
    const filter = compare('rank', { is, value: 1 })
    assert.equal(holds(filter, {}), false, is)
    assert.equal(holds({ op: 'not', filter }, {}), true, is)
  }
  assert.equal(holds(compare('rank', { is: 'ne', value: 1 }), {}), true)
  assert.equal(holds(compare('rank', { is: 'nin', values: [1] }), {}), true)
  assert.equal(holds(compare('rank', { is: 'in', values: [] }), { rank: 1 }), false)
  assert.equal(holds(compare('rank', { is: 'nin', values: [] }), {}), true)
  assert.equal(holds(compare('rank', { is: 'eq', value: 0 }), { rank: -0 }), true)
})

test('what is not known matches no grant, whatever the comparison', () => {
  const known: Filter = { op: 'known', revision: 2, fields: ['title'] }
  const tests: Test[] = [
    { is: 'ne', value: 'secret' },
    { is: 'nin', values: ['secret'] },
    { is: 'exists', value: false },
  ]
  for (const test of tests) {
    const filter = { op: 'and', filters: [known, compare('title', test)] } as const
    const covers = (one: QueryRow): boolean => compilePredicate(filter, schema)(one)
    assert.equal(covers(row({}, { filterRevision: 2 })), true)
    assert.equal(covers(row({}, { filterRevision: 1 })), false, 'not settled')
    assert.equal(covers(row({ title: null }, { filterRevision: 2 })), false, 'not seen')
  }
})

test('fields named like properties of Object are missing unless they are there', () => {
  assert.equal(holds(compare('constructor', { is: 'exists', value: true }), {}), false)
  assert.equal(holds(compare('constructor', { is: 'eq', value: 'x' }), { constructor: 'x' }), true)
})

test('many values: one of them is enough', () => {
  assert.equal(holds(compare('tags', { is: 'eq', value: 'a' }), { tags: ['b', 'a'] }), true)
  assert.equal(holds(compare('tags', { is: 'ne', value: 'a' }), { tags: ['b', 'a'] }), false)
  assert.equal(holds(compare('tags', { is: 'in', values: ['x', 'b'] }), { tags: ['b', 'a'] }), true)
  assert.equal(holds(compare('tags', { is: 'exists', value: true }), { tags: [] }), false)
  assert.equal(holds(compare('tags', { is: 'exists', value: false }), {}), true)
})

test('missing values sort last ascending, first descending; ties end on id', () => {
  const ids = ['a', 'b', 'c', 'd'].map((letter) => `0197a000-0000-7000-8000-00000000000${letter}`)
  const rows = [
    row({ rank: 2 }, { id: ids[0]! }),
    row({}, { id: ids[1]! }),
    row({ rank: 1 }, { id: ids[2]! }),
    row({ rank: 2 }, { id: ids[3]! }),
  ]
  const order = (descending: boolean): string =>
    rows
      .toSorted(compileComparator([{ field: 'rank', descending }], schema))
      .map((one) => one.id.slice(-1))
      .join('')
  assert.equal(order(false), 'cadb')
  assert.equal(order(true), 'bdac')
})

test('a field that is not in the schema is a defect of the caller', () => {
  assert.throws(
    () => compilePredicate(compare('other', { is: 'exists', value: true }), schema),
    /not in the schema/,
  )
})
