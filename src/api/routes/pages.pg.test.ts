import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pageRoutes } from '#api/routes/pages.ts'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

const skip = databaseMissing
const facts = { version: '0', node: 'n', startedAtMs: 0, publicUrl: null }

async function siteWithPages(): Promise<Site> {
  const site = await testSite({ plugins: [pageRoutes(facts)] })
  await site.request('PUT', '/api/types/note', {
    body: {
      name: 'note',
      label: 'Note',
      fields: [
        { name: 'title', kind: 'text' },
        { name: 'body', kind: 'markdown' },
      ],
    },
  })
  site.forgetDocument()
  return site
}

async function publishedNote(site: Site, body: string): Promise<string> {
  const fields = { title: 'Roofs', body }
  const { status, json } = await site.request('POST', '/api/content/note', {
    body: { fields, publish: true },
  })
  assert.equal(status, 201, JSON.stringify(json))
  return json.data.id
}

test(
  'the page of an entry is laid out once, and again when its text changes',
  { skip },
  async () => {
    await using site = await siteWithPages()
    const id = await publishedNote(site, '*first*')
    const read = () => site.get(`/read/note/${id}`, { as: 'anonymous' })
    assert.match((await read()).text, /<em>first<\/em>/)
    const startedMs = performance.now()
    for (let round = 0; round < 20; round += 1) await read()
    assert.ok(performance.now() - startedMs < 2_000, 'twenty pages from the cache')
    await site.request('PATCH', `/api/content/note/${id}`, {
      body: { fields: { body: '*second*' }, publish: true },
    })
    assert.match((await read()).text, /<em>second<\/em>/)
  },
)

test('Markdown that no parser gets through is shown as it was typed', { skip }, async () => {
  await using site = await siteWithPages()
  const table = `${'|a'.repeat(3_000)}\n${'|-'.repeat(3_000)}\n${'|\n'.repeat(3_000)}<script>`
  const id = await publishedNote(site, table)
  let longestMs = 0
  let lastMs = performance.now()
  const watch = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - lastMs)
    lastMs = performance.now()
  }, 5)
  const { status, text } = await site.get(`/read/note/${id}`, { as: 'anonymous' })
  clearInterval(watch)
  assert.equal(status, 200)
  assert.match(text, /shown as it was typed/)
  assert.match(text, /&lt;script&gt;<\/pre/)
  assert.ok(longestMs < 1_000, `the event loop was held for ${Math.round(longestMs)} ms`)
  const startedMs = performance.now()
  await site.get(`/read/note/${id}`, { as: 'anonymous' })
  assert.ok(performance.now() - startedMs < 1_000, 'a refusal is kept')
})

test('the documentation is HTML, with an anchor for each error code', { skip }, async () => {
  await using site = await siteWithPages()
  const errors = await site.get('/docs/reference/errors', { as: 'anonymous' })
  assert.match(errors.headers['content-type'] ?? '', /text\/html/)
  const problem = await site.get('/api/content/none', { as: 'anonymous' })
  const [path, anchor] = problem.json.type.split('#')
  assert.equal(path, '/docs/reference/errors')
  assert.match(errors.text, new RegExp(`<tr id="${anchor}"><td>`))
  assert.match((await site.get('/docs')).text, /href="\/docs\/guide\/queries"/)
  const guide = await site.get('/docs/guide/welcome')
  assert.match(guide.text, /<a href="\.\/content-types">/)
  assert.doesNotMatch(guide.text, /href="[^"]*\.md["#]/)
  assert.equal((await site.get('/docs/reference/absent')).status, 404)
  assert.equal((await site.get('/docs/reference/errors.md')).status, 200)
})

test('the API document is made once for all readers with the same grants', { skip }, async () => {
  await using site = await siteWithPages()
  const authorization = `Bearer ${site.tokens.get('editor')}`
  const get = async (more = {}) => {
    const headers = { authorization, 'accept-encoding': 'gzip', ...more }
    const { statusCode, headers: sent } = await site.server.inject({
      url: '/openapi.json',
      headers,
    })
    return { status: statusCode, headers: sent as Record<string, string | undefined> }
  }
  const first = await get()
  assert.equal(first.headers['content-encoding'], 'gzip')
  const second = await get()
  assert.match(second.headers['cache-status'] ?? '', /hit/)
  const tag = second.headers['etag'] ?? ''
  assert.equal((await get({ 'if-none-match': tag })).status, 304)
  await site.request('PUT', '/api/types/other', {
    body: { name: 'other', label: 'Other', fields: [{ name: 'title', kind: 'text' }] },
  })
  assert.equal((await get({ 'if-none-match': tag })).status, 200)
})
