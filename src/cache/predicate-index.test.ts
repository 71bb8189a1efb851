import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Change, Row } from '#change-feed/change.ts'
import { PredicateIndex } from '#cache/predicate-index.ts'
import { matches, touches } from '#cache/predicate.ts'
import type { Atom, PageBound, Predicate, SortKey } from '#cache/predicate.ts'
import { compareScalars, isScalar } from '#lib/scalar.ts'
import type { Scalar } from '#lib/scalar.ts'

const fields = ['a', 'b', 'c'] as const
const scalars: fc.Arbitrary<Scalar> = fc.oneof(
  fc.integer({ min: -3, max: 3 }),
  fc.constantFrom('', 'x', 'xy', 'y', '\u{1F600}', '\uFFFD'),
  fc.boolean(),
)
const values = fc.oneof(
  { weight: 5, arbitrary: scalars },
  { weight: 1, arbitrary: fc.constant(null) },
  { weight: 1, arbitrary: fc.array(scalars, { maxLength: 3 }) },
)
const rows: fc.Arbitrary<Row> = fc.record(
  { a: values, b: values, c: values, id: fc.integer({ min: 0, max: 6 }) },
  { requiredKeys: ['id'] },
)
const bound = fc.record({ value: scalars, inclusive: fc.boolean() })
const atoms: fc.Arbitrary<Atom> = fc
  .tuple(
    fc.constantFrom(...fields),
    fc.boolean(),
    fc.oneof(
      { weight: 4, arbitrary: scalars.map((value) => ({ is: 'eq' as const, value })) },
      fc.array(scalars, { maxLength: 3 }).map((list) => ({ is: 'in' as const, values: list })),
      {
        weight: 3,
        arbitrary: fc.record(
          { is: fc.constant('range' as const), min: bound, max: bound },
          { requiredKeys: ['is'] },
        ),
      },
      fc.constantFrom('', 'x', 'y').map((value) => ({ is: 'contains' as const, value })),
      fc.constantFrom('x', 'xy').map((value) => ({ is: 'startsWith' as const, value })),
      fc.constant({ is: 'exists' as const }),
    ),
  )
  .map(([field, negated, test]) => ({ field, negated: negated && test.is !== 'range', ...test }))
const predicates: fc.Arbitrary<Predicate> = fc.array(atoms, { maxLength: 3 })

type Query = {
  readonly predicate: Predicate
  readonly sort: readonly SortKey[]
  readonly limit: number
  readonly skip: number
}
const queries: fc.Arbitrary<Query> = fc.record({
  predicate: predicates,
  sort: fc.tuple(fc.constantFrom(...fields), fc.boolean()).map(([field, descending]) => [
    { field, descending },
    { field: 'id', descending },
  ]),
  limit: fc.integer({ min: 1, max: 3 }),
  skip: fc.integer({ min: 0, max: 3 }),
})

const tuple = (row: Row, sort: readonly SortKey[]): (Scalar | null)[] =>
  sort.map((key) => (isScalar(row[key.field]) ? (row[key.field] as Scalar) : null))

function compareNullable(mine: Scalar | null, theirs: Scalar | null): number {
  if (mine === theirs) return 0
  if (mine === null) return 1
  return theirs === null ? -1 : compareScalars(mine, theirs)
}

function compareRows(one: Row, other: Row, sort: readonly SortKey[]): number {
  const [left, right] = [tuple(one, sort), tuple(other, sort)]
  for (const [at, key] of sort.entries()) {
    const [mine, theirs] = [left[at]!, right[at]!]
    const order = compareNullable(mine, theirs)
    if (order !== 0) return key.descending ? -order : order
  }
  return 0
}

/** A page of a keyset list, and the bounds that its loader would name. */
function run(
  query: Query,
  table: readonly Row[],
  after: readonly (Scalar | null)[] | null,
): { readonly shown: readonly Row[]; readonly page: PageBound } {
  const sorted = table
    .filter((row) => matches(query.predicate, row))
    .sort((one, other) => compareRows(one, other, query.sort))
  const behind =
    after === null
      ? sorted
      : sorted.filter(
          (row) =>
            compareRows(
              row,
              Object.fromEntries(query.sort.map((key, at) => [key.field, after[at]])),
              query.sort,
            ) > 0,
        )
  const shown = behind.slice(0, query.limit)
  return {
    shown,
    page: {
      sort: query.sort,
      after,
      upTo: shown.length < query.limit ? null : tuple(shown.at(-1)!, query.sort),
    },
  }
}

