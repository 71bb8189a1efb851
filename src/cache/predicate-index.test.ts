import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Change, Row } from '#change-feed/change.ts'
import { IntervalTree } from '#cache/interval-tree.ts'
import { PredicateIndex } from '#cache/predicate-index.ts'
import { compareScalars, compareText, isScalar, matches, touches } from '#cache/predicate.ts'
import type { Atom, PageBound, Predicate, Scalar, SortKey } from '#cache/predicate.ts'

const fields = ['a', 'b', 'c'] as const
const scalars: fc.Arbitrary<Scalar> = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.constantFrom('', 'x', 'xy', 'y', '\u{1F600}', '\uFFFD'), fc.boolean())
const values = fc.oneof({ weight: 5, arbitrary: scalars }, { weight: 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: fc.array(scalars, { maxLength: 3 }) })
const rows: fc.Arbitrary<Row> = fc.record({ a: values, b: values, c: values, id: fc.integer({ min: 0, max: 6 }) }, { requiredKeys: ['id'] })
const bound = fc.record({ value: scalars, inclusive: fc.boolean() })
const atoms: fc.Arbitrary<Atom> = fc
  .tuple(
    fc.constantFrom(...fields),
    fc.boolean(),
    fc.oneof(
      { weight: 4, arbitrary: scalars.map((value) => ({ is: 'eq' as const, value })) },
      fc.array(scalars, { maxLength: 3 }).map((list) => ({ is: 'in' as const, values: list })),
      { weight: 3, arbitrary: fc.record({ is: fc.constant('range' as const), min: bound, max: bound }, { requiredKeys: ['is'] }) },
      fc.constantFrom('', 'x', 'y').map((value) => ({ is: 'contains' as const, value })),
      fc.constantFrom('x', 'xy').map((value) => ({ is: 'startsWith' as const, value })),
      fc.constant({ is: 'exists' as const }),
    ),
  )
  .map(([field, negated, test]) => ({ field, negated: negated && test.is !== 'range', ...test }))
const predicates: fc.Arbitrary<Predicate> = fc.array(atoms, { maxLength: 3 })

type Query = { readonly predicate: Predicate; readonly sort: readonly SortKey[]; readonly limit: number; readonly skip: number }
const queries: fc.Arbitrary<Query> = fc.record({
  predicate: predicates,
  sort: fc.tuple(fc.constantFrom(...fields), fc.boolean()).map(([field, descending]) => [{ field, descending }, { field: 'id', descending }]),
  limit: fc.integer({ min: 1, max: 3 }),
  skip: fc.integer({ min: 0, max: 3 }),
})

const tuple = (row: Row, sort: readonly SortKey[]): (Scalar | null)[] => sort.map((key) => (isScalar(row[key.field]) ? (row[key.field] as Scalar) : null))

function compareRows(one: Row, other: Row, sort: readonly SortKey[]): number {
  const [left, right] = [tuple(one, sort), tuple(other, sort)]
  for (const [at, key] of sort.entries()) {
    const [mine, theirs] = [left[at]!, right[at]!]
    const order = mine === theirs ? 0 : mine === null ? 1 : theirs === null ? -1 : compareScalars(mine, theirs)
    if (order !== 0) return key.descending ? -order : order
  }
  return 0
}

/** A page of a keyset list, and the bounds that its loader would name. */
function run(query: Query, table: readonly Row[], after: readonly (Scalar | null)[] | null): { readonly shown: readonly Row[]; readonly page: PageBound } {
  const sorted = table.filter((row) => matches(query.predicate, row)).sort((one, other) => compareRows(one, other, query.sort))
  const behind = after === null ? sorted : sorted.filter((row) => compareRows(row, Object.fromEntries(query.sort.map((key, at) => [key.field, after[at]])), query.sort) > 0)
  const shown = behind.slice(0, query.limit)
  return { shown, page: { sort: query.sort, after, upTo: shown.length < query.limit ? null : tuple(shown.at(-1)!, query.sort) } }
}

function byId(table: readonly Row[]): Row[] {
  return [...new Map(table.map((row) => [row['id'], row])).values()]
}

