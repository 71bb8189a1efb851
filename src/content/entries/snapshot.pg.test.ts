import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import type { Page } from '#content/content.ts'
import type { Filter } from '#content/query/query.ts'
import { listing, reading, testContent } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

/** Responses that are read while releases are published and undone; 100,000 in a long run. */
const responsesRead = Number(process.env['STOA_TEST_RESPONSES'] ?? 1_500)
const readers = 4
const pairs = 5

const child: ContentType = {
  name: 'child',
  label: 'Child',
  fields: [{ name: 'state', kind: 'text', filterable: true }],
}
const parent: ContentType = {
  name: 'parent',
  label: 'Parent',
  fields: [
    { name: 'state', kind: 'text', filterable: true },
    { name: 'child', kind: 'reference', types: ['child'] },
  ],
}
const isNew: Filter = { op: 'compare', field: 'state', test: { is: 'eq', value: 'new' } }

function stateOf(entry: { readonly fieldsJson: string }): string {
  return (JSON.parse(entry.fieldsJson) as { state: string }).state
}

/** All parents and children are published and taken back together. */
function isTorn(page: Page): boolean {
  const states = [...page.data, ...page.included.values()].map(stateOf)
  return new Set(states).size > 1 || (page.count !== null && page.count !== page.data.length)
}

test(
  'rows, included entries and count of one response are of one snapshot, under releases',
  { skip, timeout: 3_600_000 },
  async (t) => {
    await using site = await testContent({ types: [child, parent], connectionsMax: 8 })
    const { content, admin } = site
    const items: { entryId: string; locale: string; action: 'publish'; version: number }[] = []
    const parents: string[] = []
    for (let at = 0; at < pairs; at += 1) {
      const made: { type: string; id: string }[] = []
      for (const type of ['child', 'parent']) {
        const fields = { state: 'old', ...(type === 'parent' ? { child: made[0]?.id } : {}) }
        const input = { locale: null, fields, publish: true }
        made.push({ type, id: (await content.entries.create(admin, type, input)).id })
      }
      for (const { type, id } of made) {
        const input = { locale: null, fields: { state: 'new' }, merge: true }
        const { version } = await content.entries.save(admin, { type, id }, input, null)
        items.push({ entryId: id, locale: 'en', action: 'publish', version })
      }
      parents.push(made[1]!.id)
    }
    let read = 0
    let torn = 0
    let releases = 0
    const isDone = (): boolean => read >= responsesRead
    const release = async (): Promise<void> => {
      while (!isDone()) {
        const { id } = await content.releases.create(admin, 'R')
        await content.releases.put(admin, id, items)
        await content.releases.publish(admin, id)
        await content.releases.undo(admin, id)
        releases += 1
      }
    }
    const reader = async (): Promise<void> => {
      for (; read < responsesRead; read += 1) {
        const include = ['child']
        if (read % 3 === 0) {
          const { entry, included } = await content.entries.get(
            admin,
            'parent',
            parents[read % pairs]!,
            reading({ include }),
          )
          if (new Set([entry, ...included.values()].map(stateOf)).size > 1) torn += 1
          continue
        }
        const filter = read % 3 === 1 ? isNew : null
        const query = listing('parent', { include, filter, count: true })
        if (isTorn(await content.entries.list(admin, query))) torn += 1
      }
    }
    await Promise.all([release(), ...Array.from({ length: readers }, reader)])
    t.diagnostic(`${read} responses, ${releases} releases published and undone`)
    assert.ok(releases > 5, `only ${releases} releases`)
    assert.equal(torn, 0)
  },
)
