import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Atom } from '#cache/predicate.ts'
import { touches } from '#cache/predicate.ts'
import type { Change, Row } from '#change-feed/change.ts'
import { allTag, tagsOfChange, tagsOfResponse } from '#http-cache/tags.ts'

const few = (...values: string[]): fc.Arbitrary<string> => fc.constantFrom(...values)
const scalar = fc.oneof(few('a', 'b'), fc.integer({ min: 0, max: 2 }), fc.boolean())
const field = few('color', 'size', 'locale', 'type', 'entry_id', 'created_by_id')
const textOrValue = fc.oneof(few('a', 'b', 'en', 'de', 'note', 'page'), scalar)

const atom: fc.Arbitrary<Atom> = fc.oneof(
  fc.record({ field, is: fc.constant('eq' as const), value: textOrValue, negated: fc.boolean() }),
  fc.record({
    field,
    is: fc.constant('in' as const),
    values: fc.array(textOrValue, { maxLength: 20 }),
    negated: fc.boolean(),
  }),
  fc.record({ field, is: fc.constant('exists' as const), negated: fc.boolean() }),
  fc.record({ field, is: fc.constant('startsWith' as const), value: few('a', '') }),
)
const published: Atom = { field: 'is_published', is: 'eq', value: true }
const predicate = fc
  .tuple(fc.array(atom, { maxLength: 4 }), fc.boolean())
  .map(([atoms, first]) => (first ? [published, ...atoms] : [...atoms, published]))

const row: fc.Arbitrary<Row> = fc.record(
  {
    entry_id: few('a', 'b'),
    type: few('note', 'page'),
    locale: few('en', 'de'),
    is_published: fc.boolean(),
    is_latest: fc.boolean(),
    color: fc.oneof(scalar, fc.array(scalar, { maxLength: 3 }), fc.constant(null)),
    size: fc.oneof(scalar, fc.constant(null)),
    created_by_id: few('a', 'b'),
  },
  { requiredKeys: ['entry_id', 'type', 'locale', 'is_published', 'is_latest'] },
)
const change: fc.Arbitrary<Change> = fc
  .tuple(fc.constantFrom('insert', 'update', 'delete', 'flush'), row, row, fc.boolean())
  .map(([operation, before, after, recorded]) => ({
    xid: 7,
    collection: 'version',
    key: operation === 'flush' ? null : 'a/en',
    operation,
    before: operation === 'insert' || operation === 'flush' || !recorded ? null : before,
    after: operation === 'delete' || operation === 'flush' || !recorded ? null : after,
  }))

test('what a change touches has a tag of it, fine, cut to the wide ones, and coarse', () => {
  fc.assert(
    fc.property(predicate, change, (atoms, one) => {
      const response = tagsOfResponse([
        { kind: 'list', collection: 'version', predicate: atoms, page: null },
      ])
      assert.ok(response !== null)
      if (!touches(one, atoms, null)) return
      const purge = tagsOfChange(one)
      assert.ok(purge !== null)
      const meet = (tags: readonly string[], kept: readonly string[]): boolean =>
        tags.some((tag) => kept.includes(tag))
      const purged = [...purge.fine, ...purge.wide]
      assert.ok(meet(purged, [...response.coarse, ...response.fine]), 'fine')
      assert.ok(meet(purged, [...response.coarse, ...response.wide]), 'wide')
      assert.ok(meet(purge.coarse, response.coarse), 'coarse')
    }),
    { numRuns: 3_000 },
  )
})

const shown: Row = {
  entry_id: 'a',
  type: 'note',
  locale: 'en',
  is_published: true,
  is_latest: true,
  color: 'red',
}
function operationOf(before: Row | null, after: Row | null): Change['operation'] {
  if (before === null) return 'insert'
  return after === null ? 'delete' : 'update'
}

const update = (before: Row | null, after: Row | null): Change => ({
  xid: 1,
  collection: 'version',
  key: 'a/en',
  operation: operationOf(before, after),
  before,
  after,
})

test('drafts purge nothing; what is not to be seen any more is purged hard', () => {
  const draft = { ...shown, is_published: false }
  assert.equal(tagsOfChange(update(draft, draft)), null)
  assert.equal(tagsOfChange(update(null, draft)), null)
  assert.equal(tagsOfChange(update(shown, shown))?.hard, false)
  assert.equal(tagsOfChange(update(null, shown))?.hard, false)
  assert.equal(tagsOfChange(update(shown, draft))?.hard, true)
  assert.equal(tagsOfChange(update(shown, null))?.hard, true)
})

test('types and roles purge everything; sessions nothing', () => {
  const of = (collection: string): Change => ({ ...update(shown, shown), collection })
  for (const collection of ['model', 'role']) {
    const tags = tagsOfChange(of(collection))
    assert.deepEqual(tags?.fine, [allTag])
    assert.equal(tags?.hard, true)
  }
  assert.equal(tagsOfChange(of('session')), null)
})

test('a response that depends on what has no tag is not kept', () => {
  const list = (collection: string, predicate: readonly Atom[]) =>
    tagsOfResponse([{ kind: 'list', collection, predicate, page: null }])
  assert.equal(list('user', []), null)
  assert.equal(list('version', [{ field: 'is_latest', is: 'eq', value: true }]), null)
  assert.equal(tagsOfResponse([{ kind: 'row', collection: 'session', key: 'a' }]), null)
  const model = tagsOfResponse([{ kind: 'row', collection: 'model', key: 'true' }])
  assert.deepEqual(model, { fine: [], wide: [], coarse: [allTag] })
})

test('a response of very many types is purged with each of them', () => {
  const types = Array.from({ length: 20 }, (_, at) => `type${at}`)
  const response = tagsOfResponse(
    types.map((type) => ({
      kind: 'list',
      collection: 'version',
      page: null,
      predicate: [published, { field: 'type', is: 'eq', value: type }],
    })),
  )
  const purge = tagsOfChange(update({ ...shown, type: 'type7' }, { ...shown, type: 'type7' }))
  assert.ok(response !== null && purge !== null)
  assert.ok(response.fine.some((tag) => purge.wide.includes(tag)))
  assert.ok(response.fine.some((tag) => purge.coarse.includes(tag)))
})