function byId(table: readonly Row[]): Row[] {
  return [...new Map(table.map((row) => [row['id'], row])).values()]
}

test('no changed page is missed, and the index finds what a scan finds', () => {
  let missed = 0
  let changed = 0
  fc.assert(
    fc.property(
      fc.array(rows, { maxLength: 7 }).map(byId),
      fc.array(queries, { minLength: 1, maxLength: 12 }),
      fc.array(rows, { minLength: 1, maxLength: 6 }),
      fc.boolean(),
      (start, lists, writes, removing) => {
        let table = start
        const index = new PredicateIndex<number>()
        const live = lists.map((query, id) => {
          const all = table
            .filter((row) => matches(query.predicate, row))
            .sort((one, other) => compareRows(one, other, query.sort))
          const edge = query.skip === 0 ? undefined : all[query.skip - 1]
          return {
            id,
            query,
            ...run(query, table, edge === undefined ? null : tuple(edge, query.sort)),
          }
        })
        for (const { id, query, page } of live) index.add(id, query.predicate, page)
        if (removing && live.length > 1) index.remove(live.shift()!.id)
        for (const row of writes) {
          const before = table.find((one) => one['id'] === row['id']) ?? null
          const gone = before !== null && removing
          const written = before === null ? 'insert' : 'update'
          const change: Change = {
            xid: 1,
            collection: 'c',
            key: String(row['id']),
            operation: gone ? 'delete' : written,
            before,
            after: gone ? null : row,
          }
          table = [...table.filter((one) => one['id'] !== row['id']), ...(gone ? [] : [row])]
          const found = index.touched(change)
          const scanned = live
            .filter(({ query, page }) => touches(change, query.predicate, page))
            .map(({ id }) => id)
          assert.deepEqual(
            [...found].sort((one, other) => one - other),
            scanned,
          )
          for (const one of live) {
            const now = run(one.query, table, one.page.after)
            const same = JSON.stringify(now.shown) === JSON.stringify(one.shown)
            if (!same) changed += 1
            if (!same && !found.has(one.id)) missed += 1
            index.remove(one.id)
            index.add(one.id, one.query.predicate, now.page)
            Object.assign(one, now)
          }
        }
        assert.equal(missed, 0)
      },
    ),
    { numRuns: 3_000 },
  )
  assert.ok(changed > 1_000, `only ${changed} pages changed`)
})

/** Many lists of few kinds: they share buckets, fill several blocks, and are removed again. */
const manyLists = fc.array(
  fc.record({
    kind: fc.nat(5),
    value: fc.integer({ min: -2, max: 2 }),
    other: fc.integer({ min: -2, max: 2 }),
    descending: fc.boolean(),
    after: fc.option(fc.integer({ min: -3, max: 3 }), { nil: null }),
    upTo: fc.option(fc.integer({ min: -3, max: 3 }), { nil: null }),
    text: fc.boolean(),
  }),
  { minLength: 60, maxLength: 300, size: 'max' },
)

function listOf({
  kind,
  value,
  other,
  descending,
  after,
  upTo,
  text,
}: {
  kind: number
  value: number
  other: number
  descending: boolean
  after: number | null
  upTo: number | null
  text: boolean
}): { readonly predicate: Predicate; readonly page: PageBound | null } {
  const equal: Atom = { field: 'a', is: 'eq', value: 1 }
  const predicate = [
    [equal],
    [equal, { field: 'c', is: 'eq', value }],
    [
      equal,
      {
        field: 'c',
        is: 'range',
        min: { value, inclusive: descending },
        max: { value: other, inclusive: true },
      },
    ],
    [{ field: 'b', is: 'range', min: { value, inclusive: descending } }],
    [],
    [equal, { field: 'c', is: 'exists', negated: descending }],
  ][kind] as Predicate
  const border = (at: number | null): (Scalar | null)[] | null => {
    if (at === null) return null
    return at === 3 ? [null, 0] : [text ? String(at) : at, at]
  }
  return {
    predicate,
    page: {
      sort: [
        { field: 'b', descending },
        { field: 'id', descending },
      ],
      after: border(after),
      upTo: border(upTo),
    },
  }
}

