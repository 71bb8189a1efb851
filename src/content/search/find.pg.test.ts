import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { test } from 'node:test'
import type { Grant } from '#content/authority.ts'
import type { Call } from '#content/content.ts'
import type { ContentType } from '#content/content-type.ts'
import { QueryLimitError, QueryParameterError } from '#content/query/errors.ts'
import { highlight } from '#content/search/highlight.ts'
import type { SearchPage, SearchQuery } from '#content/search/search.ts'
import { parsePage } from '#lib/front-matter.ts'
import { testContent } from '#test/support/content.ts'
import type { TestContent } from '#test/support/content.ts'

const fields = [
  { name: 'title', kind: 'text', localized: true, searchable: true },
  { name: 'slug', kind: 'slug', localized: true, searchable: true },
  { name: 'summary', kind: 'text', localized: true, searchable: true },
  { name: 'area', kind: 'select', options: ['guide', 'note'], filterable: true },
  { name: 'body', kind: 'markdown', localized: true, searchable: true },
] as const
const page: ContentType = { name: 'page', label: 'Page', titleField: 'title', fields }
const note: ContentType = { name: 'note', label: 'Note', titleField: 'title', fields }
const silent: ContentType = {
  name: 'silent',
  label: 'Silent',
  fields: [{ name: 'title', kind: 'text' }],
}

async function make(
  t: TestContent,
  type: string,
  values: Readonly<Record<string, unknown>>,
  locale: string | null = null,
): Promise<string> {
  const input = { locale, fields: values, publish: true }
  return (await t.content.entries.create(t.admin, type, input)).id
}

function find(
  t: TestContent,
  text: string,
  more: Partial<SearchQuery> = {},
  call: Call = t.admin,
): Promise<SearchPage> {
  return t.content.search.find(call, {
    text,
    types: null,
    locale: null,
    perspective: 'published',
    facets: [],
    limit: 20,
    after: null,
    filterFor: () => null,
    ...more,
  })
}

const titles = ({ hits }: SearchPage): (string | null)[] => hits.map((hit) => hit.title)

/** Stoa's own guide, by the names of its pages. */
async function guide(t: TestContent): Promise<ReadonlyMap<string, string>> {
  const ids = new Map<string, string>()
  for (const file of globSync('docs/guide/*.md').toSorted()) {
    const parsed = parsePage(readFileSync(file, 'utf8'))
    assert.ok(parsed.ok, file)
    const { frontMatter, body } = parsed.page
    const name = basename(file, '.md')
    const { title, summary } = frontMatter
    const values = { title, summary, area: 'guide', body }
    ids.set(await make(t, 'page', { ...values, slug: name }), name)
  }
  return ids
}

/** A search by readers of the guide, and the page that has to be among the first so many. */
const relevance: readonly (readonly [search: string, page: string, within: number])[] = [
  ['welcome', 'welcome', 1],
  ['start a node', 'welcome', 3],
  ['content types', 'content-types', 1],
  ['field kinds', 'content-types', 3],
  ['filterable', 'content-types', 6],
  ['searchable', 'search', 2],
  ['suggestions', 'search', 1],
  ['localized', 'content-types', 5],
  ['blocks', 'content-types', 2],
  ['upload an image', 'assets', 2],
  ['alternative text', 'assets', 3],
  ['focal point', 'assets', 1],
  ['renditions', 'assets', 2],
  ['publish', 'publishing', 1],
  ['unpublishing', 'publishing', 2],
  ['schedule', 'publishing', 3],
  ['releases', 'publishing', 3],
  ['sorting', 'queries', 2],
  ['descending', 'queries', 1],
  ['where filter', 'queries', 3],
  ['roles and permissions', 'access', 1],
  ['sign in', 'access', 2],
  ['API tokens', 'access', 3],
  ['import WordPress', 'import-export', 1],
  ['markdown folder', 'import-export', 3],
  ['backup', 'running', 3],
  ['many nodes', 'many-nodes', 1],
  ['"object storage"', 'file-stores', 2],
  ['bucket', 'file-stores', 1],
]

