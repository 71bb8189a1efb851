import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, test } from 'node:test'
import type { Field } from '#content/content-type.ts'
import { exportTo, filesOf, importFrom } from '#test/support/archives.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { importing } from '#test/support/importing.ts'
import type { Importing } from '#test/support/importing.ts'

const folder = mkdtempSync(join(tmpdir(), 'stoa-round-trip-'))
after(() => rmSync(folder, { recursive: true }))

const text = (name: string, more: object = {}): Field => ({ name, kind: 'text', ...more })

/** Fills the site with what its types have made impossible since it was saved. */
async function fillWithOldThings(on: Importing): Promise<void> {
  const { content, call, database, media, site } = on
  const define = (...fields: Field[]): Promise<unknown> =>
    content.types.save(
      database,
      { name: 'note', label: 'Note', fields: [text('title'), ...fields] },
      { expected: null, allowLoss: true },
    )
  const other = { name: 'other', label: 'Other', fields: [text('title')] }
  await content.types.save(database, other, { expected: null, allowLoss: false })
  const tags: Field = { name: 'tags', kind: 'list', of: text('tag') }
  const size: Field = { name: 'size', kind: 'select', options: ['small', 'large'] }
  const link: Field = { name: 'link', kind: 'reference', onDelete: 'unset' }
  await define(text('body'), text('code', { filterable: true }), tags, size, link, text('gone'))
  const create = (type: string, fields: Record<string, unknown>, publish = false) =>
    content.entries.create(call, type, { locale: null, fields, publish })
  const target = await create('other', { title: 'Target' })
  const old = {
    title: 'Old',
    body: 'x'.repeat(700),
    code: 'home',
    tags: ['a', 'b', 'c'],
    size: 'large',
    link: target.id,
    gone: 'secret',
  }
  const note = await create('note', old, true)
  await media.upload(database, site.access.systemIdentity.authority.actor, {
    name: 'file',
    source: Readable.from([Buffer.from('some bytes')]),
  })
  const grant = {
    type: 'note',
    actions: ['read'] as const,
    filter: { op: 'compare', field: 'code', test: { is: 'eq', value: 'home' } } as const,
    fields: ['title', 'gone'],
  }
  await database.transaction((tx) =>
    site.access.roles.save(tx, site.access.systemIdentity, {
      name: 'reader',
      label: 'Reader',
      content: [grant],
      system: [],
    }),
  )
  await define(
    text('body', { filterable: true, lengthMax: 10 }),
    { name: 'code', kind: 'slug' },
    { ...tags, itemsMax: 2 },
    { ...size, options: ['small'] },
    { ...link, types: ['note'] },
  )
  const rename = { locale: null, fields: { code: 'old-home' }, merge: true }
  await content.entries.save(call, { type: 'note', id: note.id }, rename, null)
  const next = await create('note', { title: 'Next', code: 'home' })
  const release = await content.releases.create(call, 'Relaunch')
  await content.releases.put(call, release.id, [
    { entryId: note.id, locale: 'en', action: 'publish', version: 1 },
    { entryId: next.id, locale: 'en', action: 'unpublish', version: null },
  ])
  await define({ name: 'code', kind: 'slug' }, tags, { ...link, types: ['note'] }, text('body'))
}

test(
  'what types have made impossible since it was saved comes back whole from an archive',
  { skip: databaseMissing },
  async () => {
    await using from = await testDatabase()
    await using on = importing(from)
    await fillWithOldThings(on)
    for (const history of [false, true]) {
      const path = await exportTo(on, join(folder, `old-${history}`), { history })
      await using into = await testDatabase()
      await using there = importing(into)
      const report = await importFrom(there, path)
      assert.deepEqual([report.refused, report.leftOut, report.unlisted], [[], [], 0])
      const again = await exportTo(there, join(folder, `again-${history}`), { history })
      assert.deepEqual(filesOf(again), filesOf(path))
    }
  },
)

test(
  'a role of an archive that cannot be is named before anything is written',
  { skip: databaseMissing },
  async () => {
    await using from = await testDatabase()
    await using on = importing(from)
    await fillWithOldThings(on)
    const path = await exportTo(on, join(folder, 'wrong-role'))
    const file = join(path, 'roles', 'reader.json')
    const role = JSON.parse(readFileSync(file, 'utf8')) as { content: { actions: string[] }[] }
    role.content[0]!.actions = ['rule']
    writeFileSync(file, JSON.stringify(role))
    await using into = await testDatabase()
    await using there = importing(into)
    const { counts } = await importFrom(there, path)
    assert.equal(counts['roles']?.refused, 1)
    assert.deepEqual(await there.content.types.list(there.database), [])
  },
)
