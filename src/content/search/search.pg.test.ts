import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Grant } from '#content/authority.ts'
import type { Call } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { QueryFieldError, QueryParameterError } from '#content/query/errors.ts'
import type { ListQuery } from '#content/query/query.ts'
import { sql } from '#database/database.ts'
import { listing, testContent } from '#test/support/content.ts'
import type { TestContent } from '#test/support/content.ts'

const page: ContentType = {
  name: 'page',
  label: 'Page',
  titleField: 'title',
  fields: [
    { name: 'title', kind: 'text', localized: true, searchable: true },
    { name: 'slug', kind: 'slug', from: 'title', localized: true, searchable: true },
    { name: 'summary', kind: 'text', localized: true, searchable: true },
    { name: 'secret', kind: 'text', localized: true },
    { name: 'area', kind: 'select', options: ['history', 'guide'], filterable: true },
    { name: 'body', kind: 'markdown', localized: true, searchable: true },
  ],
}

type Fields = Readonly<Record<string, unknown>>

async function make(
  t: TestContent,
  fields: Fields,
  options: { readonly locale?: string; readonly publish?: boolean } = {},
): Promise<string> {
  const { locale = null, publish = true } = options
  const made = await t.content.entries.create(t.admin, 'page', { locale, fields, publish })
  return made.id
}

