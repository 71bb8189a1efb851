import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newId } from '#lib/id.ts'
import { pageRoutes } from '#api/routes/pages.ts'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import type { Persona, Site } from '#test/support/site.ts'
import { everyone, made, rows, unique } from '#test/support/route-requests.ts'
import type { World } from '#test/support/route-requests.ts'

const noteType = {
  label: 'Note',
  fields: [
    { name: 'title', kind: 'text', required: true, filterable: true },
    { name: 'slug', kind: 'slug', from: 'title' },
  ],
}

async function newWorld(site: Site, own: boolean): Promise<World> {
  const as = own ? 'author' : 'editor'
  const { json } = await made(
    site,
    'POST /api/content/note',
    { fields: { title: unique('Note ') }, publish: true },
    as,
  )
  await made(
    site,
    `PATCH /api/content/note/${json.data.id}`,
    { fields: { title: unique('Draft ') } },
    as,
  )
  return { site, id: json.data.id, own }
}

test('every route has a row, and every row a route', { skip: databaseMissing }, async () => {
  await using site = await testSite({
    plugins: [pageRoutes({ version: '0', node: 'n', startedAtMs: 0, publicUrl: null })],
  })
  const routes = site.server.documented.flatMap((route) =>
    [route.method].flat().map((method) => `${method} ${route.url}`),
  )
  assert.deepEqual(
    routes.filter((name) => rows[name] === undefined),
    [],
    'add a row for each of these',
  )
  assert.deepEqual(
    Object.keys(rows).filter((name) => !routes.includes(name)),
    [],
    'these routes are gone',
  )
})

test('everyone gets what the matrix says, on every route', { skip: databaseMissing }, async (t) => {
  await using site = await testSite({
    plugins: [pageRoutes({ version: '0', node: 'n', startedAtMs: 0, publicUrl: null })],
  })
  await made(site, 'PUT /api/types/note', noteType)
  site.forgetDocument()
  for (const [name, { statuses, ask }] of Object.entries(rows)) {
    await t.test(name, async () => {
      const [method = ''] = name.split(' ')
      const got: Record<string, number> = {}
      const expected: Record<string, number> = {}
      for (const [at, who] of everyone.entries()) {
        const world = await newWorld(site, who === 'author')
        const { url, body, headers = {} } = await ask(world)
        const before = await site.get(`/api/content/note/${world.id}?perspective=draft`)
        const as: Persona = who === 'stranger' ? 'author' : who
        const options = { as, headers, ...(body === undefined ? {} : { body }) }
        const response = await site.request(method, url, options)
        got[who] = response.status
        expected[who] = statuses[at]!
        if (response.status >= 400) assert.match(response.json.code, /^E_/)
        // The entry is as it was for those who were refused.
        if (response.status >= 400 && method !== 'GET') {
          const after = await site.get(`/api/content/note/${world.id}?perspective=draft`)
          assert.equal(after.text, before.text, `${who} was refused and still changed something`)
        }
      }
      assert.deepEqual(got, expected)
    })
  }
})

test(
  'every write takes effect once under an Idempotency-Key',
  { skip: databaseMissing },
  async (t) => {
    await using site = await testSite({
      plugins: [pageRoutes({ version: '0', node: 'n', startedAtMs: 0, publicUrl: null })],
    })
    await made(site, 'PUT /api/types/note', noteType)
    site.forgetDocument()
    const writes = site.server.documented.filter(
      (route) =>
        !['GET', 'HEAD'].includes([route.method].flat()[0]!) && route.config?.idempotent !== false,
    )
    assert.ok(writes.length > 20)
    for (const route of writes) {
      const method = [route.method].flat()[0]!
      await t.test(`${method} ${route.url}`, async () => {
        const { url, body, headers } = await rows[`${method} ${route.url}`]!.ask(
          await newWorld(site, false),
        )
        const options = {
          headers: { ...headers, 'idempotency-key': newId() },
          ...(body === undefined ? {} : { body }),
        }
        const first = await site.request(method, url, options)
        assert.ok(first.status < 300, first.text)
        const second = await site.request(method, url, options)
        assert.equal(second.headers['idempotency-replayed'], 'true', `not a replay: ${second.text}`)
        assert.deepEqual(
          [second.status, second.text, second.headers['etag']],
          [first.status, first.text, first.headers['etag']],
        )
      })
    }
  },
)
