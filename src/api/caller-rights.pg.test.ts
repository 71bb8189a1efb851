import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { testPassword } from '#test/support/access.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { accepted, grantOn, roleClient } from '#test/support/role-client.ts'
import { testSite } from '#test/support/site.ts'
import type { SiteResponse, SiteJson } from '#test/support/site.ts'
import { all, rightsSite, tag } from '#test/support/rights-site.ts'

test(
  'no caller manages those who may do more, and no token outlives its maker',
  { skip },
  async () => {
    await using site = await testSite()
    const admin = await site.access.users.create(site.database, site.access.systemIdentity, {
      email: 'ada@example.com',
      name: 'Ada',
      password: testPassword,
      roles: ['administrator'],
    })
    const desk = await roleClient(
      site,
      'desk',
      [grantOn('*', ['read'])],
      ['users.manage', 'tokens.manage'],
    )
    const ended = await desk('DELETE', `/api/users/${admin.id}/sessions`)
    assert.deepEqual([ended.status, ended.json.code], [403, 'E_ESCALATION'])
    const tokens = (await accepted(desk('GET', '/api/tokens'))).data
    const strong = tokens.find((one: SiteJson) => one.roles.includes('administrator'))
    const deleted = await desk('DELETE', `/api/tokens/${strong.id}`)
    assert.deepEqual([deleted.status, deleted.json.code], [403, 'E_ESCALATION'])

    const inAnHour = new Date(Date.now() + 3_600_000).toISOString()
    await site.database.run(sql(`update stoa.api_token set expires_at = $2 where id = $1`), [
      desk.tokenId,
      inAnHour,
    ])
    for (const expiresAt of [null, new Date(Date.now() + 7_200_000).toISOString()]) {
      const refused = await desk('POST', '/api/tokens', { name: 'x', roles: ['desk'], expiresAt })
      assert.equal(refused.json.code, 'E_ACCESS_INPUT', refused.text)
    }
    const made = await accepted(
      desk('POST', '/api/tokens', { name: 'x', roles: ['desk'], expiresAt: inAnHour }),
    )
    assert.deepEqual(made.data.info.createdBy, { kind: 'token', id: desk.tokenId })
    const asMade = {
      as: 'anonymous',
      headers: { authorization: `Bearer ${made.data.token}` },
    } as const
    assert.equal((await site.get('/api/tokens', asMade)).status, 200)
    await site.request('DELETE', `/api/tokens/${desk.tokenId}`)
    await site.feed.settle(5_000)
    assert.equal((await site.get('/api/tokens', asMade)).status, 401, 'it went with its maker')
  },
)

test('an idempotent replay needs the rights of the first request', { skip }, async () => {
  await using site = await rightsSite()
  const writer = await roleClient(site, 'writer', [grantOn('article', all)])
  const key = { 'idempotency-key': 'once' }
  const body = { fields: { title: 'A secret' } }
  await accepted(writer('POST', '/api/content/article', body, key))
  const again = await writer('POST', '/api/content/article', body, key)
  assert.equal(again.headers['idempotency-replayed'], 'true')
  await roleClient(site, 'writer', [grantOn('article', ['create'])])
  await site.feed.settle(5_000)
  const later = await writer('POST', '/api/content/article', body, key)
  assert.equal(later.json.code, 'E_IDEMPOTENCY_KEY_REUSED')
  assert.doesNotMatch(later.text, /A secret/)
})

test('anonymous clients have Idempotency-Keys of their own', { skip }, async () => {
  await using site = await testSite({ config: { trustProxy: true } })
  await accepted(site.request('PUT', '/api/types/tag', { body: tag }))
  await accepted(
    site.request('PUT', '/api/roles/anonymous', {
      body: { label: 'Anonymous', content: [grantOn('tag', ['read', 'create'])], system: [] },
    }),
  )
  site.forgetDocument()
  await site.feed.settle(5_000)
  const post = (address: string) =>
    site.request('POST', '/api/content/tag', {
      as: 'anonymous',
      headers: { 'idempotency-key': 'k', 'x-forwarded-for': address },
      body: { fields: { name: 'N' } },
    })
  const [one, same, other] = [
    await post('192.0.2.1'),
    await post('192.0.2.1'),
    await post('192.0.2.2'),
  ]
  assert.equal(same.json.data.id, one.json.data.id)
  assert.equal(other.status, 201)
  assert.notEqual(other.json.data.id, one.json.data.id)
})

test(
  'an ended session or a proxy’s Basic credentials leave public content public',
  { skip },
  async () => {
    await using site = await testSite()
    await accepted(site.request('PUT', '/api/types/tag', { body: tag }))
    site.forgetDocument()
    const body = { fields: { name: 'Public' }, publish: true }
    const { data } = await accepted(site.request('POST', '/api/content/tag', { body }))
    const path = `/api/content/tag/${data.id}`
    const ended = { cookie: `stoa_session=${'x'.repeat(43)}` }
    const basic = { authorization: 'Basic c3RhZ2luZzpzZWNyZXQ=' }
    for (const headers of [ended, basic, { ...ended, ...basic }]) {
      const read = await site.get(path, { as: 'anonymous', headers })
      assert.equal(read.status, 200, read.text)
      const write = { as: 'anonymous', headers, body: { fields: {} } } as const
      assert.ok([401, 403].includes((await site.request('PATCH', path, write)).status))
    }
    const wrong = { authorization: 'Bearer no-token' }
    assert.equal((await site.get(path, { as: 'anonymous', headers: wrong })).status, 401)
  },
)

test(
  'an upload whose caller loses their rights on the way becomes no asset',
  { skip },
  async () => {
    await using site = await testSite()
    const uploads = async (
      send: (authorization: string, halves: AsyncIterable<string>) => Promise<SiteResponse>,
      halves: readonly [string, string],
    ): Promise<void> => {
      const { token, info } = await site.access.tokens.create(
        site.database,
        site.access.systemIdentity,
        { name: 'uploader', roles: ['editor'], expiresAt: null },
      )
      async function* body() {
        yield halves[0]
        await site.access.tokens.delete(site.database, site.access.systemIdentity, info.id)
        yield halves[1]
      }
      const response = await send(`Bearer ${token}`, body())
      assert.equal(response.status, 401, response.text)
      const { data } = await accepted(site.get('/api/assets'))
      assert.deepEqual(data, [])
    }
    await uploads(
      (authorization, halves) =>
        site.request('POST', '/api/assets', {
          as: 'anonymous',
          headers: { authorization, 'content-type': 'multipart/form-data; boundary=part' },
          body: Readable.from(halves),
        }),
      [
        '--part\r\ncontent-disposition: form-data; name="file"; filename="file.txt"\r\n\r\nhel',
        'lo\r\n--part--\r\n',
      ],
    )
    await uploads(
      async (authorization, halves) => {
        const tus = { authorization, 'tus-resumable': '1.0.0' }
        const begun = await site.request('POST', '/api/uploads', {
          as: 'anonymous',
          headers: { ...tus, 'upload-length': '6' },
        })
        return site.request('PATCH', begun.headers['location'] ?? '', {
          as: 'anonymous',
          headers: {
            ...tus,
            'upload-offset': '0',
            'content-type': 'application/offset+octet-stream',
          },
          body: Readable.from(halves),
        })
      },
      ['abc', 'def'],
    )
  },
)
