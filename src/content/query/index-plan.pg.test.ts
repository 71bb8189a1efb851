import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import type { ContentType } from '#content/content-type.ts'
import { applyIndexes, planIndexes } from '#content/query/index-plan.ts'
import { querySchema } from '#content/query/normal-form.ts'
import { compileById, compileBySlug, compileCount, compileList } from '#content/query/sql.ts'
import type { Compiled, Scope } from '#content/query/sql.ts'
import type { Filter } from '#content/query/query.ts'
import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const article: ContentType = {
  name: 'article',
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text', filterable: true },
    { name: 'slug', kind: 'slug' },
    { name: 'category', kind: 'text', filterable: true },
    { name: 'rank', kind: 'number', filterable: true },
    { name: 'tags', kind: 'select', options: [], many: true, filterable: true },
  ],
  indexes: [['category', '-publishedAt']],
}
const options = { logger: silentLogger }
const indexNames = sql<{ name: string; valid: boolean }>(`
  select c.relname as name, i.indisvalid as valid from pg_inherits p join pg_index i
    on i.indrelid = p.inhrelid join pg_class c on c.oid = i.indexrelid
  where p.inhparent = 'stoa.version'::regclass and c.relname like 'version\\_x\\_%' order by 1`)
const insertType = sql(`insert into stoa.content_type (name, definition) values ($1, '{}')`)
const validNames = async (db: Queryable): Promise<string[]> =>
  (await db.run(indexNames)).filter((row) => row.valid).map((row) => row.name)
const planned = (...types: ContentType[]): string[] =>
  types
    .flatMap(planIndexes)
    .map((index) => index.name)
    .sort()

/**
 * Articles in 20 categories: in English, every tenth in German too, every fifth with a newer draft,
 * published a minute apart.
 */
async function fill(database: Database, count: number): Promise<void> {
  await database.run(insertType, ['article'])
  await database.run(sql(`insert into stoa.locale (code, fallback) values ('de', 'en')`))
  await database.run(
    sql(
      `insert into stoa.entry (id, type, created_by) select ('0197a000-0000-7000-8000-' || ` +
        `lpad(to_hex(i), 12, '0'))::uuid, 'article', '{}' from generate_series(1, $1::int) i`,
    ),
    [count],
  )
  await database.run(
    sql(`
    insert into stoa.version (entry_id, locale, number, type, data, filter, is_latest,
      is_published, created_at, saved_at, saved_by, published_at, first_published_at)
    select ('0197a000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, locale, number,
      'article', json_build_object('body', repeat('x', 200)),
      jsonb_build_object('title', 'Title ' || i, 'slug', 'slug-' || locale || '-' || i,
        'category', 'c' || i % 20, 'rank', i, 'tags', jsonb_build_array('t' || i % 500, 'all')),
      number = (case when i % 5 = 0 then 2 else 1 end), number = 1, at, at, '{}',
        case when number = 1 then at end, case when number = 1 then at end
    from generate_series(1, $1::int) i, generate_series(1, 2) number, unnest(array['en',
      'de']) locale,
      lateral (select timestamptz '2026-01-01' + i * interval '1 minute' as at) a
    where (number = 1 or i % 5 = 0) and (locale = 'en' or i % 10 = 0)`),
    [count],
  )
}

type Plan = {
  'Node Type': string
  'Index Name'?: string
  'Actual Rows': number
  'Rows Removed by Filter'?: number
  Plans?: Plan[]
}

/**
 * Every node of the plan that ran, for these values or for any (the generic plan that a named
 * statement may settle on).
 */
async function explain(
  database: Database,
  { statement, values }: Compiled<object>,
  mode: 'custom' | 'generic',
): Promise<Plan[]> {
  const literals = values
    .map((value) => (Array.isArray(value) ? `'{${value.join(',')}}'` : `'${String(value)}'`))
    .join(', ')
  return database.session(async (session) => {
    await session.run({ text: `set plan_cache_mode = force_${mode}_plan`, prepare: 'never' })
    await session.run({ text: `prepare one as ${statement.text}`, prepare: 'never' })
    const [row] = await session.run<{ 'QUERY PLAN': string }>({
      text: `explain (analyze, format json) execute one(${literals})`,
      prepare: 'never',
    })
    await session.run({ text: 'deallocate one', prepare: 'never' })
    await session.run({ text: 'reset plan_cache_mode', prepare: 'never' })
    const nodes = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodes)]
    return (JSON.parse(row!['QUERY PLAN']) as { Plan: Plan }[]).flatMap((one) => nodes(one.Plan))
  })
}

