import assert from 'node:assert/strict'
import { test } from 'node:test'
import { databaseMissing } from '#test/support/database.ts'
import { accepted, equals, grantOn, roleClient } from '#test/support/role-client.ts'
import { testSite } from '#test/support/site.ts'
import type { Site, SiteResponse } from '#test/support/site.ts'

const skip = databaseMissing
const noteType = {
  name: 'note',
  label: 'Note',
  fields: [{ name: 'title', kind: 'text', localized: true }],
}

async function withNote(site: Site): Promise<string> {
  await site.request('PUT', '/api/locales/de', { body: { fallback: 'en' } })
  await site.request('PUT', '/api/types/note', { body: noteType })
  site.forgetDocument()
  const made = await site.request('POST', '/api/content/note', {
    body: { fields: { title: 'one' }, publish: true },
  })
  return `/api/content/note/${made.json.data.id}`
}

function tagOf({ headers }: SiteResponse): string {
  return headers['etag']!
}

test(
  'a tag read through a fallback does not pass for a locale made meanwhile',
  { skip },
  async () => {
    await using site = await testSite()
    const url = await withNote(site)
    const read = await site.get(`${url}?locale=de`)
    assert.equal(read.json.data.locale, 'en')
    const patch = (title: string, tag: string) =>
      site.request('PATCH', url, {
        body: { locale: 'de', fields: { title } },
        headers: { 'if-match': tag },
      })
    assert.equal((await patch('first', tagOf(read))).status, 200, 'nothing was made meanwhile')
    const late = await patch('second', tagOf(read))
    assert.equal(late.status, 412, late.text)
    assert.equal(late.json.current.fields.title, 'first')
  },
)

test(
  'an If-Match that names no version says so, and shows no hidden locale',
  { skip },
  async () => {
    await using site = await testSite()
    const url = await withNote(site)
    const headers = { 'if-match': '"something-else"' }
    const body = { fields: { title: 'two' } }
    const { status, json } = await site.request('PATCH', url, { body, headers })
    assert.equal(status, 412)
    assert.match(json.detail, /^If-Match names no version of an entry\. .* version 1 in en now\.$/)
    assert.equal(json.expected, undefined)

    await accepted(site.request('PUT', '/api/locales/fr', { body: { fallback: 'en' } }))
    await accepted(
      site.request('PATCH', url, { body: { locale: 'de', fields: { title: 'eins' } } }),
    )
    const french = await roleClient(site, 'french', [
      grantOn('note', ['readDraft'], { filter: equals('locale', 'de') }),
      grantOn('note', ['update']),
    ])
    const translation = { locale: 'fr', fields: { title: 'un' } }
    for (const tag of ['"en.1"', '"en.2"']) {
      const refused = await french('PATCH', url, translation, { 'if-match': tag })
      assert.equal(refused.status, 412, tag)
      assert.equal(refused.json.locale, 'de')
    }
    await accepted(french('PATCH', url, translation, { 'if-match': '"de.1"' }))
  },
)

test('publish of all locales and DELETE protect every locale', { skip }, async () => {
  await using site = await testSite()
  const url = await withNote(site)
  const german = await site.request('PATCH', url, {
    body: { locale: 'de', fields: { title: 'eins' } },
  })
  const english = await site.get(url)
  const both = `${tagOf(english)}, ${tagOf(german)}`
  await site.request('PATCH', url, { body: { locale: 'de', fields: { title: 'zwei' } } })
  for (const [method, path] of [
    ['POST', `${url}/publish`],
    ['DELETE', url],
  ] as const)
    for (const tag of [both, tagOf(english)]) {
      const refused = await site.request(method, path, { headers: { 'if-match': tag } })
      assert.equal(refused.status, 412, `${method} ${tag}: ${refused.text}`)
    }
  const draft = await site.get(`${url}?locale=de&perspective=draft`)
  const now = `${tagOf(english)}, W/${tagOf(draft)}`
  const published = await site.request('POST', `${url}/publish`, { headers: { 'if-match': now } })
  assert.equal(published.status, 200, published.text)
  const tags = published.json.data
    .map(({ locale, version }: { locale: string; version: number }) => `"${locale}.${version}"`)
    .join(', ')
  const deleted = await site.request('DELETE', url, { headers: { 'if-match': tags } })
  assert.equal(deleted.status, 200, deleted.text)
})

test(
  'the tag of a type knows its life, and so do those of roles and locales',
  { skip },
  async () => {
    await using site = await testSite()
    const role = { label: 'Reader', content: [], system: [] }
    for (const { path, first, second } of [
      {
        path: '/api/types/thing',
        first: { ...noteType, name: 'thing' },
        second: { ...noteType, name: 'thing', label: 'Other' },
      },
      { path: '/api/roles/reader', first: role, second: { ...role, label: 'Other' } },
      { path: '/api/locales/fr', first: { fallback: null }, second: { fallback: 'en' } },
    ]) {
      const put = (body: object, headers: Record<string, string> = {}) =>
        site.request('PUT', path, { body, headers })
      const made = await put(first, { 'if-none-match': '*' })
      assert.ok(made.status < 300, made.text)
      site.forgetDocument()
      assert.equal((await put(second, { 'if-none-match': '*' })).status, 412, path)
      const read = await site.get(path)
      assert.equal(tagOf(read), tagOf(made), path)
      await site.request('DELETE', path)
      assert.equal((await put(first, { 'if-match': tagOf(made) })).status, 412, 'it is gone')
      await put(second)
      site.forgetDocument()
      assert.equal((await put(first, { 'if-match': tagOf(made) })).status, 412, 'another life')
      const refused = await site.request('DELETE', path, { headers: { 'if-match': tagOf(made) } })
      assert.equal(refused.status, 412, path)
      const now = tagOf(await site.get(path))
      const listed = await put(first, { 'if-match': `"other", ${now}` })
      assert.ok(listed.status < 300, `a list is taken: ${listed.text}`)
      assert.equal((await put(first, { 'if-match': 'nonsense' })).status, 400)
    }
  },
)

test('If-None-Match: * on PUT of an entry refuses a locale that is there', { skip }, async () => {
  await using site = await testSite()
  const url = await withNote(site)
  const put = (locale: string) =>
    site.request('PUT', url, {
      body: { locale, fields: { title: 'x' } },
      headers: { 'if-none-match': '*' },
    })
  assert.equal((await put('en')).status, 412)
  assert.equal((await put('de')).status, 200)
  assert.equal((await put('de')).status, 412)
})

test('a mangled Stoa-Token is refused, on every route', { skip }, async () => {
  await using site = await testSite()
  const url = await withNote(site)
  await site.get(url, { as: 'anonymous' })
  for (const path of [url, '/api/locales', '/api/types', '/api/session']) {
    const refused = await site.get(path, { headers: { 'stoa-token': 'mangled' } })
    assert.equal(refused.status, 400, path)
    assert.match(refused.text, /stoa-token/)
  }
})

test('a refusal names every property that is missing', { skip }, async () => {
  await using site = await testSite()
  const refused = await site.request('POST', '/api/session', { as: 'anonymous', body: {} })
  assert.match(refused.json.detail, /\/email is missing.*\/password is missing/)
  assert.equal(refused.json.faults.length, 2)
})
