import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import type { Persona, Site, SiteResponse } from '#test/support/site.ts'

/**
 * Drafts never reach the anonymous role, as non-interference shows: every probe is sent, then all
 * that is not published is changed, added to and deleted, then every probe is sent again. A
 * response that differs in any byte has revealed a draft.
 */
const first = {
  word: 'zebra',
  slug: 'zebra-slug',
  rank: 4711,
  at: '2031-01-01T00:00:00.000Z',
  color: 'red',
  hot: true,
}
const second = {
  word: 'quagga',
  slug: 'quagga-slug',
  rank: 42,
  at: '1999-12-31T23:59:59.000Z',
  color: 'blue',
  hot: false,
}
type Secret = typeof first

const definition = {
  label: 'Article',
  fields: [
    { name: 'title', kind: 'text', filterable: true, localized: true },
    { name: 'slug', kind: 'slug' },
    { name: 'code', kind: 'text', unique: true },
    { name: 'rank', kind: 'number', filterable: true },
    { name: 'at', kind: 'dateTime', filterable: true },
    { name: 'color', kind: 'select', options: ['red', 'blue', 'green'], filterable: true },
    { name: 'hot', kind: 'boolean', filterable: true },
    { name: 'words', kind: 'list', of: { name: 'word', kind: 'text' }, filterable: true },
    { name: 'parent', kind: 'reference', filterable: true, onDelete: 'unset' },
    { name: 'related', kind: 'reference', many: true, filterable: true, onDelete: 'unset' },
    { name: 'body', kind: 'markdown' },
  ],
  indexes: [['rank', '-publishedAt']],
}

async function ok(
  { site, as = 'administrator' }: { readonly site: Site; readonly as?: Persona },
  method: string,
  url: string,
  body?: unknown,
): Promise<SiteResponse> {
  const response = await site.request(method, url, { as, ...(body === undefined ? {} : { body }) })
  assert.ok(response.status < 300, `${method} ${url}: ${response.text}`)
  return response
}

function secretFields(
  { word, slug, rank, at, color, hot }: Secret,
  which: string,
): Record<string, unknown> {
  return {
    title: `${word} ${which}`,
    slug: `${slug}-${which}`,
    code: `${word}-${which}`,
    rank,
    at,
    color,
    hot,
    words: [word],
    body: `about a ${word}`,
  }
}

type Ids = {
  readonly changed: string
  readonly draft: string
  readonly archived: string
  readonly withdrawn: string
  readonly pointing: string
  readonly release: string
  readonly deleted: string
}

const openFields = (which: string): Record<string, unknown> => ({
  title: `open ${which}`,
  slug: `open-${which}`,
  code: `open-${which}`,
  rank: 100,
  at: '2020-01-01T00:00:00.000Z',
  color: 'green',
  hot: true,
  words: ['open'],
  body: 'for all',
})

async function build(site: Site): Promise<Ids> {
  await ok({ site }, 'PUT', '/api/locales/de', { fallback: 'en' })
  await ok({ site }, 'PUT', '/api/types/article', definition)
  site.forgetDocument()
  const create = async (fields: object, publish = false): Promise<string> =>
    (await ok({ site }, 'POST', '/api/content/article', { fields, publish })).json.data.id
  const draft = await create(secretFields(first, 'draft'))
  const deleted = await create(secretFields(first, 'deleted'))
  const archived = await create(openFields('archived'), true)
  await ok({ site }, 'POST', `/api/content/article/${archived}/unpublish`)
  await ok({ site }, 'PATCH', `/api/content/article/${archived}`, {
    fields: secretFields(first, 'archived'),
  })
  await ok({ site }, 'POST', `/api/content/article/${archived}/archive`)
  const withdrawn = await create(secretFields(first, 'withdrawn'), true)
  await ok({ site }, 'POST', `/api/content/article/${withdrawn}/unpublish`)
  const changed = await create(openFields('changed'), true)
  await ok({ site }, 'PATCH', `/api/content/article/${changed}`, {
    fields: { ...secretFields(first, 'changed'), parent: draft },
  })
  // A locale that exists as a draft only.
  await ok({ site }, 'PATCH', `/api/content/article/${changed}`, {
    locale: 'de',
    fields: { title: `${first.word} auf Deutsch` },
  })
  const pointing = await create(
    { ...openFields('pointing'), parent: draft, related: [draft, changed, withdrawn] },
    true,
  )
  const release = (await ok({ site }, 'POST', '/api/releases', { name: first.word })).json.data.id
  await ok({ site }, 'POST', `/api/releases/${release}/items`, {
    items: [{ entryId: draft, locale: 'en', action: 'publish', version: 1 }],
  })
  await ok({ site }, 'POST', `/api/content/article/${draft}/schedule`, {
    action: 'publish',
    dueAt: '2040-01-01T00:00:00Z',
  })
  return { changed, draft, archived, withdrawn, pointing, release, deleted }
}

