import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pageRoutes } from '#api/routes/pages.ts'
import { everything } from '#test/support/content.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { accepted, equals, grantOn, roleClient } from '#test/support/role-client.ts'
import type { RoleClient } from '#test/support/role-client.ts'
import { made, rows, unique } from '#test/support/route-requests.ts'
import type { RouteRequest, World } from '#test/support/route-requests.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

/**
 * Every route × what the caller's grants reach: nothing beyond them is shown, in responses,
 * refusals and history alike, and nothing beyond them is written. Every text that is stored is a
 * marker which names its entry, locale, version and field, so a response is searched for markers
 * that the caller must not see. A route without a row in `rows` fails.
 */
type Marker = {
  /** `in`: the entry that grants are about; `out`: one that no grant covers. */
  readonly entry: string
  readonly locale: string
  /** `old`: from before the entry came into the section that grants are limited to. */
  readonly version: string
  readonly field: string
}
const markerPattern = /m-(in|out)-(en|de)-(old|pub|draft)-(title|notes)/gi

function marker(text: string): Marker {
  const [, entry = '', locale = '', version = '', field = ''] = text.toLowerCase().split('-')
  return { entry, locale, version, field }
}

/** The entries of a world as they are stored, by entry, locale and perspective. */
type Stored = Readonly<Record<string, string>>

type Reach = {
  readonly grants: readonly object[]
  readonly shows: (marker: Marker) => boolean
  /** Keys of `Stored` that the caller may change, and fields that they may not. */
  readonly writes: (key: string) => boolean
  readonly fieldsKept?: readonly string[]
}

const writing = ['create', 'update', 'publish', 'archive', 'delete']
const all = ['read', 'readDraft', ...writing]
const inNews = equals('section', 'news')
const inGerman = { op: 'and', filters: [inNews, equals('locale', 'de')] }
const current = ({ entry, version }: Marker): boolean => entry === 'in' && version !== 'old'
const isIn = (key: string): boolean => key.startsWith('in ')

const reaches: Readonly<Record<string, Reach>> = {
  nothing: { grants: [grantOn('tag', all)], shows: () => false, writes: () => false },
  published: {
    grants: [grantOn('note', ['read'], { filter: inNews })],
    shows: ({ entry, version }) => entry === 'in' && version === 'pub',
    writes: () => false,
  },
  drafts: {
    grants: [grantOn('note', all, { filter: inNews })],
    shows: current,
    writes: isIn,
  },
  'another locale': {
    grants: [grantOn('note', all, { filter: inGerman })],
    shows: (one) => current(one) && one.locale === 'de',
    writes: (key) => key.startsWith('in de '),
  },
  'some fields': {
    grants: [grantOn('note', all, { filter: inNews, fields: ['title', 'slug', 'section'] })],
    shows: (one) => current(one) && one.field === 'title',
    writes: isIn,
    fieldsKept: ['notes'],
  },
  'writing only': {
    grants: [grantOn('note', writing, { filter: inNews })],
    shows: () => false,
    writes: isIn,
  },
  'drafts without writing': {
    grants: [grantOn('note', ['read', 'readDraft'], { filter: inNews })],
    shows: current,
    writes: () => false,
  },
}

const noteType = {
  label: 'Note',
  fields: [
    { name: 'title', kind: 'text', required: true, filterable: true, localized: true },
    { name: 'slug', kind: 'slug', from: 'title', localized: true },
    { name: 'section', kind: 'text', filterable: true, localized: true },
    { name: 'notes', kind: 'text', localized: true, filterable: true },
    { name: 'parent', kind: 'reference', types: ['note'], onDelete: 'unset' },
    { name: 'kept', kind: 'reference', types: ['note'] },
  ],
}

type Entries = { readonly in: string; readonly out: string }

