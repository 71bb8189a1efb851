import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { test } from 'node:test'
import type { Asset } from '#media/media.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { digest } from '#test/support/media.ts'
import { site, form, file, json, upload } from '#test/support/asset-site.ts'
import type { Part, Received } from '#test/support/asset-site.ts'

const skip = databaseMissing

test('files are uploaded, listed, changed and deleted', { skip }, async () => {
  await using db = await testDatabase()
  await using here = await site(db)
  const response = await here.call(
    '/api/assets',
    form(
      { name: 'alt', value: '{"en":"Both"}' },
      file('a.txt', 'one', 'image/png'),
      file('b.md', '# two'),
    ),
  )
  assert.equal(response.status, 201, response.body.toString())
  const [one, two] = (response.json() as unknown as { data: Asset[] }).data as [Asset, Asset]
  assert.deepEqual(
    [one.name, one.contentType, one.alt, two.contentType],
    ['a.txt', 'text/plain', { en: 'Both' }, 'text/markdown'],
  )
  const list = (await here.call('/api/assets?limit=1')).json() as unknown as {
    data: Asset[]
    meta: { after: string }
  }
  assert.deepEqual([list.data.length, typeof list.meta.after], [1, 'string'])
  const got = await here.call(`/api/assets/${one.id}`)
  assert.equal(got.headers['etag'], '"1"')
  assert.equal(got.json().data.url, `/assets/${one.id}/a.txt`)
  const patch = (match: string, value: unknown): Promise<Received> => {
    const { headers, ...rest } = json(value)
    return here.call(`/api/assets/${one.id}`, {
      method: 'PATCH',
      ...rest,
      headers: { ...headers, 'if-match': match },
    })
  }
  assert.equal(
    (await patch('"1"', { alt: { de: 'Eins' }, focalPoint: { x: 0.1, y: 0.9 } })).headers['etag'],
    '"2"',
  )
  const stale = await patch('"1"', { alt: {} })
  assert.deepEqual(
    [stale.status, stale.json()['code'], stale.json()['current']],
    [412, 'E_ASSET_CHANGED', 2],
  )
  assert.equal((await patch('"2"', { focalPoint: { x: 2, y: 0 } })).status, 400)
  assert.equal((await patch('"2"', { alt: { english: 'x' } })).status, 422)
  assert.equal(
    (await here.call(`/api/assets/${one.id}`, { method: 'DELETE', headers: { 'if-match': '"1"' } }))
      .status,
    412,
  )
  assert.equal((await here.call(`/api/assets/${one.id}`, { method: 'DELETE' })).status, 204)
  assert.equal((await here.call(`/api/assets/${one.id}`)).status, 404)
  assert.equal((await here.call(`/assets/${one.id}/a.txt`)).status, 404)
})

test('only those who may', { skip }, async () => {
  await using db = await testDatabase()
  await using here = await site(db)
  const asset = await upload(here, file('a.txt', 'public by its id'))
  for (const [method, path] of [
    ['GET', '/api/assets'],
    ['POST', '/api/assets'],
    ['GET', `/api/assets/${asset.id}`],
    ['PATCH', `/api/assets/${asset.id}`],
    ['DELETE', `/api/assets/${asset.id}`],
    ['POST', '/api/uploads'],
    ['PATCH', '/api/uploads/x'],
    ['DELETE', '/api/uploads/x'],
    ['HEAD', '/api/uploads/x'],
  ] as const) {
    assert.equal(
      (await here.call(path, { method, token: null, headers: { 'tus-resumable': '1.0.0' } }))
        .status,
      401,
      `${method} ${path}`,
    )
  }
  const open = await here.call(asset.url, { token: null })
  assert.equal(open.body.toString(), 'public by its id')
})

