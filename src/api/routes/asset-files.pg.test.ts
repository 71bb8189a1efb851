import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import sharp from 'sharp'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { site, form, file, upload } from '#test/support/asset-site.ts'
import type { Received } from '#test/support/asset-site.ts'

const skip = databaseMissing

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