/** Versions 1 (old), 2 (published) and 3 (draft) in both locales. */
async function makeEntry(site: Site, name: string, section: string, more: object): Promise<string> {
  const fields = (locale: string, version: string): object => ({
    title: `m-${name}-${locale}-${version}-title`,
    notes: `m-${name}-${locale}-${version}-notes`,
    section: version === 'old' ? 'sport' : section,
    ...(locale === 'en' ? more : {}),
  })
  let id = ''
  for (const locale of ['en', 'de'])
    for (const version of ['old', 'pub', 'draft']) {
      const body = { locale, fields: fields(locale, version), publish: version === 'pub' }
      const route = id === '' ? 'POST /api/content/note' : `PATCH /api/content/note/${id}`
      const slug = { slug: unique(`s-${name}-`) }
      const withSlug = version === 'old' ? { ...body, fields: { ...body.fields, ...slug } } : body
      const { json } = await made(site, route, withSlug)
      id = json.data.id
    }
  return id
}

/** `out` refers to `in`, so that deleting `in` has an effect on it. */
async function makeEntries(site: Site): Promise<Entries> {
  const inside = await makeEntry(site, 'in', 'news', {})
  return { in: inside, out: await makeEntry(site, 'out', 'sport', { kept: inside }) }
}

async function stored(site: Site, entries: Entries): Promise<Stored> {
  const call = { db: site.database, authority: everything }
  const result: Record<string, string> = {}
  for (const [name, id] of Object.entries(entries))
    for (const perspective of ['published', 'draft'] as const) {
      const views = await site.content.entries
        .locales(call, { type: 'note', id }, perspective)
        .catch(() => [])
      for (const { locale, version, status, fieldsJson } of views)
        result[`${name} ${locale} ${perspective}`] = `${version} ${status} ${fieldsJson}`
    }
  return result
}

/** More requests to a route than the one of its row: those that ask for what may be hidden. */
const probes: Readonly<Record<string, (world: World) => readonly RouteRequest[]>> = {
  'GET /api/content/:type': () =>
    ['', '&locale=de', '&where[notes][startsWith]=m', '&sort=-notes', '&include=kept,parent']
      .flatMap((more) => [`?limit=50${more}`, `?perspective=draft${more}`])
      .map((query) => ({ url: `/api/content/note${query}` })),
  'GET /api/content/:type/:id': ({ id }) =>
    ['?locale=de', '?perspective=draft', '?perspective=draft&locale=de', '?include=kept'].map(
      (query) => ({ url: `/api/content/note/${id}${query}` }),
    ),
  'PATCH /api/content/:type/:id': ({ id }) =>
    [{}, { locale: 'de' }, { locale: 'de', publish: true }]
      .map((more) => ({ fields: {}, ...more }))
      .flatMap((body) => [
        { url: `/api/content/note/${id}`, body },
        { url: `/api/content/note/${id}`, body, headers: { 'if-match': '"1"' } },
      ]),
  'POST /api/content/:type/:id/publish': ({ id }) =>
    [{ locales: ['en'] }, { locales: ['de'] }, { version: 1 }, { version: 1, locales: ['de'] }].map(
      (body) => ({ url: `/api/content/note/${id}/publish`, body }),
    ),
  'POST /api/content/:type/:id/unpublish': ({ id }) =>
    [{ locales: ['en'] }, { locales: ['de'] }].map((body) => ({
      url: `/api/content/note/${id}/unpublish`,
      body,
    })),
  'POST /api/content/:type/:id/restore': ({ id }) =>
    [1, 2].flatMap((version) =>
      ['en', 'de'].map((locale) => ({
        url: `/api/content/note/${id}/restore`,
        body: { version, locale },
      })),
    ),
  'GET /api/content/:type/:id/locales': ({ id }) => [
    { url: `/api/content/note/${id}/locales?perspective=draft` },
  ],
  'GET /api/content/:type/:id/versions': ({ id }) => [
    { url: `/api/content/note/${id}/versions?locale=de` },
  ],
  'GET /api/content/:type/:id/versions/:version': ({ id }) =>
    [1, 2, 3].flatMap((version) =>
      ['en', 'de'].map((locale) => ({
        url: `/api/content/note/${id}/versions/${version}?locale=${locale}`,
      })),
    ),
  'POST /api/content/:type/:id/schedule': ({ id }) =>
    ['en', 'de'].map((locale) => ({
      url: `/api/content/note/${id}/schedule`,
      body: { action: 'publish', version: 1, locale, dueAt: '2040-01-01T00:00:00Z' },
    })),
}

