import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Content } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { brokenInvariants, testContent } from '#test/support/content.ts'
import type { TestContent } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

/**
 * Whatever is done, in whatever order and at once: what the database holds about held versions is
 * what they say. `STOA_TEST_RUNS=300 STOA_TEST_SEED=1 npm test -- invariants` looks further than
 * every run of the tests does.
 */
const number = (name: string): number | null =>
  process.env[name] === undefined ? null : Number(process.env[name])
const runs = number('STOA_TEST_RUNS')
const seed = number('STOA_TEST_SEED')

const thing: ContentType = {
  name: 'thing',
  label: 'Thing',
  fields: [
    { name: 'title', kind: 'text', localized: true, required: true },
    { name: 'slug', kind: 'slug', from: 'title', localized: true },
    { name: 'note', kind: 'text' },
    { name: 'code', kind: 'text', unique: true },
    { name: 'links', kind: 'reference', many: true, onDelete: 'unset' },
    { name: 'owner', kind: 'reference', onDelete: 'cascade', localized: true },
    { name: 'strict', kind: 'reference' },
  ],
}

type Step =
  | {
      readonly do: 'create'
      readonly fields: Fields
      readonly locale: string
      readonly publish: boolean
    }
  | {
      readonly do: 'save'
      readonly entry: number
      readonly fields: Fields
      readonly locale: string
      readonly merge: boolean
      readonly publish: boolean
    }
  | {
      readonly do: 'publish' | 'restore'
      readonly entry: number
      readonly locale: string
      readonly version: number
    }
  | {
      readonly do: 'unpublish' | 'archive' | 'unarchive' | 'delete'
      readonly entry: number
      readonly locale: string
    }
  | {
      readonly do: 'bulk'
      readonly items: readonly {
        readonly entry: number
        readonly fields: Fields
        readonly locale: string
        readonly publish: boolean
      }[]
    }
  | {
      readonly do: 'release'
      readonly entries: readonly number[]
      readonly locale: string
      readonly version: number
      readonly undo: boolean
    }
type Fields = {
  readonly title?: string | null
  readonly note?: string | null
  readonly code?: string | null
  readonly links?: readonly number[]
  readonly owner?: number | null
  readonly strict?: number | null
}

const entry = fc.nat(5)
const locale = fc.constantFrom('en', 'de')
const version = fc.integer({ min: 1, max: 5 })
const fields: fc.Arbitrary<Fields> = fc.record(
  {
    title: fc.constantFrom('one', 'two', null),
    note: fc.constantFrom('a', 'b', 'c'),
    code: fc.constantFrom('x', 'y', 'z', null),
    links: fc.uniqueArray(entry, { maxLength: 3 }),
    owner: fc.option(entry),
    strict: fc.option(entry),
  },
  { requiredKeys: [] },
)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('create' as const),
      fields,
      locale,
      publish: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('save' as const),
      entry,
      fields,
      locale,
      merge: fc.boolean(),
      publish: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('publish' as const, 'restore' as const),
      entry,
      locale,
      version,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom(
        'unpublish' as const,
        'archive' as const,
        'unarchive' as const,
        'delete' as const,
      ),
      entry,
      locale,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('bulk' as const),
      items: fc.array(fc.record({ entry, fields, locale, publish: fc.boolean() }), {
        minLength: 1,
        maxLength: 3,
      }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('release' as const),
      entries: fc.uniqueArray(entry, { minLength: 1, maxLength: 3 }),
      locale,
      version,
      undo: fc.boolean(),
    }),
  },
)

function withoutNull(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null))
}