const scope: Scope = {
  type: 'article',
  schema: querySchema(article),
  locales: ['en'],
  perspective: 'published',
  grantFilter: null,
  draftsSeen: false,
}
const eq = (field: string, value: string): Filter => ({
  op: 'compare',
  field,
  test: { is: 'eq', value },
})
const newest = [{ field: 'publishedAt', descending: true }]
/** All but the one-row read of the model's revision. */
const scans = (plan: readonly Plan[]): Plan[] =>
  plan.filter(
    (node) =>
      /Scan/.test(node['Node Type']) &&
      node['Index Name'] !== 'model_pkey' &&
      node['Node Type'] !== 'Subquery Scan' &&
      node['Node Type'] !== 'Seq Scan',
  )
const sorts = (plan: readonly Plan[]): Plan[] =>
  plan.filter((node) => /Sort/.test(node['Node Type']))

test(
  'lists and gets walk an index and read nothing that they do not return',
  { skip: databaseMissing },
  async (t) => {
    await using db = await testDatabase()
    const { database } = db
    await fill(database, 20_000)
    const { created } = await applyIndexes(database, () => Promise.resolve([article]), options)
    assert.deepEqual([...created].sort(), planned(article))
    const byCategory = { filter: eq('category', 'c7'), sort: newest, limit: 20, after: null }

    for (const mode of ['custom', 'generic'] as const) {
      await t.test(`a category, newest first, is one range of 21 rows (${mode} plan)`, async () => {
        const plan = await explain(database, compileList(scope, byCategory), mode)
        const [scan, ...others] = scans(plan)
        assert.deepEqual(others, [])
        assert.match(scan?.['Index Name'] ?? '', /^version_x_article_category/)
        assert.equal(scan?.['Actual Rows'], 21)
        assert.equal(scan['Rows Removed by Filter'] ?? 0, 0)
        assert.deepEqual(sorts(plan), [])
      })

      await t.test(`its tenth page starts where it begins (${mode} plan)`, async () => {
        const position = ['2026-01-08T00:00:00.000Z', '0197a000-0000-7000-8000-000000002760']
        const after = Buffer.from(
          JSON.stringify(['article:-publishedAt,-id', ...position]),
        ).toString('base64url')
        const [scan] = scans(
          await explain(database, compileList(scope, { ...byCategory, after }), mode),
        )
        assert.equal(scan?.['Actual Rows'], 21)
        assert.equal(scan['Rows Removed by Filter'] ?? 0, 0)
      })

      await t.test(
        `a later page by title, with entries without one, starts where it begins too (${mode} ` +
          `plan)`,
        async () => {
          const after = Buffer.from(
            JSON.stringify([
              'article:title,id',
              'Title 5000',
              '0197a000-0000-7000-8000-000000000001',
            ]),
          ).toString('base64url')
          const plan = await explain(
            database,
            compileList(scope, {
              filter: null,
              sort: [{ field: 'title', descending: false }],
              limit: 20,
              after,
            }),
            mode,
          )
          assert.ok(
            scans(plan).every(
              (scan) =>
                (scan['Index Name'] ?? '').startsWith('version_x_article_title') &&
                scan['Actual Rows'] <= 25 &&
                (scan['Rows Removed by Filter'] ?? 0) <= 1,
            ),
            JSON.stringify(scans(plan)),
          )
          assert.equal(scans(plan).length, 2)
        },
      )

      await t.test(
        `a fallback locale costs one more range and a look for each row (${mode} plan)`,
        async () => {
          const plan = await explain(
            database,
            compileList(
              { ...scope, locales: ['de', 'en'] },
              { ...byCategory, filter: eq('category', 'c10') },
            ),
            mode,
          )
          const ranges = scans(plan).filter((scan) => /category/.test(scan['Index Name'] ?? ''))
          assert.equal(ranges.length, 2)
          for (const scan of scans(plan))
            assert.ok(
              scan['Actual Rows'] + (scan['Rows Removed by Filter'] ?? 0) <= 1_000,
              JSON.stringify(scan),
            )
          assert.ok(
            plan.every((node) => node['Node Type'] !== 'Seq Scan' || node['Actual Rows'] <= 1),
          )
        },
      )

      await t.test(
        `an entry by id, and by slug, is one look into an index (${mode} plan)`,
        async () => {
          for (const get of [
            compileById(scope, '0197a000-0000-7000-8000-000000000007'),
            compileBySlug(scope, 'slug', 'slug-en-7'),
          ]) {
            const [scan, ...others] = scans(await explain(database, get, mode))
            assert.deepEqual(others, [])
            assert.match(scan?.['Node Type'] ?? '', /^Index Scan/)
            assert.equal(scan?.['Actual Rows'], 1)
            assert.equal(scan['Rows Removed by Filter'] ?? 0, 0)
          }
        },
      )
    }

    await t.test(
      'one of many values, and a range of numbers in order, use their indexes',
      async () => {
        const tagged = await explain(database, compileCount(scope, eq('tags', 't7')), 'custom')
        assert.ok(
          tagged.some((node) => (node['Index Name'] ?? '').startsWith('version_x_article_tags')),
          JSON.stringify(tagged),
        )
        const ranked = compileList(scope, {
          filter: { op: 'compare', field: 'rank', test: { is: 'gte', value: 19_000 } },
          sort: [{ field: 'rank', descending: false }],
          limit: 20,
          after: null,
        })
        const [scan] = scans(await explain(database, ranked, 'custom'))
        assert.match(scan?.['Index Name'] ?? '', /^version_x_article_rank/)
        assert.ok(scan!['Actual Rows'] <= 25, 'rows that tie in the first key may be read ahead')
      },
    )
  },
)