/** All that editors can do short of publishing. Publishing would be seen, and should be. */
async function disturb(site: Site, ids: Ids): Promise<void> {
  await ok({ site }, 'PATCH', `/api/content/article/${ids.draft}`, {
    fields: { ...secretFields(second, 'draft'), parent: ids.changed },
  })
  await ok({ site }, 'PATCH', `/api/content/article/${ids.changed}`, {
    fields: { ...secretFields(second, 'changed'), related: [ids.draft] },
  })
  await ok({ site }, 'PATCH', `/api/content/article/${ids.changed}`, {
    locale: 'de',
    fields: { title: second.word },
  })
  await ok({ site }, 'PATCH', `/api/content/article/${ids.withdrawn}`, {
    fields: secretFields(second, 'withdrawn'),
  })
  await ok({ site }, 'POST', `/api/content/article/${ids.archived}/unarchive`)
  await ok({ site }, 'PATCH', `/api/content/article/${ids.archived}`, {
    fields: secretFields(second, 'archived'),
  })
  for (let at = 0; at < 5; at += 1)
    await ok({ site }, 'POST', '/api/content/article', {
      fields: secretFields(second, `new-${at}`),
    })
  await ok({ site }, 'DELETE', `/api/content/article/${ids.deleted}`)
  await ok({ site }, 'POST', '/api/releases', { name: second.word })
  await ok({ site }, 'POST', `/api/content/article/${ids.changed}/schedule`, {
    action: 'unpublish',
    dueAt: '2039-01-01T00:00:00Z',
  })
}

/**
 * Requests that try to see a draft: every parameter that delivery has, alone and together, and
 * every route around it.
 */