async function act(t: TestContent, ids: string[], one: Step): Promise<void> {
  const { content, admin } = t
  const { entries } = content
  const id = (index: number): string =>
    ids[index % Math.max(1, ids.length)] ?? '0197a000-0000-7000-8000-000000000000'
  const real = (given: Fields): Record<string, unknown> => ({
    ...given,
    ...(given.links === undefined ? {} : { links: [...new Set(given.links.map(id))] }),
    ...(given.owner === undefined || given.owner === null ? {} : { owner: id(given.owner) }),
    ...(given.strict === undefined || given.strict === null ? {} : { strict: id(given.strict) }),
  })
  switch (one.do) {
    case 'create':
      ids.push(
        (
          await entries.create(admin, 'thing', {
            locale: one.locale,
            fields: real(one.fields),
            publish: one.publish,
          })
        ).id,
      )
      return
    case 'save':
      await entries.save(
        admin,
        { type: 'thing', id: id(one.entry) },
        { locale: one.locale, fields: real(one.fields), merge: one.merge, publish: one.publish },
        null,
      )
      return
    case 'publish':
      await entries.publish(
        admin,
        { type: 'thing', id: id(one.entry) },
        { locales: [one.locale], version: one.version },
        null,
      )
      return
    case 'restore':
      await entries.restore(
        admin,
        { type: 'thing', id: id(one.entry) },
        { locale: one.locale, version: one.version },
        null,
      )
      return
    case 'unpublish':
      await entries.unpublish(admin, { type: 'thing', id: id(one.entry) }, null, null)
      return
    case 'archive':
    case 'unarchive':
      await entries.archive(admin, { type: 'thing', id: id(one.entry) }, one.do === 'archive', null)
      return
    case 'delete':
      for (const gone of (await entries.delete(admin, { type: 'thing', id: id(one.entry) }, null))
        .deleted)
        ids.splice(ids.indexOf(gone), 1)
      return
    case 'bulk':
      await content.bulk.save(
        admin,
        'thing',
        one.items.map((item) => ({
          id: id(item.entry),
          locale: item.locale,
          fields: withoutNull(real(item.fields)),
          publish: item.publish,
        })),
      )
      return
    case 'release':
      await release(content, t, one, id)
  }
}

async function release(
  content: Content,
  { admin }: TestContent,
  one: Extract<Step, { do: 'release' }>,
  id: (index: number) => string,
): Promise<void> {
  const made = await content.releases.create(admin, 'R')
  const items = [...new Set(one.entries.map(id))].map((entryId) => ({
    entryId,
    locale: one.locale,
    action: 'publish' as const,
    version: one.version,
  }))
  await content.releases.put(admin, made.id, items)
  await content.releases.publish(admin, made.id)
  if (one.undo) await content.releases.undo(admin, made.id)
}

/** A refusal of content is fine; any other error is a defect. */
async function attempt(t: TestContent, ids: string[], one: Step): Promise<boolean> {
  try {
    await act(t, ids, one)
    return true
  } catch (error) {
    assert.ok(
      error instanceof StoaError && !error.code.startsWith('E_DATABASE_'),
      `${JSON.stringify(one)}: ${String(error)} ${error instanceof Error ? error.stack : ''}`,
    )
    return false
  }
}

type Held = {
  readonly entry_id: string
  readonly locale: string
  readonly data: string
  readonly filter: string
  readonly is_latest: boolean
  readonly is_published: boolean
}