test(
  'an upload by form is all or nothing, and an Idempotency-Key makes it once',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using here = await site(db, { uploadBytesMax: 3_000_000 })
    const code = async (...fields: Part[]): Promise<unknown[]> => {
      const response = await here.call('/api/assets', form(...fields))
      return [response.status, response.json()['code']]
    }
    assert.deepEqual(await code(file('a.txt', 'fine'), file('b.jpg', '<!doctype html><script>')), [
      422,
      'E_UPLOAD_REFUSED',
    ])
    assert.deepEqual(await code(file('a.txt', '')), [422, 'E_UPLOAD_REFUSED'])
    assert.deepEqual(await code(file('a.txt', 'fine'), file('big.bin', Buffer.alloc(20_000_000))), [
      413,
      'E_UPLOAD_TOO_LARGE',
    ])
    assert.deepEqual(await code(), [400, 'E_REQUEST_INVALID'])
    assert.deepEqual(await code({ name: 'alt', value: 'no json' }, file('a.txt', 'x')), [
      400,
      'E_REQUEST_INVALID',
    ])
    for (const value of ['5', '['.repeat(100_000) + ']'.repeat(100_000)])
      assert.deepEqual(await code({ name: 'alt', value: `{"en":${value}}` }, file('a.txt', 'x')), [
        422,
        'E_ASSET_INPUT',
      ])
    assert.deepEqual(await code({ name: 'other', value: 'x' }, file('a.txt', 'x')), [
      400,
      'E_REQUEST_INVALID',
    ])
    assert.deepEqual(await code(file('a.txt', 'x'), { name: 'alt', value: '{"en":"Too late"}' }), [
      400,
      'E_REQUEST_INVALID',
    ])
    assert.deepEqual(await code({ name: '__proto__', value: 'x' }, file('a.txt', 'x')), [
      400,
      'E_REQUEST_MALFORMED',
    ])
    assert.equal((await here.call('/api/assets', { method: 'POST', ...json({}) })).status, 415)
    assert.equal(
      (
        await here.call('/api/assets', {
          method: 'POST',
          headers: { 'content-type': 'multipart/form-data' },
          body: Buffer.from('x'),
        })
      ).status,
      400,
    )
    for (const length of [130, 200, 1_100]) {
      const { body, ...rest } = form(file('a.txt', 'x'.repeat(1_000)))
      const cut = await here.call('/api/assets', {
        ...rest,
        body: (body as Buffer).subarray(0, length),
      })
      assert.deepEqual(
        [cut.status, cut.json()['code']],
        [400, 'E_REQUEST_MALFORMED'],
        `cut at ${length}`,
      )
    }
    assert.deepEqual((await here.call('/api/assets')).json().data, [])
    const once = { ...form(file('a.txt', 'once')), method: 'POST' }
    const both = await Promise.all(
      [1, 2].map(() =>
        here.call('/api/assets', { ...once, headers: { ...once.headers, 'idempotency-key': 'k' } }),
      ),
    )
    assert.deepEqual(
      both.map((response) => response.status),
      [201, 201],
    )
    assert.deepEqual(both[0]!.json(), both[1]!.json())
    const other = { ...form(file('a.txt', 'twice')), method: 'POST' }
    assert.equal(
      (
        await here.call('/api/assets', {
          ...other,
          headers: { ...other.headers, 'idempotency-key': 'k' },
        })
      ).status,
      422,
    )
    here.parts.store.isDown = true
    assert.deepEqual(await code(file('a.txt', 'x')), [503, 'E_FILE_STORE_UNAVAILABLE'])
  },
)

test('a client that leaves in the middle of a form leaves nothing', { skip }, async () => {
  await using db = await testDatabase()
  await using here = await site(db)
  const { body, headers } = form(file('a.bin', Buffer.alloc(3_000_000)))
  const outgoing = httpRequest({
    host: '127.0.0.1',
    port: here.port,
    path: '/api/assets',
    method: 'POST',
    agent: false,
    headers: { ...headers, authorization: `Bearer ${here.token}`, 'content-length': '3000500' },
  })
  outgoing.on('error', () => undefined)
  outgoing.write((body as Buffer).subarray(0, 1_500_000))
  for (let tries = 0; (await here.parts.files()).length === 0 && tries < 500; tries += 1)
    await new Promise((resolve) => setTimeout(resolve, 10))
  assert.equal((await here.parts.files()).length, 1)
  outgoing.destroy()
  for (let tries = 0; (await here.parts.files()).length > 0 && tries < 500; tries += 1)
    await new Promise((resolve) => setTimeout(resolve, 10))
  assert.deepEqual(await here.parts.files(), [])
  assert.deepEqual((await here.call('/api/assets')).json().data, [])
})

