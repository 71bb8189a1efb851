import assert from 'node:assert/strict'
import { test } from 'node:test'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

const page = {
  label: 'Page',
  fields: [
    { name: 'title', kind: 'text', searchable: true },
    { name: 'body', kind: 'markdown', searchable: true },
  ],
}

async function create(site: Site, title: string, body: string): Promise<string> {
  const made = await site.request('POST', '/api/content/page', {
    body: { fields: { title, body }, publish: true },
  })
  assert.equal(made.status, 201)
  return made.json.data.id as string
}

test(
  'a search across types is kept in memory, and follows each write',
  {
    skip: databaseMissing,
  },
  async () => {
    await using site = await testSite()
    for (const type of ['page', 'note'])
      await site.request('PUT', `/api/types/${type}`, { body: { ...page, label: type } })
    site.forgetDocument()
    type Found = { data: { type: string; highlights: Record<string, string> }[]; facets: unknown }
    const url = '/api/search?q=marble'
    const empty = await site.get(url)
    assert.deepEqual([empty.status, (empty.json as Found).data], [200, []])
    await create(site, 'Roofs', 'On columns of <i>marble</i>.')
    const made = await site.get(url)
    assert.equal(made.headers['cache-status'], 'stoa; fwd=miss')
    const { data } = made.json as Found
    assert.deepEqual(
      data.map(({ type, highlights }) => [type, highlights]),
      [['page', { body: 'On columns of <mark>marble</mark>…' }]],
    )
    assert.match((await site.get(url)).headers['cache-status'] ?? '', /hit/)
    await site.request('POST', '/api/content/note', {
      body: { fields: { title: 'Marble' }, publish: true },
    })
    const after = (await site.get(url)).json as Found
    assert.deepEqual(
      after.data.map(({ type }) => type),
      ['note', 'page'],
    )
    const suggested = await site.get('/api/search/suggestions?q=mar')
    assert.equal((suggested.json as { data: unknown[] }).data.length, 1)
    const stranger = await site.get(url, { as: 'anonymous' })
    assert.equal(stranger.status, 200)
  },
)

test('a cached search follows each write', { skip: databaseMissing }, async () => {
  await using site = await testSite()
  assert.equal((await site.request('PUT', '/api/types/page', { body: page })).status, 201)
  site.forgetDocument()
  const found = async (search: string): Promise<unknown[]> => {
    const response = await site.get(`/api/content/page?search=${encodeURIComponent(search)}`)
    assert.equal(response.status, 200, response.text)
    const { data } = response.json as { data: { fields: { title: string } }[] }
    return data.map((entry) => entry.fields.title)
  }
  const id = await create(site, 'Roofs', 'On columns of marble.')
  assert.deepEqual(await found('marble'), ['Roofs'])
  assert.deepEqual(await found('granite'), [])
  const again = await site.get('/api/content/page?search=marble')
  assert.match(again.headers['cache-status'] ?? '', /hit/, 'it comes from memory')
  const save = (fields: object): Promise<unknown> =>
    site.request('PATCH', `/api/content/page/${id}`, { body: { fields, publish: true } })
  await save({ body: 'On columns of granite.' })
  assert.deepEqual(await found('marble'), [])
  assert.deepEqual(await found('granite'), ['Roofs'])
  await create(site, 'Walls', 'Also granite.')
  assert.deepEqual(new Set(await found('granite')), new Set(['Roofs', 'Walls']))
  await site.request('POST', `/api/content/page/${id}/unpublish`, { body: {} })
  assert.deepEqual(await found('granite'), ['Walls'])
  await site.request('DELETE', `/api/content/page/${id}`)
  assert.deepEqual(await found('granite'), ['Walls'])
})
