import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Call, Page } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { RowTexts } from '#content/query/row-texts.ts'
import type { Queryable } from '#database/database.ts'
import { sql } from '#database/database.ts'
import { listing, testContent } from '#test/support/content.ts'
import type { TestContent } from '#test/support/content.ts'
import { databaseMissing } from '#test/support/database.ts'
import { Random } from '../../../sim/random.ts'

const note: ContentType = {
  name: 'note',
  label: 'Note',
  fields: [
    { name: 'title', kind: 'text', localized: true, filterable: true },
    { name: 'group', kind: 'number', integer: true, filterable: true },
  ],
}

const steps = 120
const seed = Number(process.env['STOA_TEST_SEED'] ?? Date.now() % 2 ** 31)

/** A reader that keeps texts, of one life of the database. */
function keeping(
  test: TestContent,
  options: {
    readonly texts?: RowTexts
    readonly life?: string | null
    readonly db?: Queryable
  } = {},
): { readonly call: Call; readonly texts: RowTexts } {
  const { texts = new RowTexts(1_000_000), life = 'one' } = options
  return {
    call: { ...test.admin, db: options.db ?? test.database, known: { texts, life: () => life } },
    texts,
  }
}

async function write(test: TestContent, titles: readonly string[]): Promise<string[]> {
  const ids: string[] = []
  for (const title of titles)
    ids.push(
      (
        await test.content.entries.create(test.admin, 'note', {
          locale: null,
          fields: { title, group: 1 },
          publish: true,
        })
      ).id,
    )
  return ids
}

const rename = async (test: TestContent, id: string, title: string): Promise<unknown> =>
  test.content.entries.save(
    test.admin,
    { type: 'note', id },
    { locale: null, fields: { title }, merge: true, publish: true },
    null,
  )

const titlesOf = ({ data }: Page): unknown[] =>
  data.map((entry) => (JSON.parse(entry.fieldsJson) as { title: unknown }).title)

test(
  'a list that is read anew is sent the entries that changed, and not the others',
  { skip: databaseMissing },
  async () => {
    await using site = await testContent({ types: [note] })
    const ids = await write(site, ['a', 'b', 'c', 'd'])
    const { call, texts } = keeping(site)
    const list = listing('note', { sort: [{ field: 'title', descending: false }] })
    assert.deepEqual(titlesOf(await site.content.entries.list(call, list)), ['a', 'b', 'c', 'd'])
    assert.deepEqual(texts.counts, { reused: 0, sent: 4 })
    assert.deepEqual(titlesOf(await site.content.entries.list(call, list)), ['a', 'b', 'c', 'd'])
    assert.deepEqual(texts.counts, { reused: 4, sent: 4 })
    await rename(site, ids[1]!, 'bb')
    assert.deepEqual(titlesOf(await site.content.entries.list(call, list)), ['a', 'bb', 'c', 'd'])
    assert.deepEqual(texts.counts, { reused: 7, sent: 5 })
  },
)

test(
  'of rows that one transaction wrote, one that is not known comes whole',
  { skip: databaseMissing },
  async () => {
    await using site = await testContent({ types: [note] })
    const ids = await write(site, ['a', 'b', 'c'])
    const { call, texts } = keeping(site)
    const list = listing('note', { sort: [{ field: 'title', descending: false }], limit: 1 })
    await site.content.entries.list(call, { ...list, limit: 20 })
    await site.database.run(sql(`update stoa.version set data = '{"title":"new"}'`))
    assert.deepEqual(titlesOf(await site.content.entries.list(call, list)), ['new'])
    assert.deepEqual(texts.counts, { reused: 0, sent: 5 })
    await site.content.entries.delete(site.admin, { type: 'note', id: ids[0]! }, null)
    // The page and the row after it are now `b`, which is known, and `c`, of which only the former
    // text is, by the same writer.
    assert.deepEqual(titlesOf(await site.content.entries.list(call, list)), ['new'])
    assert.deepEqual(texts.counts, { reused: 0, sent: 7 })
  },
)