function probes(ids: Ids): string[] {
  const values = [
    first.word,
    second.word,
    `${first.word} draft`,
    'z',
    'q',
    String(first.rank),
    String(second.rank),
    '100',
    first.at,
    second.at,
    'red',
    'blue',
    'true',
    'false',
    ids.draft,
    ids.changed,
    ids.deleted,
    'draft',
    'changed',
    'published',
    'archived',
    '1',
    '2',
    '',
  ]
  const names = [
    ...definition.fields.map((field) => field.name),
    'id',
    'type',
    'locale',
    'version',
    'status',
    'createdAt',
    'updatedAt',
    'publishedAt',
    'firstPublishedAt',
    'createdBy',
    'savedBy',
    'filter',
    'data',
    'parent.title',
    'parent.rank',
  ]
  const operations = [
    'eq',
    'ne',
    'in',
    'nin',
    'lt',
    'lte',
    'gt',
    'gte',
    'contains',
    'startsWith',
    'exists',
  ]
  const wheres = names.flatMap((name) =>
    operations.flatMap((operation) =>
      values.map((value) => `where[${name}][${operation}]=${encodeURIComponent(value)}`),
    ),
  )
  const sorts = names.flatMap((name) => [`sort=${name}`, `sort=-${name}`])
  const others = [
    ...[
      'parent',
      'related',
      'parent.parent',
      'related.parent',
      'related.related.parent',
      'parent.title',
      'body',
    ].map((path) => `include=${path}`),
    ...names.map((name) => `fields=${name}`),
    ...[
      'draft',
      'published',
      'latest',
      `release:${ids.release}`,
      'release:',
      'Draft',
      'draft,published',
    ].map((name) => `perspective=${encodeURIComponent(name)}`),
    // The name of the parameter, written so that only one who decodes it finds it.
    '%70erspective=draft',
    'perspectiv%65=draft',
    ...['de', 'en', 'fr', 'de-AT'].map((code) => `locale=${code}`),
    `search=${first.word}`,
    `search=${second.word}`,
    'count=true',
    'limit=1',
    'limit=200',
    'status=draft',
    'draft=true',
    'version=2',
    'preview=1',
    'after=eyJ9',
  ]
  const lists = [...others, ...sorts].map((query) => `/api/content/article?${query}`)
  const paths = Object.values(ids).flatMap((id) =>
    [id, id.toUpperCase()].flatMap((one) =>
      [
        '',
        '/versions',
        '/versions/1',
        '/versions/2',
        '/versions/3',
        '/schedule',
        '/locales',
        '/locales?perspective=draft',
      ].map((suffix) => `/api/content/article/${one}${suffix}`),
    ),
  )
  const slugs = [first.slug, second.slug].flatMap((slug) =>
    ['draft', 'changed', 'archived', 'withdrawn', 'new-0'].map(
      (which) => `/api/content/article/${slug}-${which}`,
    ),
  )
  const gets = Object.values(ids).flatMap((id) =>
    others.map((query) => `/api/content/article/${id}?${query}`),
  )
  // Each of the thousands of conditions is sent alone or beside others: many, but not all in one
  // run.
  const sensible = Object.entries(fitting).flatMap(([name, [fits, texts]]) =>
    fits.flatMap((operation) =>
      texts.map((value) => `where[${name}][${operation}]=${encodeURIComponent(value)}`),
    ),
  )
  const together = fc.tuple(
    fc.subarray(sensible, { minLength: 1, maxLength: 2 }),
    fc.subarray(
      [
        'sort=rank',
        'sort=-title',
        'sort=-updatedAt',
        'include=parent,related',
        'locale=de',
        'limit=1',
      ],
      { maxLength: 3 },
    ),
  )
  const senseless = fc.tuple(
    fc.subarray(wheres, { minLength: 1, maxLength: 2 }),
    fc.subarray([...others, ...sorts], { maxLength: 2 }),
  )
  const chosen = [
    ...fc.sample(together, { numRuns: 500, seed: 7 }),
    ...fc.sample(senseless, { numRuns: 200, seed: 7 }),
  ]
  const combined = [
    ...sensible.map((where) => `/api/content/article?count=true&${where}`),
    ...chosen.map(
      ([some, more]) =>
        '/api/content/article?count=true&' +
        [...some, ...more.filter((query) => query !== 'count=true')].join('&'),
    ),
  ]
  const around = [
    '/api/types',
    '/api/types/article',
    '/api/locales',
    '/api/releases',
    `/api/releases/${ids.release}`,
    '/api/session',
    '/openapi.json',
    '/api/audit',
    '/api/users',
    `/read/article/${ids.draft}`,
  ]
  return [...lists, ...paths, ...slugs, ...gets, ...combined, ...around]
}

/** Conditions that the type takes, with values of both secrets. */
const order = ['eq', 'ne', 'in', 'nin', 'lt', 'lte', 'gt', 'gte', 'exists']
const fitting: Readonly<Record<string, readonly [readonly string[], readonly string[]]>> = {
  title: [
    ['eq', 'ne', 'in', 'lt', 'gt', 'contains', 'startsWith'],
    [first.word, second.word, `${first.word} draft`, 'z', 'q', 'open'],
  ],
  slug: [
    ['eq', 'startsWith', 'lt'],
    [`${first.slug}-draft`, second.slug, 'open-pointing'],
  ],
  code: [
    ['eq', 'contains'],
    [`${first.word}-draft`, second.word],
  ],
  rank: [order.slice(0, 8), [String(first.rank), String(second.rank), '100']],
  at: [order.slice(0, 8), [first.at, second.at]],
  color: [
    ['eq', 'ne', 'in'],
    ['red', 'blue', 'green'],
  ],
  hot: [
    ['eq', 'ne'],
    ['true', 'false'],
  ],
  words: [
    ['eq', 'ne', 'in'],
    [first.word, second.word, 'open'],
  ],
  status: [
    ['eq', 'ne', 'in'],
    ['draft', 'changed', 'published', 'archived'],
  ],
  version: [
    ['eq', 'gt', 'lt'],
    ['1', '2', '3'],
  ],
  updatedAt: [
    ['gt', 'lt'],
    ['2026-01-01T00:00:00Z', '2100-01-01T00:00:00Z'],
  ],
}

