import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import type { ContentType } from '#content/content-type.ts'
import { versionTable, versionTableName } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import { testContent } from '#test/support/content.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'

const named = (name: string): ContentType => ({
  name,
  label: name,
  fields: [{ name: 'title', kind: 'text', filterable: true }],
})
const free = { expected: null, allowLoss: false }

test('the program and the database name the table of a type alike', { skip }, async () => {
  await using db = await testDatabase()
  const names = ['a', 'news-item', 'n'.repeat(39), 'n'.repeat(40), `${'n'.repeat(62)}1`]
  for (const name of names) {
    const [row] = await db.database.run(
      sql<{ name: string }>(`select stoa.version_table($1) as name`),
      [name],
    )
    assert.equal(versionTableName(name), row?.name)
  }
  assert.equal(new Set(names.map(versionTableName)).size, names.length)
})

test(
  'an entry has one type, and at most one latest and one published version in a locale',
  { skip },
  async () => {
    await using t = await testContent({ types: [named('one'), named('two')] })
    const made = await t.content.entries.create(t.admin, 'one', {
      locale: null,
      fields: { title: 'A' },
      publish: true,
    })
    const copy = (columns: string): Promise<object[]> =>
      t.database.run({
        text: `insert into stoa.version (entry_id, locale, number, type, data, filter, is_latest,
          is_published, created_at, saved_by)
          select ${columns}, '{}', '{}', true, true, now(), '{}'`,
        prepare: 'never',
      })
    await assert.rejects(copy(`'${made.id}', 'en', 2, 'one'`), /latest/)
    await assert.rejects(copy(`'${made.id}', 'de', 1, 'two'`), { kind: 'foreignKey' })
    await assert.rejects(copy(`'0197a000-0000-7000-8000-00000000000f', 'de', 1, 'one'`), {
      kind: 'foreignKey',
    })
    await t.database.run(sql(`delete from stoa.entry`))
    assert.deepEqual(await t.database.run(sql(`select 1 from stoa.any_version`)), [])
  },
)

test(
  'a type is made and deleted while long transactions read and write other types',
  { skip },
  async () => {
    await using t = await testContent({ types: [named('one')], connectionsMax: 12 })
    const create = async (type: string): Promise<unknown> =>
      t.content.entries.create(t.admin, type, { locale: null, fields: { title: 'A' } })
    await create('one')
    const open = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    const long = t.database.transaction(async (tx) => {
      await t.content.entries.create({ db: tx, authority: t.admin.authority }, 'one', {
        locale: null,
        fields: { title: 'B' },
      })
      await tx.run(sql(`select count(*) from stoa.version`))
      begun.resolve()
      await open.promise
    })
    await begun.promise
    const started = performance.now()
    await t.content.types.save(t.database, named('two'), free)
    await Promise.all([create('one'), create('two')])
    assert.ok(performance.now() - started < 1_500, 'no statement waited for the long transaction')
    await t.database.run(sql(`delete from stoa.entry where type = 'two'`))
    await t.content.types.delete(t.database, 'two')
    await Promise.all([create('one'), wait(500).then(() => create('one'))])
    open.resolve()
    await long
    await t.content.types.settle(t.database)
    assert.deepEqual(
      await t.database.run(
        sql(
          `select inhrelid::regclass::text as name from pg_inherits
            where inhparent = 'stoa.version'::regclass`,
        ),
      ),
      [{ name: versionTable('one') }],
    )
    await t.content.types.save(t.database, named('two'), free)
    await create('two')
  },
)

test('the change feed reports the truncation of the table of one type', { skip }, async () => {
  await using t = await testContent({ types: [named('one')] })
  await t.database.run({
    text: `delete from stoa.change; truncate ${versionTable('one')}`,
    prepare: 'never',
  })
  assert.deepEqual(
    await t.database.run(sql(`select collection, operation, key from stoa.change`)),
    [{ collection: 'version', operation: 'flush', key: null }],
  )
})