test('the guide is found by what its readers look for', async () => {
  await using t = await testContent({ types: [page] })
  const names = await guide(t)
  const missed: string[] = []
  for (const [search, wanted, within] of relevance) {
    const { hits } = await find(t, search)
    const found = hits.map(({ entry }) => names.get(entry.id))
    if (!found.slice(0, within).includes(wanted))
      missed.push(`${search}: ${wanted} is not in the first ${within} of ${found.join(', ')}`)
  }
  assert.deepEqual(missed, [])
})

test('types are searched together, with facets, filters and pages that end', async () => {
  await using t = await testContent({ types: [page, note, silent] })
  for (let i = 0; i < 7; i += 1)
    await make(t, 'page', { title: `Page ${i}`, area: 'guide', body: 'About the stoa' })
  for (let i = 0; i < 5; i += 1)
    await make(t, 'note', { title: `Stoa ${i}`, area: i < 2 ? 'guide' : 'note', body: 'Short' })
  await make(t, 'silent', { title: 'Stoa' })
  const found = await find(t, 'stoa', { facets: ['area'], limit: 5 })
  assert.equal(found.count, 12)
  assert.equal(found.countIsExact, true)
  assert.ok(
    titles(found).every((title) => title?.startsWith('Stoa')),
    'titles count most',
  )
  assert.deepEqual(found.facets['type'], [
    { value: 'page', count: 7 },
    { value: 'note', count: 5 },
  ])
  assert.deepEqual(found.facets['locale'], [{ value: 'en', count: 12 }])
  assert.deepEqual(found.facets['area'], [
    { value: 'guide', count: 9 },
    { value: 'note', count: 3 },
  ])
  const seen = found.hits.map((hit) => hit.entry.id)
  let { after } = found
  for (let pages = 0; after !== null && pages < 5; pages += 1) {
    const next: SearchPage = await find(t, 'stoa', { limit: 5, after })
    seen.push(...next.hits.map((hit) => hit.entry.id))
    after = next.after
  }
  assert.equal(after, null)
  assert.deepEqual([seen.length, new Set(seen).size], [12, 12])
  const notes = await find(t, 'stoa', {
    types: ['note'],
    filterFor: () => ({ op: 'compare', field: 'area', test: { is: 'eq', value: 'note' } }),
  })
  assert.equal(notes.count, 3)
  await assert.rejects(find(t, 'stoa', { types: ['silent'] }), QueryParameterError)
  await assert.rejects(find(t, 'stoa', { limit: 51 }), QueryLimitError)
  await assert.rejects(find(t, 'stoa', { facets: Array<string>(9).fill('area') }), QueryLimitError)
})

test('rights decide what is found, counted, marked and suggested', async () => {
  await using t = await testContent({ types: [page, note] })
  const open = await make(t, 'page', { title: 'Open gate', area: 'guide', body: 'amber wall' })
  await make(t, 'page', { title: 'Shut gate', area: 'note', body: 'amber wall' })
  await make(t, 'note', { title: 'Gate note', area: 'note', body: 'amber' })
  const guides: Grant = {
    filter: { op: 'compare', field: 'area', test: { is: 'eq', value: 'guide' } },
    fields: null,
  }
  const filtered = t.call({ page: { read: guides } })
  const found = await find(t, 'amber', { facets: ['area'] }, filtered)
  assert.deepEqual([titles(found), found.count], [['Open gate'], 1])
  assert.deepEqual(found.facets['area'], [{ value: 'guide', count: 1 }])
  assert.deepEqual(found.facets['type'], [{ value: 'page', count: 1 }])
  const suggested = await t.content.search.suggest(filtered, {
    text: 'ga',
    types: null,
    locale: null,
    limit: 10,
  })
  assert.deepEqual(suggested, [{ title: 'Open gate', type: 'page', id: open, slug: null }])
  const noBody = t.call({ page: { read: { filter: null, fields: ['title', 'summary', 'slug'] } } })
  assert.deepEqual(titles(await find(t, 'amber', {}, noBody)), [])
  const [hit] = (await find(t, 'gate -amber', {}, noBody)).hits
  assert.deepEqual(Object.keys(hit?.highlights ?? {}), ['title'])
  await assert.rejects(find(t, 'gate', { facets: ['area'] }, noBody), /no type|No type/)
  await assert.rejects(find(t, 'gate', { types: ['note'] }, noBody), QueryParameterError)
  const without = await find(t, 'gate', {}, t.call({}))
  assert.deepEqual([without.hits, without.count, without.after], [[], 0, null])
  const drafts = await find(t, 'gate', { perspective: 'draft' }, filtered)
  assert.equal(drafts.count, 0, 'drafts need a right of their own')
})