async function responses(site: Site, urls: readonly string[]): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  // The order does not matter, so a few at once.
  const queue = [...urls]
  const worker = async (): Promise<void> => {
    for (let url = queue.pop(); url !== undefined; url = queue.pop()) await probe(url)
  }
  const probe = async (url: string): Promise<void> => {
    const { statusCode, headers, body } = await site.server.inject({
      url,
      headers: { 'x-request-id': 'probe' },
    })
    assert.ok(statusCode < 500, `${url}: ${body}`)
    const kept = ['etag', 'content-length', 'cache-control'].map((name) => String(headers[name]))
    found.set(url, [statusCode, ...kept, body].join(' '))
  }
  await Promise.all(Array.from({ length: 4 }, worker))
  return found
}

test(
  'nothing that editors do short of publishing changes any response to the anonymous role',
  { skip: databaseMissing },
  async () => {
    await using site = await testSite()
    const ids = await build(site)
    const urls = probes(ids)
    const before = await responses(site, urls)
    await disturb(site, ids)
    const after = await responses(site, urls)
    const differing = urls.filter((url) => before.get(url) !== after.get(url))
    assert.deepEqual(
      differing
        .map((url) => [url, before.get(url)?.slice(0, 300), after.get(url)?.slice(0, 300)])
        .slice(0, 5),
      [],
      `${differing.length} responses reveal drafts`,
    )
    // Error texts repeat words of the probe; words that are not in it must not appear.
    for (const [url, text] of after) {
      for (const { word } of [first, second])
        if (!url.includes(word))
          assert.ok(!text.includes(word), `${url} shows a draft: ${text.slice(0, 500)}`)
    }
    const succeeded = [...before.values()].filter((text) => text.startsWith('200')).length
    assert.ok(succeeded > 300, `only ${succeeded} probes succeeded at all`)
    assert.ok(
      [...before.values()].some((text) => text.includes('open changed')),
      'what is published was not found',
    )
  },
)

test('the same probes do see a publish', { skip: databaseMissing }, async () => {
  await using site = await testSite()
  const ids = await build(site)
  const urls = probes(ids)
  const before = await responses(site, urls)
  await ok({ site }, 'POST', `/api/content/article/${ids.draft}/publish`, { locales: ['en'] })
  const after = await responses(site, urls)
  assert.ok(urls.filter((url) => before.get(url) !== after.get(url)).length > 100)
})

test('an author sees drafts of their own, and no others', { skip: databaseMissing }, async () => {
  await using site = await testSite()
  await ok({ site }, 'PUT', '/api/types/article', definition)
  site.forgetDocument()
  const mine = (
    await ok({ site, as: 'author' }, 'POST', '/api/content/article', {
      fields: { title: 'mine' },
    })
  ).json.data.id
  const theirs = (
    await ok({ site, as: 'editor' }, 'POST', '/api/content/article', {
      fields: { title: 'theirs', related: [] },
    })
  ).json.data.id
  // Pointing at what one may not read is refused, or shows nothing: either way nothing of it
  // comes back below.
  await site.request('PATCH', `/api/content/article/${mine}`, {
    as: 'author',
    body: { fields: { parent: mine, related: [theirs] } },
  })
  const list = await site.get(
    '/api/content/article?perspective=draft&count=true&include=parent,related',
    { as: 'author' },
  )
  assert.deepEqual(
    list.json.data.map((entry: { id: string }) => entry.id),
    [mine],
  )
  assert.equal(list.json.meta.count, 1)
  assert.ok(!list.text.includes('theirs'))
  assert.equal(
    (await site.get(`/api/content/article/${theirs}?perspective=draft`, { as: 'author' })).status,
    404,
  )
  assert.equal(
    (
      await site.get('/api/content/article?perspective=draft&where[title][eq]=theirs&count=true', {
        as: 'author',
      })
    ).json.meta.count,
    0,
  )
})
