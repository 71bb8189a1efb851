import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseListQuery, parseReadOptions, printListQuery } from '#api/delivery/query-string.ts'
import type { Grant } from '#content/authority.ts'
import { validateQuery } from '#content/query/validate-query.ts'
import type { ListQuery } from '#content/query/query.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { query, thing } from '#test/support/query-cases.ts'

const open: Grant = { filter: null, fields: null }
const readable = { type: thing, grant: open }
const reader = { ...readable, locales: ['en', 'de', 'fr'], targets: () => [readable] }
const parse = (text: string): ListQuery => parseListQuery(text, readable)
const where = (text: string): ListQuery['filter'] => parse(text).filter

function codeOf(work: () => unknown): string {
  try {
    work()
    return 'fine'
  } catch (error) {
    if (error instanceof StoaError) return error.code
    throw error
  }
}

const queries: fc.Arbitrary<ListQuery> = fc
  .tuple(
    query,
    fc.record({
      fields: fc.option(fc.subarray(['title', 'slug', 'tags'])),
      include: fc.subarray(['author', 'authors', 'author.authors']),
      locale: fc.option(fc.constantFrom('en', 'de-AT')),
      after: fc.option(fc.stringMatching(/^[A-Za-z0-9_-]{1,40}$/)),
      count: fc.boolean(),
      search: fc.option(fc.constantFrom('stoa', '"a b" -c', 'ä&=+%*')),
      limit: fc.integer({ min: 1, max: 200 }),
    }),
  )
  // Cloned, because generated records have no prototype and would not be deeply equal to parsed
  // ones.
  .map(([{ filter, sort, perspective }, { search, ...rest }]) =>
    structuredClone({
      type: 'thing',
      filter,
      sort,
      perspective,
      ...rest,
      ...(search === null ? {} : { search }),
    }),
  )
  .filter(
    (one) =>
      !['E_QUERY_OPERATOR', 'E_QUERY_LIMIT'].includes(codeOf(() => validateQuery(one, reader))),
  )

test('what is printed is read back the same, and is valid', () => {
  fc.assert(
    fc.property(queries, (one) => {
      const text = printListQuery(one)
      fc.pre(text.length < 10_000)
      assert.deepEqual(parse(text), one)
      assert.deepEqual(validateQuery(parse(text), reader), one)
      // As browsers write it.
      assert.deepEqual(parse(new URLSearchParams(text).toString()), one)
    }),
    { numRuns: 2_000 },
  )
})

test('no text at all breaks it in any other way than a typed error', () => {
  const pieces = fc.constantFrom(
    'where',
    '[',
    ']',
    '[]',
    '[title]',
    '[eq]',
    '[in]',
    '[or]',
    '[and]',
    '[not]',
    '[0]',
    '[1]',
    '=',
    '&',
    '%',
    '%5B',
    '%ff',
    '+',
    ',',
    '\\',
    'sort',
    'limit',
    '-',
    '9',
    'after',
    '\ud800',
    '__proto__',
  )
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 20 }), (parts) =>
      assert.match(
        codeOf(() => parse(parts.join(''))),
        /^(fine|E_QUERY_[A-Z]+)$/,
      ),
    ),
    { numRuns: 3_000 },
  )
})

test('an empty query string is the first page, newest first', () => {
  const plain = {
    type: 'thing',
    filter: null,
    fields: null,
    include: [],
    locale: null,
    limit: 20,
    after: null,
    count: false,
  }
  assert.deepEqual(parse(''), {
    ...plain,
    sort: [{ field: 'publishedAt', descending: true }],
    perspective: 'published',
  })
  assert.deepEqual(parse('perspective=draft'), {
    ...plain,
    sort: [{ field: 'updatedAt', descending: true }],
    perspective: 'draft',
  })
})

test('filters as people write them', () => {
  const hot = { op: 'compare', field: 'hot', test: { is: 'eq', value: true } }
  const rank = { op: 'compare', field: 'rank', test: { is: 'in', values: [1, -2.5e3] } }
  assert.deepEqual(where('where[hot][eq]=true'), hot)
  assert.deepEqual(where('where%5Bhot%5D%5Beq%5D=true&where[rank][in]=1,-2.5e3'), {
    op: 'and',
    filters: [hot, rank],
  })
  assert.deepEqual(where('where[or][1][rank][in]=1,-2.5e3&where[or][0][hot][eq]=true'), {
    op: 'or',
    filters: [hot, rank],
  })
  assert.deepEqual(where('where[not][hot][eq]=true&where[not][rank][in]=1,-2.5e3'), {
    op: 'not',
    filter: { op: 'and', filters: [hot, rank] },
  })
  assert.deepEqual(where('where[or]='), { op: 'or', filters: [] })
  assert.deepEqual(where('where[title][eq]=a+b%2B%26'), {
    op: 'compare',
    field: 'title',
    test: { is: 'eq', value: 'a b+&' },
  })
  assert.deepEqual(where(String.raw`where[title][in]=a\,b,\\,\e`), {
    op: 'compare',
    field: 'title',
    test: { is: 'in', values: ['a,b', '\\', ''] },
  })
  assert.deepEqual(where('where[rank][gt]=1&where[rank][lt]=2'), {
    op: 'and',
    filters: [
      { op: 'compare', field: 'rank', test: { is: 'gt', value: 1 } },
      { op: 'compare', field: 'rank', test: { is: 'lt', value: 2 } },
    ],
  })
})

