import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Change, Row } from '#change-feed/change.ts'
import { entryChanges } from '#events/entry-changes.ts'

const base = {
  entry_id: 'e',
  type: 'note',
  locale: 'en',
  is_latest: true,
  is_published: false,
  is_archived: false,
  saved_at: 1,
  filter_revision: 1,
}
const row = (more: Row = {}): Row => ({ ...base, ...more })
const change = (before: Row | null, after: Row | null, xid = 7, key = 'e/en'): Change => {
  const operations = { insert: before === null, delete: after === null, update: true }
  const operation = (['insert', 'delete', 'update'] as const).find((name) => operations[name])!
  return { xid, collection: 'version', key, operation, before, after }
}
const savedAt = (each: Row | null): number => Number(each?.['saved_at'] ?? 0)
const kinds = (changes: readonly Change[]): string[] =>
  entryChanges(changes)!.map(
    ({ perspective, before, after }) => `${perspective} ${savedAt(before)} ${savedAt(after)}`,
  )

test('a draft over a published version is nothing that readers of the published see', () => {
  const published = row({ is_published: true })
  const made = [
    change(published, row({ is_published: true, is_latest: false })),
    change(null, row({ saved_at: 2 })),
  ]
  assert.deepEqual(kinds(made), ['draft 1 2'])
  assert.deepEqual(kinds(made.toReversed()), ['draft 1 2'])
})

test('rows that one transaction made and replaced cancel, in any order', () => {
  const first = row()
  const second = row({ saved_at: 2 })
  const third = row({ saved_at: 3, is_published: true })
  const all = [change(null, first), change(first, second), change(second, third)]
  for (const order of [all, all.toReversed(), [all[1]!, all[0]!, all[2]!]])
    assert.deepEqual(kinds(order).sort(), ['draft 0 3', 'published 0 3'])
  assert.deepEqual(kinds([...all, change(third, null)]), [])
})

test('a change of a field that is not recorded counts, and one of the type alone does not', () => {
  const published = row({ is_published: true })
  assert.deepEqual(kinds([change(published, published)]).sort(), ['draft 1 1', 'published 1 1'])
  assert.deepEqual(kinds([change(published, { ...published, filter_revision: 2 })]), [])
})

test('an event has the same number on every node, whatever else its transaction did', () => {
  const alone = entryChanges([change(null, row())])!
  const other = change(null, row({ entry_id: 'f' }), 7, 'f/en')
  const both = entryChanges([other, change(null, row())])!
  assert.deepEqual(
    both.filter(({ id }) => id === 'e'),
    alone,
  )
  assert.equal(new Set(both.map(({ number }) => number)).size, 2)
})

test('what was not recorded row by row is not sent as if it were nothing', () => {
  const flush: Change = {
    xid: 7,
    collection: 'version',
    key: null,
    operation: 'flush',
    before: null,
    after: null,
  }
  assert.equal(entryChanges([flush]), null)
  assert.equal(entryChanges([{ ...change(row(), row()), before: null }]), null)
  assert.deepEqual(entryChanges([{ ...flush, collection: 'asset' }]), [])
})