test('a locale is searched with its fallbacks, each in its language', async () => {
  await using t = await testContent({ types: [page], locales: ['de', 'fr'] })
  await make(t, 'page', { title: 'Temples', body: 'Old temples' })
  const both = await make(t, 'page', { title: 'Houses', body: 'Old houses' })
  const input = { locale: 'de', fields: { title: 'Häuser', body: 'Alte Häuser' }, publish: true }
  const entry = { type: 'page', id: both }
  await t.content.entries.save(t.admin, entry, { ...input, merge: false }, null)
  assert.deepEqual(titles(await find(t, 'haus', { locale: 'de' })), ['Häuser'])
  assert.deepEqual(titles(await find(t, 'old', { locale: 'de' })), ['Temples'])
  const facets = (await find(t, 'temple', { locale: 'de' })).facets['locale']
  assert.deepEqual(facets, [{ value: 'en', count: 1 }])
})

test('what is shown as HTML is safe, and marks every form of a word', async () => {
  await using t = await testContent({ types: [page] })
  const body = 'Roofs & <b>"roofing"</b> of <script>alert(1)</script> a roof’s tiles'
  await make(t, 'page', { title: '<img src=x onerror=alert(1)> roof', body })
  const [hit] = (await find(t, 'roofs')).hits
  assert.equal(hit?.highlights['title'], '&lt;img src=x onerror=alert(1)&gt; <mark>roof</mark>')
  const shown = hit?.highlights['body'] ?? ''
  assert.match(shown, /^<mark>Roofs<\/mark> &amp; +&quot;<mark>roofing<\/mark>&quot;/)
  assert.equal(shown.replaceAll(/<\/?mark>/g, '').includes('<'), false)
})

test('an excerpt begins a little before what was found, and joins pairs of characters', () => {
  const found = new Set(['stoa', '数据', '据库'])
  const text = `${'before '.repeat(50)}the stoa ${'after '.repeat(50)}`
  const excerpt = highlight(text, found)
  assert.match(excerpt ?? '', /^…(before )+the <mark>stoa<\/mark>( after)+…$/)
  assert.equal(highlight('一个数据库的', found), '一个<mark>数据库</mark>的')
  assert.equal(highlight('nothing here', found), null)
  assert.equal(highlight('stoa', found), '<mark>stoa</mark>')
})

test('suggestions are titles, each once, by the beginning of a word', async () => {
  await using t = await testContent({ types: [page, note] })
  await make(t, 'page', { title: 'Long stoa', body: 'columns' })
  await make(t, 'note', { title: 'Long stoa', body: 'columns' })
  await make(t, 'page', { title: 'Stairs', body: 'a long stoa' })
  const suggest = async (text: string): Promise<string[]> =>
    (await t.content.search.suggest(t.admin, { text, types: null, locale: null, limit: 10 })).map(
      ({ title }) => title,
    )
  assert.deepEqual(await suggest('sto'), ['Long stoa'])
  assert.deepEqual(await suggest('long s'), ['Long stoa'])
  assert.deepEqual(await suggest('stai'), ['Stairs'])
  assert.deepEqual(await suggest('colum'), [])
  await assert.rejects(suggest('!'), QueryParameterError)
})