test(
  'five nodes that start together build each index once',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await fill(db.database, 50)
    const reports = await Promise.all(
      Array.from({ length: 5 }, () =>
        applyIndexes(db.database, () => Promise.resolve([article]), options),
      ),
    )
    assert.deepEqual(reports.flatMap((report) => report.created).sort(), planned(article))
    assert.deepEqual(await validNames(db.database), planned(article))
    assert.deepEqual(
      await db.database.run(
        sql(
          `select 1 from pg_locks where locktype = 'advisory' and database = (select oid from ` +
            `pg_database where datname = current_database())`,
        ),
      ),
      [],
      'no lock is left on a pooled connection',
    )
  },
)

test(
  'indexes follow the types: what is no longer needed goes, what is equal stays',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    const { database } = db
    for (const name of ['article', 'page']) await database.run(insertType, [name])
    await applyIndexes(
      database,
      () => Promise.resolve([article, { ...article, name: 'page' }]),
      options,
    )
    const changed: ContentType = {
      ...article,
      fields: article.fields.filter((field) => field.name !== 'rank'),
      indexes: [['title', '-updatedAt']],
    }
    const report = await applyIndexes(database, () => Promise.resolve([changed]), options)
    assert.deepEqual(await validNames(database), planned(changed))
    assert.ok(
      report.created.every((name) => /title_updatedat/.test(name)) && report.created.length > 0,
    )
    assert.ok(
      report.dropped.some((name) => /article_rank/.test(name)) &&
        report.dropped.some((name) => /page/.test(name)),
    )
    assert.deepEqual(await applyIndexes(database, () => Promise.resolve([changed]), options), {
      created: [],
      dropped: [],
    })
  },
)

test(
  'an index that a crash left invalid is built again, and writes go on meanwhile',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    const { database } = db
    await fill(database, 50)
    const [first] = planIndexes(article)
    // A build waits for transactions that write; cut off there, it leaves its index behind,
    // invalid.
    await database.session(async (writer) =>
      writer.transaction(async (tx) => {
        await tx.run(sql(`update stoa.version set saved_at = saved_at where locale = 'en'`))
        await database.session(async (builder) => {
          await builder.run({ text: 'set statement_timeout = 300', prepare: 'never' })
          await assert.rejects(builder.run({ text: first!.text, prepare: 'never' }), {
            code: 'E_DATABASE_TIMEOUT',
          })
          await builder.run({ text: 'reset statement_timeout', prepare: 'never' })
        })
      }),
    )
    assert.deepEqual(await database.run(indexNames), [{ name: first!.name, valid: false }])

    let writes = 0
    const built = new AbortController()
    const writing = (async () => {
      while (!built.signal.aborted) {
        await database.run(
          sql(
            `update stoa.version set saved_at = now() where entry_id = ` +
              `'0197a000-0000-7000-8000-000000000001'`,
          ),
        )
        writes += 1
        await wait(10)
      }
    })()
    const report = await applyIndexes(database, () => Promise.resolve([article]), options).finally(
      () => built.abort(),
    )
    await writing
    assert.ok(report.dropped.includes(first!.name))
    assert.deepEqual(await validNames(database), planned(article))
    assert.ok(writes > 0)
  },
)

test('names are short, plain and different for different definitions', () => {
  const long = 'a'.repeat(63)
  const fields: ContentType['fields'] = [
    { name: long, kind: 'text', filterable: true },
    { name: `${long.slice(1)}B`, kind: 'text', filterable: true },
  ]
  const names = planned(
    { name: `a-${'b'.repeat(61)}`, label: 'Long', fields },
    { name: 'short', label: 'Short', fields },
  )
  assert.equal(new Set(names).size, 8)
  for (const name of names) assert.match(name, /^version_x_[a-z0-9_]{1,53}$/)
  assert.deepEqual(planned(article), planned(structuredClone(article)))
})
