import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import sharp from 'sharp'
import { createAccess } from '#access/create-access.ts'
import { createServer } from '#api/server.ts'
import { createContent } from '#content/create-content.ts'
import type { TestDatabase } from '#test/support/database.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Asset } from '#media/media.ts'
import { testCluster } from '#test/support/cluster-parts.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { digest, testMedia } from '#test/support/media.ts'
import type { TestMedia } from '#test/support/media.ts'

const skip = databaseMissing

type Received = {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  json(): { data: Asset & { url: string }; [key: string]: unknown }
}
type Call = {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: Buffer | Readable
  readonly token?: string | null
}
type Site = AsyncDisposable & {
  readonly parts: TestMedia
  readonly port: number
  readonly token: string
  readonly call: (path: string, call?: Call) => Promise<Received>
}

/** The real server on a real port, with a token of the role `editor`. */
async function site(db: TestDatabase, limits: Partial<MediaLimits> = {}): Promise<Site> {
  const { database } = db
  const parts = await testMedia(database, limits)
  const access = createAccess({
    database,
    clock: systemClock,
    logger: silentLogger,
    secret: randomBytes(32).toString('hex'),
  })
  const { token } = await access.tokens.create(database, access.systemIdentity, {
    name: 'test',
    roles: ['editor'],
    expiresAt: null,
  })
  const cluster = testCluster(db)
  const server = await createServer({
    database,
    cluster,
    secret: randomBytes(32).toString('hex'),
    content: createContent({ clock: systemClock, logger: silentLogger }),
    access,
    media: parts.media,
    logger: silentLogger,
    clock: systemClock,
    version: 'test',
  })
  await server.listen({ port: 0, host: '127.0.0.1' })
  const { port } = server.server.address() as AddressInfo
  return {
    parts,
    port,
    token,
    call: (path, call = {}) => send(port, path, { token, ...call }),
    [Symbol.asyncDispose]: async () => {
      await server.close()
      await cluster[Symbol.asyncDispose]()
      await parts[Symbol.asyncDispose]()
    },
  }
}

async function send(
  port: number,
  path: string,
  { method = 'GET', headers = {}, body, token = null }: Call,
): Promise<Received> {
  const outgoing = httpRequest({
    host: '127.0.0.1',
    port,
    path,
    method,
    agent: false,
    headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...headers },
  })
  const responded = new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.once('response', resolve)
    outgoing.once('error', reject)
  })
  if (body instanceof Readable) void pipeline(body, outgoing).catch(() => undefined)
  else outgoing.end(body)
  const response = await responded
  const data = await buffer(response)
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: data,
    json: () => JSON.parse(data.toString()) as ReturnType<Received['json']>,
  }
}

type Part = {
  readonly name: string
  readonly value: Buffer | string
  readonly filename?: string
  readonly type?: string
}

function form(...fields: Part[]): Pick<Call, 'headers' | 'body' | 'method'> {
  const boundary = 'x'.repeat(40)
  const pieces = fields.flatMap(({ name, value, filename, type }) => [
    `--${boundary}\r\ncontent-disposition: form-data; name="${name}"`,
    filename === undefined ? '\r\n' : `; filename="${filename}"\r\n`,
    type === undefined ? '\r\n' : `content-type: ${type}\r\n\r\n`,
    value,
    '\r\n',
  ])
  const body = Buffer.concat(
    [...pieces, `--${boundary}--\r\n`].map((piece) => Buffer.from(piece as string)),
  )
  return {
    method: 'POST',
    body,
    headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
  }
}

const file = (
  filename: string,
  value: Buffer | string,
  type = 'application/octet-stream',
): Part => ({ name: 'file', filename, value, type })
const json = (value: unknown): Pick<Call, 'headers' | 'body'> => ({
  headers: { 'content-type': 'application/json' },
  body: Buffer.from(JSON.stringify(value)),
})

async function upload(here: Site, ...fields: Part[]): Promise<Asset & { url: string }> {
  const response = await here.call('/api/assets', form(...fields))
  assert.equal(response.status, 201, response.body.toString())
  return (response.json() as unknown as { data: (Asset & { url: string })[] }).data[0]!
}

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