test(
  'texts of another life of the database, or of an unknown one, are not used',
  { skip: databaseMissing },
  async () => {
    await using site = await testContent({ types: [note] })
    await write(site, ['a', 'b'])
    const texts = new RowTexts(1_000_000)
    for (const life of ['one', 'two', null, null])
      assert.equal(
        (await site.content.entries.list(keeping(site, { texts, life }).call, listing('note'))).data
          .length,
        2,
      )
    assert.deepEqual(texts.counts, { reused: 0, sent: 8 })
  },
)

test(
  'without room for texts a list is made of what is sent',
  { skip: databaseMissing },
  async () => {
    await using site = await testContent({ types: [note] })
    await write(site, ['a', 'b'])
    const { call, texts } = keeping(site, { texts: new RowTexts(100) })
    for (let time = 0; time < 3; time += 1)
      assert.equal((await site.content.entries.list(call, listing('note'))).data.length, 2)
    assert.deepEqual(texts.counts, { reused: 0, sent: 6 })
    assert.equal(texts.bytes, 0)
  },
)

test('what is kept stays within its bound', { skip: databaseMissing }, async () => {
  await using site = await testContent({ types: [note] })
  await write(
    site,
    Array.from({ length: 30 }, (_, at) => `${at} ${'x'.repeat(500)}`),
  )
  const bytesMax = 20_000
  const { call, texts } = keeping(site, { texts: new RowTexts(bytesMax) })
  for (let limit = 1; limit <= 30; limit += 1) {
    for (let time = 0; time < 2; time += 1)
      await site.content.entries.list(call, listing('note', { limit }))
    assert.ok(texts.bytes <= bytesMax, `${texts.bytes} bytes`)
  }
  assert.ok(texts.bytes > bytesMax / 4, `${texts.bytes} bytes`)
  assert.ok(texts.counts.reused > 0)
})

const touch = sql(
  `update stoa.version set data = jsonb_set(data::jsonb, '{title}', ` +
    `to_jsonb($2::text))::text::json where entry_id = $1`,
)

test(
  'whatever is written, by whomever, lists with known texts are those without',
  { skip: databaseMissing },
  async () => {
    await using site = await testContent({ types: [note], locales: ['de'] })
    const random = new Random(seed)
    const { entries } = site.content
    const ids = await write(site, ['a', 'b', 'c', 'd', 'e', 'f'])
    const { call, texts } = keeping(site, { texts: new RowTexts(40_000) })
    const title = (): string => random.pick(['ä', 'b', 'c', 'x'.repeat(300)]) + random.below(10)
    const writes: (() => Promise<unknown>)[] = [
      async () =>
        entries.save(
          site.admin,
          { type: 'note', id: random.pick(ids) },
          {
            locale: random.pick([null, 'de']),
            fields: { title: title(), group: random.below(2) },
            merge: random.chance(0.5),
            publish: random.chance(0.5),
          },
          null,
        ),
      async () =>
        entries.publish(
          site.admin,
          { type: 'note', id: random.pick(ids) },
          { locales: null, version: null },
          null,
        ),
      async () => entries.unpublish(site.admin, { type: 'note', id: random.pick(ids) }, null, null),
      async () => ids.push(...(await write(site, [title()]))),
      async () => {
        if (ids.length > 3)
          await entries.delete(
            site.admin,
            { type: 'note', id: ids.splice(random.below(ids.length), 1)[0]! },
            null,
          )
      },
      // An operator, past the API; several rows of one writer.
      async () =>
        site.database.transaction(async (tx) => {
          for (let rows = 0; rows < 3; rows += 1) await tx.run(touch, [random.pick(ids), title()])
        }),
    ]
    for (let step = 0; step < steps; step += 1) {
      await random.pick(writes)()
      for (const perspective of ['published', 'draft'] as const) {
        for (const locale of [null, 'de']) {
          const query = listing('note', {
            perspective,
            locale,
            limit: random.pick([3, 20]),
            sort: [{ field: random.pick(['title', 'updatedAt']), descending: random.chance(0.5) }],
          })
          assert.deepEqual(
            await entries.list(call, query),
            await entries.list(site.admin, query),
            `seed ${seed}, step ${step}`,
          )
        }
      }
    }
    assert.ok(texts.counts.reused > texts.counts.sent / 10, JSON.stringify(texts.counts))
  },
)