test('against a re-query oracle: no changed page is missed, and the index finds what a scan finds', () => {
  let missed = 0
  let changed = 0
  fc.assert(
    fc.property(fc.array(rows, { maxLength: 7 }).map(byId), fc.array(queries, { minLength: 1, maxLength: 12 }), fc.array(rows, { minLength: 1, maxLength: 6 }), fc.boolean(), (start, lists, writes, removing) => {
      let table = start
      const index = new PredicateIndex<number>()
      const live = lists.map((query, id) => {
        const all = table.filter((row) => matches(query.predicate, row)).sort((one, other) => compareRows(one, other, query.sort))
        const edge = query.skip === 0 ? undefined : all[query.skip - 1]
        return { id, query, ...run(query, table, edge === undefined ? null : tuple(edge, query.sort)) }
      })
      for (const { id, query, page } of live) index.add(id, query.predicate, page)
      if (removing && live.length > 1) index.remove(live.shift()!.id)
      for (const row of writes) {
        const before = table.find((one) => one['id'] === row['id']) ?? null
        const gone = before !== null && removing
        const change: Change = { xid: 1, collection: 'c', key: String(row['id']), operation: gone ? 'delete' : before === null ? 'insert' : 'update', before, after: gone ? null : row }
        table = [...table.filter((one) => one['id'] !== row['id']), ...(gone ? [] : [row])]
        const found = new Set<number>()
        index.touched(change, found)
        const scanned = live.filter(({ query, page }) => touches(change, query.predicate, page)).map(({ id }) => id)
        assert.deepEqual([...found].sort((one, other) => one - other), scanned)
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
    }),
    { numRuns: 3_000 },
  )
  assert.ok(changed > 1_000, `only ${changed} pages changed`)
})

test('a change whose rows are not told touches every list; a flush too', () => {
  const index = new PredicateIndex<string>()
  index.add('one', [{ field: 'a', is: 'eq', value: 1 }], null)
  const told: Change = { xid: 1, collection: 'c', key: 'k', operation: 'update', before: null, after: { a: 2 } }
  for (const change of [told, { ...told, before: { a: 2 }, after: null }, { ...told, operation: 'flush' as const, key: null }]) {
    const found = new Set<string>()
    index.touched(change, found)
    assert.deepEqual([...found], ['one'])
  }
})

test('an index that was emptied holds nothing and finds nothing', () => {
  const index = new PredicateIndex<number>()
  for (let id = 0; id < 100; id += 1) {
    index.add(id, [{ field: 'a', is: 'in', values: [id, id + 1] }, { field: 'b', is: 'range', min: { value: id, inclusive: true } }], null)
    index.add(id, [], { sort: [{ field: 'c', descending: true }], after: [id], upTo: null })
  }
  for (let id = 0; id < 100; id += 1) index.remove(id)
  const found = new Set<number>()
  index.touched({ xid: 1, collection: 'c', key: 'k', operation: 'insert', before: null, after: { a: 5, b: 5, c: 5 } }, found)
  assert.equal(found.size, 0)
  assert.equal(index.size, 0)
})

test('the interval tree finds exactly the intervals that contain a value', () => {
  const interval = fc.record({ low: fc.option(scalars, { nil: null }), high: fc.option(scalars, { nil: null }) })
  fc.assert(
    fc.property(fc.array(interval, { maxLength: 40 }), fc.array(fc.nat(39), { maxLength: 20 }), scalars, (intervals, removals, value) => {
      const tree = new IntervalTree<number>()
      const places = intervals.map((one, at) => tree.add(one, at))
      const removed = new Set(removals.filter((at) => at < intervals.length))
      for (const at of removed) tree.remove(places[at]!)
      const found: number[] = []
      tree.containing(value, (at) => found.push(at))
      const expected = intervals.flatMap(({ low, high }, at) => (!removed.has(at) && (low === null || compareScalars(low, value) <= 0) && (high === null || compareScalars(high, value) >= 0) ? [at] : []))
      assert.deepEqual(found.sort((one, other) => one - other), expected)
    }),
  )
})

test('text is ordered by code point, as bytes of UTF-8 are', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (one, other) => {
      assert.equal(Math.sign(compareText(one, other)), Buffer.compare(Buffer.from(one), Buffer.from(other)))
    }),
  )
})
