import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Grant } from '#content/authority.ts'
import type { ContentType } from '#content/content-type.ts'
import { grantFilter, validateFilter, validateQuery } from '#content/query/validate-query.ts'
import type { QueryReader } from '#content/query/readable-type.ts'
import type { Filter, ListQuery, Test } from '#content/query/query.ts'
import { StoaError } from '#lib/stoa-error.ts'

const employer: ContentType = {
  name: 'employer',
  label: 'Employer',
  fields: [{ name: 'name', kind: 'text' }],
}
const person: ContentType = {
  name: 'person',
  label: 'Person',
  fields: [
    { name: 'name', kind: 'text', filterable: true },
    { name: 'employer', kind: 'reference', types: ['employer'] },
    { name: 'friend', kind: 'reference', types: ['person'] },
  ],
}
const article: ContentType = {
  name: 'article',
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text', filterable: true },
    { name: 'body', kind: 'markdown' },
    { name: 'secret', kind: 'text', filterable: true },
    { name: 'salary', kind: 'number' },
    { name: 'rank', kind: 'number', filterable: true },
    { name: 'hot', kind: 'boolean', filterable: true },
    { name: 'day', kind: 'dateTime', filterable: true },
    { name: 'tags', kind: 'select', options: ['a'], many: true, filterable: true },
    { name: 'author', kind: 'reference', types: ['person'], filterable: true },
    { name: 'related', kind: 'list', of: { name: 'one', kind: 'reference' } },
    { name: 'image', kind: 'asset' },
  ],
}
const open: Grant = { filter: null, fields: null }
const narrow: Grant = { filter: null, fields: ['title', 'body', 'author'] }
const types = [employer, person, article]

function reader(grant: Grant, readable: readonly ContentType[] = types): QueryReader {
  return {
    type: article,
    grant,
    locales: ['en', 'de', 'fr'],
    targets: (names) =>
      readable
        .filter((type) => names === null || names.includes(type.name))
        .map((type) => ({ type, grant: open })),
  }
}
const plain: ListQuery = {
  type: 'article',
  filter: null,
  sort: [],
  fields: null,
  include: [],
  locale: null,
  perspective: 'published',
  limit: 20,
  after: null,
  count: false,
}
const compare = (field: string, test: Test): Filter => ({ op: 'compare', field, test })
const nested = (depth: number): Filter =>
  depth === 1 ? compare('rank', { is: 'eq', value: 1 }) : { op: 'not', filter: nested(depth - 1) }

function codeOf(query: Partial<ListQuery>, grant: Grant = open): string {
  return errorOf(query, grant)?.code ?? 'fine'
}
function errorOf(query: Partial<ListQuery>, grant: Grant = open): StoaError | null {
  try {
    validateQuery({ ...plain, ...query }, reader(grant))
    return null
  } catch (error) {
    if (error instanceof StoaError) return error
    throw error
  }
}

