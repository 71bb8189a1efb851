import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ContentType } from '#content/content-type.ts'
import { versionTable } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import { databaseMissing } from '#test/support/database.ts'
import { listing, testContent } from '#test/support/content.ts'

const article: ContentType = {
  name: 'article',
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text' },
    { name: 'category', kind: 'text', filterable: true },
  ],
  indexes: [['category', '-publishedAt']],
}
/** PostgreSQL decides after five executions whether one plan serves all further ones. */
const executions = 20
const plans = sql<{ statement: string; reused: number }>(
  `select statement, generic_plans::int as reused from pg_prepared_statements
   where statement like 'select%"version:article"%order by%'`,
  'never',
)

test(
  'a list of a large type is planned once for each connection, whatever its page length',
  { skip: databaseMissing },
  async () => {
    await using site = await testContent({ types: [article] })
    const { content, database } = site
    for (let at = 0; at < 200; at += 1)
      await content.entries.create(site.admin, 'article', {
        locale: null,
        fields: { title: `Title ${at}`, category: `c${at % 4}` },
        publish: true,
      })
    await database.run({ text: `analyze ${versionTable('article')}`, prepare: 'never' })
    // PostgreSQL takes the table for one of millions, which would take minutes to fill.
    await database.run({
      text: `update pg_class set reltuples = 1000000 * greatest(relpages, 1)
             where oid = '${versionTable('article')}'::regclass`,
      prepare: 'never',
    })
    await database.session(async (session) => {
      for (const limit of [1, 20, 33, 100])
        for (let turn = 0; turn < executions; turn += 1)
          await content.entries.list(
            { ...site.admin, db: session },
            listing('article', {
              filter: {
                op: 'compare',
                field: 'category',
                test: { is: 'eq', value: `c${turn % 4}` },
              },
              sort: [{ field: 'publishedAt', descending: true }],
              limit,
            }),
          )
      const rows = await session.run(plans)
      assert.equal(rows.length, 2, JSON.stringify(rows))
      for (const row of rows) assert.ok(row.reused >= executions, JSON.stringify(row))
    })
  },
)