/** Settling goes on in the background, on one node at a time. */
async function untilSettled(t: TestContent): Promise<void> {
  for (let tries = 0; tries < 200; tries += 1) {
    await t.content.types.settle(t.database)
    const states = await t.content.types.states(t.database)
    if (states.every((state) => state.settled)) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  assert.fail('the types have not settled')
}

async function titles(
  t: TestContent,
  search: string,
  query: Partial<ListQuery> = {},
  call: Call = t.admin,
): Promise<unknown[]> {
  const found = await t.content.entries.list(call, listing('page', { search, ...query }))
  return found.data.map((entry) => (JSON.parse(entry.fieldsJson) as Fields)['title'])
}

test('a search finds what is published, and follows each write', async () => {
  await using t = await testContent({ types: [page] })
  const id = await make(t, { title: 'Roofs', body: 'Columns carry the **roofs** of porches.' })
  await make(t, { title: 'Draft', body: 'Columns in a draft.' }, { publish: false })
  assert.deepEqual(await titles(t, 'column'), ['Roofs'], 'stems are equal')
  assert.deepEqual(
    new Set(await titles(t, 'column', { perspective: 'draft' })),
    new Set(['Draft', 'Roofs']),
  )
  const entry = { type: 'page', id }
  const save = (fields: Fields, publish = false): Promise<unknown> =>
    t.content.entries.save(t.admin, entry, { locale: null, fields, merge: true, publish }, null)
  await save({ body: 'Now about marble.' })
  assert.deepEqual(await titles(t, 'marble'), [], 'the draft is not published')
  assert.deepEqual(await titles(t, 'columns'), ['Roofs'], 'the published version stays')
  assert.deepEqual(await titles(t, 'marble', { perspective: 'draft' }), ['Roofs'])
  await save({ body: 'Now about granite.' })
  assert.deepEqual(await titles(t, 'marble', { perspective: 'draft' }), [])
  const everyLocale = { locales: null, version: null }
  await t.content.entries.publish(t.admin, entry, everyLocale, null)
  assert.deepEqual(await titles(t, 'granite'), ['Roofs'])
  await save({ body: 'Published in place: slate.' }, true)
  assert.deepEqual(await titles(t, 'slate'), ['Roofs'])
  await t.content.entries.publish(t.admin, entry, { locales: null, version: 1 }, null)
  assert.deepEqual(await titles(t, 'columns'), ['Roofs'], 'a version out of the history is found')
  await t.content.entries.unpublish(t.admin, entry, null, null)
  assert.deepEqual(await titles(t, 'columns'), [])
  await t.content.entries.delete(t.admin, entry, null)
  assert.deepEqual(await titles(t, 'slate', { perspective: 'draft' }), [])
})

test('titles count more than texts; filters, sorts and counts go on working', async () => {
  await using t = await testContent({ types: [page] })
  await make(t, { title: 'Other things', area: 'guide', body: 'A word about the stoa.' })
  await make(t, { title: 'Stoa', area: 'history', body: 'Built long ago.' })
  await make(t, { title: 'Baths', area: 'history', body: 'No porch.' })
  assert.deepEqual(await titles(t, 'stoa'), ['Stoa', 'Other things'])
  const guide = { op: 'compare', field: 'area', test: { is: 'eq', value: 'guide' } } as const
  assert.deepEqual(await titles(t, 'stoa', { filter: guide }), ['Other things'])
  const oldestFirst = [{ field: 'id', descending: false }]
  assert.deepEqual(await titles(t, 'stoa', { sort: oldestFirst }), ['Other things', 'Stoa'])
  const counted = await t.content.entries.list(
    t.admin,
    listing('page', { search: 'stoa', count: true, limit: 1 }),
  )
  assert.deepEqual([counted.count, counted.data.length], [2, 1])
})

test('phrases, exclusions, beginnings, accents and languages', async () => {
  await using t = await testContent({ types: [page], locales: ['de', 'ja', 'ru'] })
  await make(t, { title: 'One', body: 'The long stoa of Attalos in Athens' })
  await make(t, { title: 'Two', body: 'A stoa that is long, in Rome. Café crème.' })
  assert.deepEqual(await titles(t, '"long stoa"'), ['One'])
  assert.deepEqual(await titles(t, 'stoa -rome'), ['One'])
  assert.deepEqual(await titles(t, 'atta*'), ['One'])
  assert.deepEqual(await titles(t, 'cafe CREME'), ['Two'])
  assert.deepEqual(await titles(t, 'atta'), [])
  await make(t, { title: 'Häuser', body: 'Alte Häuser am Platz' }, { locale: 'de' })
  assert.deepEqual(await titles(t, 'haus', { locale: 'de' }), ['Häuser'])
  await make(t, { title: '文書', body: '静的サイトとデータベースの文書' }, { locale: 'ja' })
  assert.deepEqual(await titles(t, 'データベース', { locale: 'ja' }), ['文書'])
  assert.deepEqual(await titles(t, '静', { locale: 'ja' }), ['文書'])
  await make(t, { title: 'Книги', body: 'Новые книги в библиотеке' }, { locale: 'ru' })
  assert.deepEqual(await titles(t, 'книга', { locale: 'ru' }), ['Книги'])
  assert.deepEqual(
    new Set(await titles(t, 'stoa', { locale: 'de' })),
    new Set(['One', 'Two']),
    'fallbacks are searched in their own language',
  )
})

test('a caller finds nothing by what they may not see', async () => {
  await using t = await testContent({ types: [page] })
  await make(t, { title: 'Open', summary: 'amber', body: 'basalt', area: 'guide' })
  await make(t, { title: 'Closed', summary: 'amber', body: 'basalt', area: 'history' })
  const as = (grant: Grant): Call => t.call({ page: { read: grant } })
  const guides: Grant = {
    filter: { op: 'compare', field: 'area', test: { is: 'eq', value: 'guide' } },
    fields: null,
  }
  assert.deepEqual(await titles(t, 'amber', {}, as(guides)), ['Open'])
  const noBody = as({ filter: null, fields: ['title', 'summary', 'slug'] })
  assert.deepEqual(await titles(t, 'basalt', {}, noBody), [])
  assert.equal((await titles(t, 'amber', {}, noBody)).length, 2)
  assert.equal(
    (await titles(t, 'amber -basalt', {}, noBody)).length,
    2,
    'not even that a word is there',
  )
  const noSearch = as({ filter: null, fields: ['secret'] })
  await assert.rejects(titles(t, 'amber', {}, noSearch), QueryFieldError)
})

test('pages of a search end, and show each entry once', async () => {
  await using t = await testContent({ types: [page] })
  const made = 45
  for (let i = 0; i < made; i += 1)
    await make(t, { title: `Page ${i}`, body: 'stoa '.repeat(1 + (i % 7)) })
  const seen: string[] = []
  let after: string | null = null
  for (let pages = 0; pages < 10; pages += 1) {
    const query: ListQuery = listing('page', { search: 'stoa', limit: 10, after })
    const found = await t.content.entries.list(t.admin, query)
    seen.push(...found.data.map((entry) => entry.id))
    after = found.after
    if (after === null) break
  }
  assert.equal(after, null)
  assert.equal(seen.length, made)
  assert.equal(new Set(seen).size, made)
})

test('a field that becomes searchable is found once its type has settled', async () => {
  await using t = await testContent({ types: [page] })
  const secret = (searchable: boolean): ContentType => ({
    ...page,
    fields: page.fields.map((field) =>
      field.name === 'secret'
        ? { name: 'secret', kind: 'text', localized: true, searchable }
        : field,
    ),
  })
  await make(t, { title: 'Old', secret: 'obsidian' })
  assert.deepEqual(await titles(t, 'obsidian'), [])
  const options = { expected: null, allowLoss: false }
  await t.content.types.save(t.database, secret(true), options)
  await untilSettled(t)
  assert.deepEqual(await titles(t, 'obsidian'), ['Old'])
  await t.content.types.save(t.database, secret(false), options)
  assert.deepEqual(await titles(t, 'obsidian'), [], 'what is not settled is not found')
})

test('the index of a type serves its searches', async () => {
  await using t = await testContent({ types: [page] })
  await untilSettled(t)
  const indexes = await t.database.run(
    sql<{ text: string }>(`
      select indexdef as text from pg_indexes
      where schemaname = 'stoa' and indexdef like '%USING gin (search)%'`),
  )
  assert.deepEqual(
    new Set(indexes.map(({ text }) => /WHERE (\w+)/.exec(text)?.[1])),
    new Set(['is_latest', 'is_published']),
  )
})

test('words that a write without search left behind are not found', async () => {
  await using t = await testContent({ types: [page] })
  const id = await make(t, { title: 'Stale', body: 'porphyry' })
  await t.database.run(
    sql<object>(`update stoa.version set number = number + 1, data = '{}' where entry_id = $1`),
    [id],
  )
  assert.deepEqual(await titles(t, 'porphyry'), [])
})

test('words that differ from the content are counted, and made anew', async () => {
  await using t = await testContent({ types: [page] })
  await make(t, { title: 'Right', body: 'gneiss' })
  const id = await make(t, { title: 'Wrong', body: 'porphyry' })
  const verify = (repair: boolean) => {
    const { signal } = new AbortController()
    return t.content.search.verify(t.database, { repair, signal, onProgress: () => undefined })
  }
  assert.deepEqual(await verify(false), { checked: 2, wrong: 0, wrongByType: {} })
  await t.database.run(
    sql<object>(`update stoa.version set search = to_tsvector('jade') where entry_id = $1`),
    [id],
  )
  assert.deepEqual(await titles(t, 'porphyry'), [])
  const wrong = { checked: 2, wrong: 1, wrongByType: { page: 1 } }
  assert.deepEqual(await verify(false), wrong)
  assert.deepEqual(await verify(true), wrong)
  assert.deepEqual(await titles(t, 'porphyry'), ['Wrong'])
  assert.deepEqual(await titles(t, 'jade'), [])
  assert.deepEqual(await verify(true), { checked: 2, wrong: 0, wrongByType: {} })
})

test('a search that cannot be is refused with what to do', async () => {
  const note: ContentType = { name: 'note', label: 'Note', fields: [{ name: 'a', kind: 'text' }] }
  await using t = await testContent({ types: [page, note] })
  await assert.rejects(
    t.content.entries.list(t.admin, listing('note', { search: 'x' })),
    QueryFieldError,
  )
  await assert.rejects(titles(t, '-x'), QueryParameterError)
  const release = await t.content.releases.create(t.admin, 'Spring')
  await assert.rejects(
    titles(t, 'x', { perspective: { release: release.id } }),
    QueryParameterError,
  )
})