test('delivery: ranges, tags, conditional requests, HEAD', { skip }, async () => {
  await using db = await testDatabase()
  await using here = await site(db)
  const data = randomBytes(200_000)
  const { url, blob } = await upload(here, file('data.bin', data))
  const get = (headers: Record<string, string> = {}, method = 'GET'): Promise<Received> =>
    here.call(url, { token: null, headers, method })
  const whole = await get()
  assert.ok(whole.body.equals(data))
  assert.deepEqual(
    [
      'etag',
      'cache-control',
      'accept-ranges',
      'content-length',
      'x-content-type-options',
      'content-type',
      'vary',
    ].map((name) => whole.headers[name]),
    [
      `"${blob}"`,
      'public, max-age=31536000, immutable',
      'bytes',
      '200000',
      'nosniff',
      'application/octet-stream',
      undefined,
    ],
  )
  const head = await get({}, 'HEAD')
  assert.deepEqual(
    [head.status, head.headers['content-length'], head.body.length, head.headers['etag']],
    [200, '200000', 0, `"${blob}"`],
  )
  const ranges: readonly (readonly [string, number, number])[] = [
    ['bytes=0-0', 0, 0],
    ['bytes=5-9', 5, 9],
    ['bytes=199990-', 199_990, 199_999],
    ['bytes=-10', 199_990, 199_999],
    ['bytes=100-999999999', 100, 199_999],
    ['bytes=-999999999', 0, 199_999],
  ]
  for (const [range, start, end] of ranges) {
    const part = await get({ range })
    assert.deepEqual(
      [part.status, part.headers['content-range'], part.headers['content-length']],
      [206, `bytes ${start}-${end}/200000`, String(end - start + 1)],
      range,
    )
    assert.ok(part.body.equals(data.subarray(start, end + 1)), range)
  }
  for (const range of ['bytes=200000-', 'bytes=-0', 'bytes=300000-400000']) {
    const wrong = await get({ range })
    assert.deepEqual(
      [wrong.status, wrong.headers['content-range'], wrong.json()['code']],
      [416, 'bytes */200000', 'E_RANGE'],
      range,
    )
  }
  for (const range of ['bytes=9-5', 'lines=1-2', 'bytes=0-1,4-5', 'bytes=a-b', 'bytes=-'])
    assert.equal((await get({ range })).status, 200, range)
  assert.equal((await get({ range: 'bytes=0-4', 'if-range': `"${blob}"` })).status, 206)
  assert.equal((await get({ range: 'bytes=0-4', 'if-range': '"other"' })).status, 200)
  assert.equal(
    (await get({ range: 'bytes=0-4', 'if-range': 'Fri, 20 Nov 2026 10:00:00 GMT' })).status,
    200,
  )
  assert.equal((await get({ 'if-none-match': `"${blob}"` })).status, 304)
  assert.equal((await get({ 'if-none-match': `W/"${blob}"`, range: 'bytes=0-1' })).status, 304)
  assert.equal((await get({ 'if-none-match': '"other"' })).status, 200)
  here.parts.store.isDown = true
  assert.equal((await get()).status, 503)
})

test(
  'what a browser could run is a download in a sandbox; what it shows is inline',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using here = await site(db)
    const svg = await upload(
      here,
      file('x.svg', '<svg><script>alert(1)</script></svg>', 'image/png'),
    )
    const html = await upload(
      here,
      file('x.html', '<!doctype html><script>alert(1)</script>', 'image/png'),
    )
    const bare = await upload(here, file('x', '<html onload=alert(1)>', 'image/png'))
    for (const asset of [svg, html, bare]) {
      for (const url of [asset.url, `/assets/${asset.id}/picture.png`]) {
        const { headers } = await here.call(url, { token: null })
        assert.match(headers['content-disposition'] ?? '', /^attachment;/)
        assert.match(String(headers['content-security-policy']), /^sandbox; default-src 'none'/)
        assert.equal(headers['x-content-type-options'], 'nosniff')
      }
    }
    const png = await upload(
      here,
      file(
        'Größe 1%.png',
        await sharp({ create: { width: 10, height: 10, channels: 3, background: 'red' } })
          .png()
          .toBuffer(),
        'text/html',
      ),
    )
    const shown = await here.call(png.url, { token: null })
    assert.equal(shown.headers['content-type'], 'image/png')
    assert.match(
      shown.headers['content-disposition'] ?? '',
      /^inline; filename="Gr__e 1_\.png"; filename\*=UTF-8''Gr%C3%B6%C3%9Fe/,
    )
    const bomb = Buffer.from('89504e470d0a1a0a0000000d494844520000c3500000c3500803000000', 'hex')
    assert.equal((await here.call('/api/assets', form(file('bomb.png', bomb)))).status, 422)
  },
)

test(
  'renditions: negotiated, cached for ever, crops only with their revision',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using here = await site(db)
    const data = await sharp({
      create: { width: 600, height: 300, channels: 3, background: 'red' },
    })
      .jpeg()
      .toBuffer()
    const asset = await upload(here, file('a.jpg', data))
    const get = (query: string, accept = '*/*'): Promise<Received> =>
      here.call(`${asset.url}?${query}`, { token: null, headers: { accept } })
    const webp = await get('width=200', 'image/webp,*/*')
    assert.deepEqual(
      [webp.headers['content-type'], webp.headers['vary'], webp.headers['cache-control']],
      ['image/webp', 'Accept', 'public, max-age=31536000, immutable'],
    )
    assert.equal((await sharp(webp.body).metadata()).width, 256)
    assert.equal((await get('width=200')).headers['content-type'], 'image/jpeg')
    assert.equal((await get('width=200', 'image/avif')).headers['content-type'], 'image/avif')
    const fixed = await get('width=200&format=png', 'image/avif')
    assert.deepEqual(
      [fixed.headers['content-type'], fixed.headers['vary']],
      ['image/png', undefined],
    )
    assert.match((await get('width=64&height=64')).headers['cache-control'] ?? '', /max-age=60,/)
    assert.match((await get('width=64&height=64&v=1')).headers['cache-control'] ?? '', /immutable/)
    assert.match(
      (await get('width=64&height=64&v=2')).headers['cache-control'] ?? '',
      /max-age=60,/,
    )
    assert.match(
      (await get('width=64&height=64&fit=contain')).headers['cache-control'] ?? '',
      /immutable/,
    )
    const part = await here.call(`${asset.url}?width=200&format=png`, {
      token: null,
      headers: { range: 'bytes=1-3' },
    })
    assert.deepEqual([part.status, part.body.toString()], [206, 'PNG'])
    for (const query of [
      'width=0',
      'width=x',
      'width=-1',
      'width=1e9',
      'fit=fill',
      'format=svg',
      'quality=101',
      'other=1',
      'width=1&width=2',
    ]) {
      const wrong = await get(query)
      assert.deepEqual(
        [wrong.status, wrong.headers['content-type']?.split(';')[0]],
        [400, 'application/problem+json'],
        query,
      )
    }
    const text = await upload(here, file('a.txt', 'no picture'))
    assert.equal((await here.call(`${text.url}?width=64`, { token: null })).status, 422)
  },
)

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