async function mismatches(database: Database): Promise<string[]> {
  const held = await database.run(
    sql<Held>(
      `select entry_id, locale, data, filter, is_latest, is_published from stoa.version
        where is_latest or is_published`,
    ),
  )
  const references = new Set<string>()
  const claims = new Set<string>()
  for (const row of held) {
    const data = JSON.parse(row.data) as {
      slug?: string
      code?: string
      links?: string[]
      owner?: string
      strict?: string
    }
    const points: [string, string][] = [
      ...(data.links ?? []).map((target): [string, string] => ['links', target]),
      ...(data.owner === undefined ? [] : [['owner', data.owner] as [string, string]]),
      ...(data.strict === undefined ? [] : [['strict', data.strict] as [string, string]]),
    ]
    for (const perspective of [
      ...(row.is_latest ? ['draft'] : []),
      ...(row.is_published ? ['published'] : []),
    ]) {
      for (const [path, target] of points)
        references.add([row.entry_id, row.locale, perspective, path, target].join(' '))
      const claim = (...parts: string[]): Set<string> =>
        claims.add([perspective, ...parts, row.entry_id].join(' '))
      if (data.slug !== undefined) claim('slug', row.locale, data.slug)
      if (data.code !== undefined) claim('code', '*', data.code)
    }
  }
  const kept = await database.run(
    sql<{ line: string }>(
      `select concat_ws(' ', entry_id, locale, perspective, path, target_id) as line
        from stoa.reference`,
    ),
  )
  const claimed = await database.run(
    sql<{ line: string }>(
      `select concat_ws(' ', 'draft', field, locale, value, entry_id) as line
        from stoa.unique_draft_value
       union all
       select concat_ws(' ', 'published', field, locale, value, entry_id) from stoa.unique_value`,
    ),
  )
  const apart = await database.run(
    sql<{ line: string }>(
      `select entry_id::text as line from stoa.version where is_latest group by entry_id
        having count(distinct coalesce(data ->> 'note', '')) > 1`,
    ),
  )
  const dangling = await database.run(
    sql<{ line: string }>(
      `select target_id::text as line from stoa.reference r where not exists (select
        from stoa.entry e where e.id = r.target_id)`,
    ),
  )
  const differ = (
    name: string,
    wanted: Set<string>,
    there: readonly { line: string }[],
  ): string[] => {
    const have = new Set(there.map((row) => row.line))
    return [
      ...[...wanted].filter((line) => !have.has(line)).map((line) => `${name} missing: ${line}`),
      ...[...have].filter((line) => !wanted.has(line)).map((line) => `${name} too many: ${line}`),
    ]
  }
  return [
    ...differ('reference', references, kept),
    ...differ('claim', claims, claimed),
    ...dangling.map((row) => `dangling: ${row.line}`),
    ...apart.map((row) => `locales differ in a shared field: ${row.line}`),
  ]
}

/** A few entries to begin with, so that most steps find something to act on. */
async function some(t: TestContent): Promise<string[]> {
  const ids: string[] = []
  for (let i = 0; i < 4; i += 1)
    await attempt(t, ids, { do: 'create', fields: { title: 'one' }, locale: 'en', publish: false })
  return ids
}

/** Indexes are built beside whatever runs, but not beside emptying the tables. */
async function settled(t: TestContent): Promise<void> {
  const deadlineMs = Date.now() + 30_000
  while (!(await t.content.types.states(t.database)).every((state) => state.settled)) {
    assert.ok(Date.now() < deadlineMs, 'the type does not settle')
    await t.content.types.settle(t.database)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const wipe = sql<object>(`truncate stoa.release, stoa.entry cascade`)

test(
  'any sequence of operations keeps what the database holds in line with the versions',
  { skip },
  async () => {
    await using t = await testContent({ types: [thing], locales: ['de'] })
    await settled(t)
    let done = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 30 }), async (steps) => {
        await t.database.run(wipe)
        const ids = await some(t)
        for (const one of steps) {
          if (await attempt(t, ids, one)) done += 1
          assert.deepEqual(
            [...(await brokenInvariants(t.database)), ...(await mismatches(t.database))],
            [],
            JSON.stringify(one),
          )
        }
      }),
      { numRuns: runs ?? 15, seed: seed ?? 7, endOnFailure: true },
    )
    assert.ok(done > 100, `only ${done} operations took effect`)
  },
)

test(
  'the same operations at once never meet a broken database, and it ends consistent',
  { skip },
  async () => {
    await using t = await testContent({ types: [thing], locales: ['de'], connectionsMax: 12 })
    await settled(t)
    let done = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 30, maxLength: 60 }), async (steps) => {
        await t.database.run(wipe)
        const ids = await some(t)
        for (let at = 0; at < steps.length; at += 10) {
          const outcomes = await Promise.all(
            steps.slice(at, at + 10).map((one) => attempt(t, ids, one)),
          )
          done += outcomes.filter(Boolean).length
          assert.deepEqual(
            [...(await brokenInvariants(t.database)), ...(await mismatches(t.database))],
            [],
          )
        }
      }),
      { numRuns: runs ?? 10, seed: seed ?? 11, endOnFailure: true },
    )
    assert.ok(done > 50, `only ${done} operations took effect`)
  },
)