const refused: [string, Partial<ListQuery>, string][] = [
  ['an unknown field', { filter: compare('nope', { is: 'exists', value: true }) }, 'E_QUERY_FIELD'],
  [
    'a property of Object',
    { filter: compare('toString', { is: 'exists', value: true }) },
    'E_QUERY_FIELD',
  ],
  [
    'a field that is not filterable',
    { filter: compare('salary', { is: 'gt', value: 1 }) },
    'E_QUERY_FIELD',
  ],
  [
    'the type as a field',
    { filter: compare('type', { is: 'eq', value: 'article' }) },
    'E_QUERY_FIELD',
  ],
  [
    'a sort by a field that is not filterable',
    { sort: [{ field: 'salary', descending: false }] },
    'E_QUERY_FIELD',
  ],
  ['a sort by many values', { sort: [{ field: 'tags', descending: false }] }, 'E_QUERY_FIELD'],
  ['a sort by the creator', { sort: [{ field: 'createdBy', descending: false }] }, 'E_QUERY_FIELD'],
  [
    'a sort that repeats',
    {
      sort: [
        { field: 'rank', descending: false },
        { field: 'rank', descending: true },
      ],
    },
    'E_QUERY_FIELD',
  ],
  [
    'an order of booleans',
    { filter: compare('hot', { is: 'lt', value: true }) },
    'E_QUERY_OPERATOR',
  ],
  [
    'an order of many values',
    { filter: compare('tags', { is: 'lt', value: 'a' }) },
    'E_QUERY_OPERATOR',
  ],
  [
    'an order of creators',
    { filter: compare('createdBy', { is: 'lt', value: '0197a000-0000-7000-8000-000000000000' }) },
    'E_QUERY_OPERATOR',
  ],
  [
    'contains on a number',
    { filter: compare('rank', { is: 'contains', value: '1' }) },
    'E_QUERY_OPERATOR',
  ],
  [
    'a comparison that does not exist',
    { filter: compare('rank', { is: 'like', value: '1' } as unknown as Test) },
    'E_QUERY_OPERATOR',
  ],
  [
    'a connective that does not exist',
    { filter: { op: 'xor', filters: [] } as unknown as Filter },
    'E_QUERY_OPERATOR',
  ],
  ['a text for a number', { filter: compare('rank', { is: 'eq', value: '1' }) }, 'E_QUERY_VALUE'],
  [
    'infinity',
    { filter: compare('rank', { is: 'eq', value: Number.POSITIVE_INFINITY }) },
    'E_QUERY_VALUE',
  ],
  [
    'a date without a zone',
    { filter: compare('day', { is: 'eq', value: '2026-01-01T10:00:00' }) },
    'E_QUERY_VALUE',
  ],
  ['no id', { filter: compare('author', { is: 'eq', value: 'me' }) }, 'E_QUERY_VALUE'],
  [
    'half a surrogate pair',
    { filter: compare('title', { is: 'eq', value: '\ud800' }) },
    'E_QUERY_VALUE',
  ],
  ['U+0000', { filter: compare('title', { is: 'contains', value: 'a\0' }) }, 'E_QUERY_VALUE'],
  [
    'one wrong value in a list',
    { filter: compare('rank', { is: 'in', values: [1, 'x'] }) },
    'E_QUERY_VALUE',
  ],
  [
    'a list that is none',
    { filter: compare('rank', { is: 'in', values: 1 } as unknown as Test) },
    'E_QUERY_VALUE',
  ],
  ['a release that is no id', { perspective: { release: 'x' } }, 'E_QUERY_VALUE'],
  ['a limit of 0', { limit: 0 }, 'E_QUERY_LIMIT'],
  ['a limit of 201', { limit: 201 }, 'E_QUERY_LIMIT'],
  ['half a page', { limit: 1.5 }, 'E_QUERY_LIMIT'],
  ['a limit that is no number', { limit: Number.NaN }, 'E_QUERY_LIMIT'],
  [
    'five sort keys',
    { sort: ['title', 'rank', 'hot', 'day', 'id'].map((field) => ({ field, descending: false })) },
    'E_QUERY_LIMIT',
  ],
  ['nine levels', { filter: nested(9) }, 'E_QUERY_LIMIT'],
  [
    '65 nodes',
    { filter: { op: 'or', filters: Array.from({ length: 64 }, () => nested(1)) } },
    'E_QUERY_LIMIT',
  ],
  [
    '201 values',
    { filter: compare('rank', { is: 'in', values: Array.from({ length: 201 }, (_, i) => i) }) },
    'E_QUERY_LIMIT',
  ],
  [
    'a long contains',
    { filter: compare('title', { is: 'contains', value: 'a'.repeat(201) }) },
    'E_QUERY_LIMIT',
  ],
  [
    'a long text',
    { filter: compare('title', { is: 'eq', value: 'a'.repeat(601) }) },
    'E_QUERY_LIMIT',
  ],
  ['17 paths', { include: Array.from({ length: 17 }, () => 'author') }, 'E_QUERY_LIMIT'],
  ['a path of five steps', { include: ['author.friend.friend.friend.friend'] }, 'E_QUERY_LIMIT'],
  ['a path along no reference', { include: ['title'] }, 'E_QUERY_FIELD'],
  ['a path beyond an asset', { include: ['image.name'] }, 'E_QUERY_FIELD'],
  ['a path that ends in no reference', { include: ['author.name'] }, 'E_QUERY_FIELD'],
  ['an empty path', { include: [''] }, 'E_QUERY_FIELD'],
  ['an unknown field to return', { fields: ['nope'] }, 'E_QUERY_FIELD'],
  ['a system field to return', { fields: ['id'] }, 'E_QUERY_FIELD'],
]
for (const [what, query, code] of refused)
  test(`refused: ${what}`, () => assert.equal(codeOf(query), code))