test('among many lists, added and removed, the index finds what a scan finds', () => {
  const value = fc.oneof(
    { weight: 6, arbitrary: fc.integer({ min: -3, max: 3 }) },
    { weight: 1, arbitrary: fc.constantFrom(null, '1', '', true, [1, 2]) },
  )
  const row = fc.record({
    a: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, value),
    b: value,
    c: value,
    id: fc.integer({ min: -2, max: 2 }),
  })
  fc.assert(
    fc.property(
      manyLists,
      fc.array(fc.record({ before: row, after: row, part: fc.boolean() }), {
        minLength: 20,
        maxLength: 20,
      }),
      (lists, writes) => {
        const index = new PredicateIndex<number>()
        const live = new Map(lists.map((list, id) => [id, listOf(list)]))
        for (const [id, { predicate, page }] of live) index.add(id, predicate, page)
        for (const [at, { before, after, part }] of writes.entries()) {
          const change: Change = {
            xid: 1,
            collection: 'c',
            key: 'k',
            operation: 'update',
            before,
            after: part ? { ...before, c: after.c } : after,
          }
          assert.deepEqual(
            [...index.touched(change)].sort((one, other) => one - other),
            [...live]
              .filter(([, { predicate, page }]) => touches(change, predicate, page))
              .map(([id]) => id),
          )
          for (const id of [...live.keys()].filter((one) => (one * 7 + at) % 9 === 0)) {
            index.remove(id)
            live.delete(id)
          }
        }
      },
    ),
    { numRuns: 300 },
  )
})

test('a change whose rows were not recorded touches every list; a flush too', () => {
  const index = new PredicateIndex<string>()
  index.add('one', [{ field: 'a', is: 'eq', value: 1 }], null)
  const recorded: Change = {
    xid: 1,
    collection: 'c',
    key: 'k',
    operation: 'update',
    before: null,
    after: { a: 2 },
  }
  for (const change of [
    recorded,
    { ...recorded, before: { a: 2 }, after: null },
    { ...recorded, operation: 'flush' as const, key: null },
  ]) {
    assert.deepEqual([...index.touched(change)], ['one'])
  }
})

test('an index that was emptied holds nothing and finds nothing', () => {
  const index = new PredicateIndex<number>()
  for (let id = 0; id < 100; id += 1) {
    index.add(
      id,
      [
        { field: 'a', is: 'in', values: [id, id + 1] },
        { field: 'b', is: 'range', min: { value: id, inclusive: true } },
      ],
      null,
    )
    index.add(id, [], { sort: [{ field: 'c', descending: true }], after: [id], upTo: null })
  }
  for (let id = 0; id < 100; id += 1) index.remove(id)
  const found = index.touched({
    xid: 1,
    collection: 'c',
    key: 'k',
    operation: 'insert',
    before: null,
    after: { a: 5, b: 5, c: 5 },
  })
  assert.equal(found.size, 0)
  assert.equal(index.size, 0)
})

test('any row of a bucket touches the lists that are over its budget', () => {
  const index = new PredicateIndex<number>()
  const lists = 10_000
  for (let id = 0; id < lists; id += 1)
    index.add(
      id,
      [
        { field: 'a', is: 'eq', value: 1 },
        { field: 'b', is: 'contains', value: String(id) },
      ],
      null,
    )
  assert.ok(index.unchecked > lists / 2 && index.unchecked < lists, String(index.unchecked))
  const insert = (row: Row): Change => ({
    xid: 1,
    collection: 'c',
    key: 'k',
    operation: 'insert',
    before: null,
    after: row,
  })
  const touched = index.touched(insert({ a: 1, b: 'none of them' }))
  assert.equal(touched.size, index.unchecked)
  assert.equal(index.touched(insert({ a: 2, b: '1' })).size, 0)
  for (let id = 0; id < lists; id += 1) index.remove(id)
  assert.deepEqual([index.size, index.unchecked], [0, 0])
})