const refused: [string, string][] = [
  ['wher[title][eq]=a', 'E_QUERY_PARAMETER'],
  ['where=a', 'E_QUERY_PARAMETER'],
  ['where[title]=a', 'E_QUERY_PARAMETER'],
  ['where[title][eq][eq]=a', 'E_QUERY_PARAMETER'],
  ['where[title][eq=a', 'E_QUERY_PARAMETER'],
  ['where[title]eq=a', 'E_QUERY_PARAMETER'],
  ['where[title][eq]=a&where[title][eq]=b', 'E_QUERY_PARAMETER'],
  ['where[title][eq]=a&where%5Btitle%5D[eq]=a', 'E_QUERY_PARAMETER'],
  ['where[not]=a', 'E_QUERY_PARAMETER'],
  ['where[or]=a', 'E_QUERY_PARAMETER'],
  ['where[or][0]=a', 'E_QUERY_PARAMETER'],
  ['where[or][1][title][eq]=a', 'E_QUERY_PARAMETER'],
  ['where[or][x][title][eq]=a', 'E_QUERY_PARAMETER'],
  ['where[or]=&where[or][0][title][eq]=a', 'E_QUERY_PARAMETER'],
  ['where[or][0][title][eq]=a&where[or]=', 'E_QUERY_PARAMETER'],
  [String.raw`where[title][in]=a\b`, 'E_QUERY_PARAMETER'],
  ['where[title][in]=a\\', 'E_QUERY_PARAMETER'],
  ['where[title][eq]=%zz', 'E_QUERY_PARAMETER'],
  ['where[title][eq]=%ff', 'E_QUERY_PARAMETER'],
  ['limit=5&limit=6', 'E_QUERY_PARAMETER'],
  ['limit=-1', 'E_QUERY_PARAMETER'],
  ['limit=1e2', 'E_QUERY_PARAMETER'],
  ['limit=', 'E_QUERY_PARAMETER'],
  ['limit[]=1', 'E_QUERY_PARAMETER'],
  ['count=yes', 'E_QUERY_PARAMETER'],
  ['locale=', 'E_QUERY_PARAMETER'],
  ['after=', 'E_QUERY_PARAMETER'],
  ['perspective=all', 'E_QUERY_PARAMETER'],
  ['offset=20', 'E_QUERY_PARAMETER'],
  ['where[nope][eq]=a', 'E_QUERY_FIELD'],
  ['where[__proto__][eq]=a', 'E_QUERY_FIELD'],
  ['where[][eq]=a', 'E_QUERY_FIELD'],
  ['where[title][like]=a', 'E_QUERY_OPERATOR'],
  ['where[tags][contains]=a', 'E_QUERY_OPERATOR'],
  ['where[rank][eq]=abc', 'E_QUERY_VALUE'],
  ['where[rank][eq]=0x10', 'E_QUERY_VALUE'],
  ['where[rank][eq]=1e999', 'E_QUERY_VALUE'],
  ['where[rank][eq]=750727362669608961', 'E_QUERY_VALUE'],
  ['where[rank][in]=1,0.1000000000000000055511151231257827', 'E_QUERY_VALUE'],
  ['where[rank][eq]=', 'E_QUERY_VALUE'],
  ['where[hot][eq]=1', 'E_QUERY_VALUE'],
  ['where[title][exists]=1', 'E_QUERY_VALUE'],
  ['where[day][gt]=yesterday', 'E_QUERY_VALUE'],
  ['where[title][eq]=%00', 'E_QUERY_VALUE'],
  ['where[author][eq]=me', 'E_QUERY_VALUE'],
  ['perspective=release:', 'E_QUERY_VALUE'],
  ['sort=nope', 'E_QUERY_FIELD'],
  ['sort=-', 'E_QUERY_FIELD'],
  ['sort=title,-title', 'E_QUERY_FIELD'],
  ['fields=title,nope', 'E_QUERY_FIELD'],
  ['include=author.', 'E_QUERY_FIELD'],
  ['limit=0', 'E_QUERY_LIMIT'],
  ['limit=201', 'E_QUERY_LIMIT'],
  [`where[title][eq]=${'a'.repeat(16_000)}`, 'E_QUERY_LIMIT'],
  [
    Array.from({ length: 129 }, (_, i) => `where[or][${i}][title][eq]=a`).join('&'),
    'E_QUERY_LIMIT',
  ],
  [Array.from({ length: 70 }, (_, i) => `where[or][${i}][title][eq]=a`).join('&'), 'E_QUERY_LIMIT'],
  [`where${'[not]'.repeat(20)}[title][eq]=a`, 'E_QUERY_LIMIT'],
]
for (const [text, code] of refused)
  test(`refused: ${text.slice(0, 60)}`, () =>
    assert.equal(
      codeOf(() => validateQuery(parse(text), reader)),
      code,
    ))

test('a single entry takes fewer parameters', () => {
  assert.deepEqual(parseReadOptions('fields=title&locale=de&include=author'), {
    fields: ['title'],
    locale: 'de',
    include: ['author'],
    perspective: 'published',
  })
  assert.equal(
    codeOf(() => parseReadOptions('limit=1')),
    'E_QUERY_PARAMETER',
  )
  assert.equal(
    codeOf(() => parseReadOptions('where[title][eq]=a')),
    'E_QUERY_PARAMETER',
  )
})
