import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseListQuery } from '#api/delivery/query-string.ts'
import { matches } from '#cache/predicate.ts'
import type { Predicate } from '#cache/predicate.ts'
import type { ContentType } from '#content/content-type.ts'
import type { Call, UnreadQuery } from '#content/content.ts'
import type { Depends } from '#content/query/dependencies.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { testContent } from '#test/support/content.ts'
import type { TestContent } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'

const category: ContentType = {
  name: 'category',
  label: 'Category',
  fields: [
    { name: 'title', kind: 'text', localized: true, filterable: true },
    { name: 'slug', kind: 'slug', from: 'title', localized: true },
    { name: 'secret', kind: 'text', filterable: true },
    { name: 'color', kind: 'select', options: ['red', 'blue'], filterable: true },
  ],
}
const article: ContentType = {
  name: 'article',
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text', filterable: true },
    { name: 'category', kind: 'reference', types: ['category'], filterable: true },
    { name: 'tags', kind: 'reference', types: ['category'], many: true, filterable: true },
    { name: 'loose', kind: 'reference', types: ['category'] },
  ],
}

function asked(text: string, type = 'article'): UnreadQuery {
  const perspective = text.includes('perspective=draft') ? 'draft' : 'published'
  return { type, perspective, read: (reader) => parseListQuery(`sort=title&${text}`, reader) }
}

async function titles({ content }: TestContent, call: Call, text: string): Promise<string[]> {
  const page = await content.entries.list(call, asked(`count=true&${text}`))
  assert.equal(page.count, page.data.length)
  return page.data.map((one) => (JSON.parse(one.fieldsJson) as { title: string }).title)
}

async function refusal({ content }: TestContent, call: Call, text: string): Promise<StoaError> {
  try {
    await content.entries.list(call, asked(text))
  } catch (error) {
    if (error instanceof StoaError) return error
    throw error
  }
  throw new Error(`${text} is taken`)
}

async function site(): Promise<TestContent & { readonly ids: readonly string[] }> {
  const here = await testContent({ types: [category, article], locales: ['de'] })
  const create = async (type: string, fields: Record<string, unknown>, publish = true) =>
    (await here.content.entries.create(here.admin, type, { locale: null, fields, publish })).id
  const news = await create('category', { title: 'News', secret: 'x', color: 'red' })
  const sport = await create('category', { title: 'Sport', secret: 'y', color: 'blue' })
  const draft = await create('category', { title: 'Draft' }, false)
  const german = { locale: 'de', fields: { title: 'Neues' }, merge: true, publish: true }
  await here.content.entries.save(here.admin, { type: 'category', id: news }, german, null)
  await create('article', { title: 'a', category: news, tags: [news, sport] })
  await create('article', { title: 'b', category: sport, tags: [sport] })
  await create('article', { title: 'c', category: draft })
  await create('article', { title: 'd' })
  return { ...here, ids: [news, sport, draft] }
}

test('a filter goes one step across a reference', { skip }, async () => {
  await using here = await site()
  const { admin } = here
  const found = (text: string): Promise<string[]> => titles(here, admin, text)
  assert.deepEqual(await found('where[category.slug][eq]=news'), ['a'])
  assert.deepEqual(await found('where[category.title][ne]=News'), ['b'])
  assert.deepEqual(await found('where[not][category.slug][eq]=news'), ['b', 'c', 'd'])
  assert.deepEqual(await found('where[tags.slug][in]=sport,none'), ['a', 'b'])
  assert.deepEqual(await found('where[or][0][category.slug][eq]=news&where[or][1][title][eq]=d'), [
    'a',
    'd',
  ])
  assert.deepEqual(await found('where[category.slug][eq]=neues'), [], 'in the locale asked for')
  assert.deepEqual(await found('locale=de&where[category.slug][eq]=neues'), ['a'])
  assert.deepEqual(await found('locale=de&where[category.slug][eq]=sport'), ['b'], 'a fallback')
  assert.deepEqual(await found('where[category.slug][eq]=draft'), [], 'not published')
  assert.deepEqual(await found('perspective=draft&where[category.slug][eq]=draft'), ['c'])
  assert.deepEqual(await found('where[category.color][eq]=blue&limit=1'), ['b'])
})

test('what the reader may not see of the target matches nothing', { skip }, async () => {
  await using here = await site()
  const grant = (category: unknown): Call =>
    here.call({ article: { read: true }, category: category as { read: true } })
  const filter = { op: 'compare', field: 'secret', test: { is: 'ne', value: 'x' } } as const
  const narrow = grant({ read: { filter, fields: null } })
  assert.deepEqual(await titles(here, narrow, 'where[category.slug][eq]=news'), [])
  assert.deepEqual(await titles(here, narrow, 'where[category.slug][eq]=sport'), ['b'])
  assert.deepEqual(await titles(here, narrow, 'where[category.color][exists]=true'), ['b'])
  const blind = grant({ read: { filter: null, fields: ['title', 'slug'] } })
  const hidden = await refusal(here, blind, 'where[category.secret][eq]=x')
  const missing = await refusal(here, blind, 'where[category.nothing][eq]=x')
  assert.deepEqual(
    [hidden.code, hidden.message.replace('secret', 'nothing')],
    [missing.code, missing.message],
    'a hidden field is like none',
  )
  const none = here.call({ article: { read: true } })
  assert.equal((await refusal(here, none, 'where[category.slug][eq]=news')).code, 'E_QUERY_FIELD')
})

test(
  'what cannot be asked across a reference is refused, and says what can',
  { skip },
  async () => {
    await using here = await site()
    for (const [text, code, says] of [
      ['where[category.nope][eq]=x', 'E_QUERY_FIELD', 'category.slug'],
      ['where[title.slug][eq]=x', 'E_QUERY_FIELD', 'no reference'],
      ['where[loose.slug][eq]=x', 'E_QUERY_FIELD', 'not filterable'],
      ['where[category.slug.x][eq]=x', 'E_QUERY_LIMIT', 'one step'],
      ['where[category.color][eq]=green', 'E_QUERY_VALUE', 'red, blue'],
      ['where[status][eq]=nonsense', 'E_QUERY_VALUE', 'draft, published, changed, archived'],
      ['where[status][in]=draft,nonsense', 'E_QUERY_VALUE', 'archived'],
      ['where[locale][eq]=xx', 'E_QUERY_VALUE', 'en'],
      ['sort=category.slug', 'E_QUERY', ''],
    ] as const) {
      const error = await refusal(here, here.admin, text)
      assert.ok(
        error.code.startsWith(code) && error.message.includes(says),
        `${text}: ${error.message}`,
      )
    }
  },
)

test('such a list depends on every entry of the types that it leads to', { skip }, async () => {
  await using here = await site()
  const lists: Predicate[] = []
  let widened = 0
  const depends: Depends = {
    row: () => undefined,
    list: (_collection, predicate) => lists.push(predicate),
    widened: () => (widened += 1),
  }
  const call = { ...here.admin, depends }
  await here.content.entries.list(call, asked('where[category.slug][eq]=news'))
  const touched = (row: Record<string, unknown>): boolean =>
    lists.some((predicate) => matches(predicate, row))
  assert.ok(touched({ type: 'category', is_published: true, locale: 'en' }))
  assert.ok(touched({ type: 'article', is_published: true, locale: 'en' }))
  assert.ok(!touched({ type: 'category', is_published: false, is_latest: true, locale: 'en' }))
  assert.equal(widened, 1)
})