const taken: [string, Partial<ListQuery>][] = [
  ['eight levels', { filter: nested(8) }],
  ['64 nodes', { filter: { op: 'or', filters: Array.from({ length: 63 }, () => nested(1)) } }],
  ['no values', { filter: compare('rank', { is: 'in', values: [] }) }],
  ['many values by one', { filter: compare('tags', { is: 'eq', value: 'a' }) }],
  [
    'the creator',
    { filter: compare('createdBy', { is: 'eq', value: '0197a000-0000-7000-8000-000000000000' }) },
  ],
  [
    'four sort keys',
    { sort: ['title', 'rank', 'hot', 'publishedAt'].map((field) => ({ field, descending: true })) },
  ],
  [
    'paths of two and four steps',
    { include: ['author', 'author.employer', 'author.friend.friend.employer'] },
  ],
  ['a path along a list of references to anything', { include: ['related.employer'] }],
]
for (const [what, query] of taken) test(`taken: ${what}`, () => assert.equal(codeOf(query), 'fine'))

test('values come out in normal form, whatever zone they came with', () => {
  const filter = validateFilter(
    {
      op: 'and',
      filters: [
        compare('day', { is: 'lt', value: '2026-01-01T00:00+01:00' }),
        compare('rank', { is: 'in', values: [-0] }),
      ],
    },
    reader(open),
  )
  assert.deepEqual(filter, {
    op: 'and',
    filters: [
      compare('day', { is: 'lt', value: '2025-12-31T23:00:00.000Z' }),
      compare('rank', { is: 'in', values: [0] }),
    ],
  })
})

test('a field outside the grant is like an unknown one wherever a query names it', () => {
  const hidden: Grant = { filter: null, fields: ['title'] }
  const uses: ((name: string) => Partial<ListQuery>)[] = [
    (name) => ({ filter: compare(name, { is: 'exists', value: true }) }),
    (name) => ({ sort: [{ field: name, descending: false }] }),
    (name) => ({ fields: [name] }),
    (name) => ({ include: [name] }),
  ]
  for (const use of uses) {
    const unknown = errorOf(use('nothing'), hidden)
    assert.ok(unknown !== null)
    for (const name of ['secret', 'salary', 'author']) {
      const found = errorOf(use(name), hidden)
      const said = JSON.stringify([found?.code, found?.message, found?.facts]).replaceAll(
        name,
        'nothing',
      )
      assert.equal(said, JSON.stringify([unknown.code, unknown.message, unknown.facts]))
    }
  }
  assert.equal(
    codeOf(
      {
        filter: compare('title', { is: 'exists', value: true }),
        sort: [{ field: 'publishedAt', descending: true }],
      },
      hidden,
    ),
    'fine',
  )
})

test('a path of include ends where the reader may read no target', () => {
  assert.throws(
    () => validateQuery({ ...plain, include: ['author.employer'] }, reader(narrow, [article])),
    { code: 'E_QUERY_FIELD' },
  )
})

test('a grant’s filter may use fields outside the grant, and fails closed', () => {
  const own = compare('secret', { is: 'eq', value: 'x' })
  const known: Filter = {
    op: 'and',
    filters: [{ op: 'known', revision: 3, fields: ['secret'] }, own],
  }
  assert.deepEqual(
    grantFilter({ type: article, grant: { filter: own, fields: ['title'] } }, 3),
    known,
  )
  assert.equal(grantFilter({ type: article, grant: open }, 3), null)
  const wrong = { op: 'not', filter: compare('gone', { is: 'eq', value: 'x' }) } as const
  assert.deepEqual(grantFilter({ type: article, grant: { filter: wrong, fields: null } }, 3), {
    op: 'or',
    filters: [],
  })
  assert.deepEqual(
    grantFilter(
      { type: article, grant: { filter: { op: 'or', filters: [wrong, own] }, fields: null } },
      3,
    ),
    known,
    'what one role got wrong takes nothing from another',
  )
  const many = { op: 'or', filters: Array.from({ length: 100 }, () => own) } as const
  assert.deepEqual(
    grantFilter({ type: article, grant: { filter: many, fields: null } }, 3),
    { op: 'or', filters: many.filters.map(() => known) },
    'many roles together may have more than one query',
  )
})