function check(
  { shows, writes, fieldsKept = [] }: Reach,
  text: string,
  [before, after]: readonly [Stored, Stored],
): void {
  for (const found of new Set(text.match(markerPattern) ?? []))
    assert.ok(shows(marker(found)), `shows ${found}: ${text.slice(0, 600)}`)
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (before[key] === after[key]) continue
    assert.ok(writes(key), `changes ${key}: ${before[key]} → ${after[key]}`)
    // Publishing shows a version whole; the fields of drafts are what a write must keep.
    if (!key.endsWith(' draft') || after[key] === undefined || before[key] === undefined) continue
    for (const field of fieldsKept)
      assert.equal(fieldOf(after[key], field), fieldOf(before[key], field), `writes ${field}`)
  }
}

function fieldOf(text: string, field: string): unknown {
  return JSON.parse(text.slice(text.indexOf('{')))[field]
}

test('no route shows or writes beyond what the grants of the caller reach', { skip }, async (t) => {
  await using site = await testSite({
    plugins: [pageRoutes({ version: '0', node: 'n', startedAtMs: 0, publicUrl: null })],
  })
  await accepted(site.request('PUT', '/api/types/note', { body: noteType }))
  await accepted(site.request('PUT', '/api/locales/de', { body: { fallback: 'en' } }))
  await accepted(
    site.request('PUT', '/api/roles/anonymous', { body: { label: 'A', content: [], system: [] } }),
  )
  site.forgetDocument()
  const routes = site.server.documented.flatMap((route) =>
    [route.method].flat().map((method) => `${method} ${route.url}`),
  )
  const system = ['releases.write', 'assets.read', 'assets.write', 'audit.read', 'cluster.manage']
  for (const [name, reach] of Object.entries(reaches)) {
    const client = await roleClient(site, unique('reach-'), reach.grants, system)
    await t.test(`grants that reach ${name}`, () => tryRoutes(site, client, reach, routes))
  }
})

async function tryRoutes(
  site: Site,
  client: RoleClient,
  reach: Reach,
  routes: readonly string[],
): Promise<void> {
  let entries = await makeEntries(site)
  let before = await stored(site, entries)
  let seen = 0
  for (const route of routes) {
    const row = rows[route]
    assert.ok(row !== undefined, `add a row for ${route}`)
    const world = (): readonly World[] =>
      Object.values(entries).map((id) => ({ site, id, own: false }))
    for (let at = 0; at < world().length; at += 1) {
      const count = 1 + (probes[route]?.(world()[at]!).length ?? 0)
      for (let probe = 0; probe < count; probe += 1) {
        const target = world()[at]!
        const asked = probe === 0 ? await row.ask(target) : probes[route]!(target)[probe - 1]!
        const { text } = await client(
          route.split(' ')[0]!,
          asked.url,
          asked.body,
          asked.headers ?? {},
        )
        // A read changes nothing: the next write would show it.
        const after = route.startsWith('GET ') ? before : await stored(site, entries)
        seen += text.match(markerPattern)?.length ?? 0
        try {
          check(reach, text, [before, after])
        } catch (error) {
          throw new Error(`${route} ${asked.url} ${JSON.stringify(asked.body)}`, { cause: error })
        }
        if (JSON.stringify(before) === JSON.stringify(after)) continue
        entries = await makeEntries(site)
        before = await stored(site, entries)
      }
    }
  }
  const blind = !reach.shows(marker('m-in-de-pub-title'))
  assert.ok(blind || seen > 10, 'what the caller may see was never shown')
}