test('tus: discovery, creation, offsets, checksum, termination', { skip }, async () => {
  await using db = await testDatabase()
  await using here = await site(db, { uploadPartBytes: 50_000 })
  const tus = { 'tus-resumable': '1.0.0' }
  const octets = { ...tus, 'content-type': 'application/offset+octet-stream' }
  const options = await here.call('/api/uploads', { method: 'OPTIONS', token: null })
  assert.deepEqual(
    [options.status, options.headers['tus-version'], options.headers['tus-max-size']],
    [204, '1.0.0', String(5 * 1024 ** 3)],
  )
  assert.match(String(options.headers['tus-extension']), /creation.*termination/)
  const encode = (text: string): string => Buffer.from(text).toString('base64')
  const metadata = `filename ${encode('Größe.bin')},alt ${encode('{"en":"x"}')},empty`
  const create = (headers: Record<string, string>, body?: Buffer): Promise<Received> =>
    here.call('/api/uploads', { method: 'POST', headers, ...(body === undefined ? {} : { body }) })
  assert.equal((await create({ 'upload-length': '5' })).status, 412)
  for (const length of ['', '-1', 'x', '1.5'])
    assert.equal((await create({ ...tus, 'upload-length': length })).status, 400)
  assert.equal((await create({ ...tus, 'upload-length': '0' })).status, 422)
  assert.equal((await create({ ...tus, 'upload-length': String(6 * 1024 ** 3) })).status, 413)
  const data = randomBytes(180_000)
  const created = await create(
    { ...octets, 'upload-length': '180000', 'upload-metadata': metadata },
    data.subarray(0, 60_000),
  )
  assert.deepEqual(
    [created.status, created.headers['upload-offset'], created.headers['tus-resumable']],
    [201, '60000', '1.0.0'],
    created.body.toString(),
  )
  const location = String(created.headers['location'])
  const patch = (
    offset: number,
    body: Buffer,
    headers: Record<string, string> = {},
  ): Promise<Received> =>
    here.call(location, {
      method: 'PATCH',
      headers: { ...octets, 'upload-offset': String(offset), ...headers },
      body,
    })
  const wrong = await patch(0, data)
  assert.deepEqual(
    [wrong.status, wrong.json()['received'], wrong.headers['tus-resumable']],
    [409, 60_000, '1.0.0'],
  )
  assert.equal(
    (await patch(60_000, data, { 'upload-checksum': `sha1 ${encode('nonsense')}` })).status,
    460,
  )
  assert.equal((await patch(60_000, data, { 'upload-checksum': 'crc32 AAAA' })).status, 400)
  assert.equal((await patch(60_000, data, { 'content-type': 'application/json' })).status, 400)
  assert.equal((await patch(60_000, data, { 'content-type': 'text/plain' })).status, 415)
  const middle = data.subarray(60_000, 100_000)
  const sum = Buffer.from(digest(middle, 'sha1'), 'hex').toString('base64')
  assert.equal(
    (await patch(60_000, middle, { 'upload-checksum': `sha1 ${sum}` })).headers['upload-offset'],
    '100000',
  )
  const head = await here.call(location, { method: 'HEAD', headers: tus })
  assert.deepEqual(
    [
      head.status,
      head.headers['upload-offset'],
      head.headers['upload-length'],
      head.headers['cache-control'],
    ],
    [200, '100000', '180000', 'no-store'],
  )
  const end = await patch(100_000, data.subarray(100_000))
  assert.deepEqual([end.status, end.headers['upload-offset']], [204, '180000'])
  const asset = (await here.call(`/api/assets/${String(end.headers['stoa-asset'])}`)).json().data
  assert.deepEqual([asset.name, asset.alt, asset.blob], ['Größe.bin', { en: 'x' }, digest(data)])
  const given = await create({ ...octets, 'upload-length': '10' }, data.subarray(0, 5))
  assert.equal(
    (await here.call(String(given.headers['location']), { method: 'DELETE', headers: tus })).status,
    204,
  )
  assert.equal(
    (await here.call(String(given.headers['location']), { method: 'HEAD', headers: tus })).status,
    404,
  )
  assert.deepEqual(await here.parts.files(), [digest(data)])
})
