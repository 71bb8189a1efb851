import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CloudflareHttpCache } from '#http-cache/drivers/cloudflare.ts'
import { FastlyHttpCache } from '#http-cache/drivers/fastly.ts'
import { VarnishHttpCache } from '#http-cache/drivers/varnish.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { allTag } from '#http-cache/tags.ts'
import { parseToken } from '#change-feed/token.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

const varnish = new VarnishHttpCache({
  hosts: ['127.0.0.1:1'],
  purgeKey: 'key',
  firstByteTimeoutS: null,
})

type Read = { readonly status: number; readonly headers: Headers }

/** Over a real socket, so that the fast path responds where it can. */
async function reader(
  site: Site,
): Promise<(path: string, headers?: Record<string, string>) => Promise<Read>> {
  const origin = await site.server.listen({ host: '127.0.0.1', port: 0 })
  return async (path, headers = {}) => {
    const response = await fetch(`${origin}${path}`, { headers })
    await response.arrayBuffer()
    return { status: response.status, headers: response.headers }
  }
}

async function withNote(site: Site): Promise<string> {
  await site.request('PUT', '/api/types/note', {
    body: { name: 'note', label: 'Note', fields: [{ name: 'title', kind: 'text' }] },
  })
  site.forgetDocument()
  const made = await site.request('POST', '/api/content/note', {
    body: { fields: { title: 'A' }, publish: true },
  })
  return made.json.data.id as string
}

test('without an HTTP cache: no tags, and Cache-Control says one thing', { skip }, async () => {
  await using site = await testSite()
  const id = await withNote(site)
  const read = await reader(site)
  for (const path of [`/api/content/note/${id}`, '/api/content/note']) {
    const { headers } = await read(path)
    assert.equal(headers.get('cache-control'), 'public, max-age=0, s-maxage=1')
    for (const name of ['xkey', 'surrogate-key', 'cache-tag', 'stoa-as-of'])
      assert.equal(headers.get(name), null, name)
  }
})

test('published content carries tags, made, from memory and as 304', { skip }, async () => {
  await using site = await testSite({ httpCache: varnish })
  const id = await withNote(site)
  const read = await reader(site)
  for (const path of [`/api/content/note/${id}`, '/api/content/note']) {
    const made = await read(path)
    const hit = await read(path)
    assert.match(hit.headers.get('cache-status') ?? '', /^stoa; hit/)
    const tags = made.headers.get('xkey')?.split(' ') ?? []
    assert.ok(tags.includes(allTag) && tags.length >= 3, `${path}: ${tags.join(' ')}`)
    for (const tag of tags) assert.match(tag, /^[0-9a-f]{8}$/)
    assert.match(made.headers.get('stoa-groups') ?? '', /^\d+( \d+)*$/)
    const same = await read(path, { 'if-none-match': hit.headers.get('etag') ?? '' })
    assert.equal(same.status, 304)
    for (const each of [hit, same])
      for (const name of ['xkey', 'stoa-groups'])
        assert.equal(each.headers.get(name), made.headers.get(name), name)
  }
})

test(
  'a response says how much it shows: more after each write, and past its token',
  { skip },
  async () => {
    await using site = await testSite({ httpCache: varnish })
    const id = await withNote(site)
    const read = await reader(site)
    const path = `/api/content/note/${id}`
    let last = -1
    for (let round = 0; round < 5; round += 1) {
      const written = await site.request('PATCH', path, {
        body: { fields: { title: `B${round}` }, publish: true },
      })
      assert.equal(written.status, 200)
      const token = parseToken(written.headers['stoa-token'] ?? '')
      assert.ok(token !== null)
      // Transactions that still run hold back the first one that it may lack, for a moment.
      const until = Date.now() + 10_000
      for (;;) {
        const [epoch, count, first] = ((await read(path)).headers.get('stoa-as-of') ?? '').split(
          ' ',
        )
        assert.equal(epoch, token.epoch)
        assert.ok(Number(count) >= last)
        last = Number(count)
        if (Number(first) > token.xid) break
        assert.ok(Date.now() < until, 'it shows the write')
      }
    }
  },
)

test('what not everyone may see, or nothing would purge, is not kept', { skip }, async () => {
  const caches: readonly (readonly [HttpCache, string, RegExp | null])[] = [
    [varnish, 'xkey', null],
    [new FastlyHttpCache({ service: 's', token: 't' }), 'surrogate-control', /no-store/],
    [
      new CloudflareHttpCache({ zone: 'z', token: 't', plan: 'free' }),
      'cdn-cache-control',
      /no-store/,
    ],
  ]
  for (const [httpCache, name, said] of caches) {
    await using site = await testSite({ httpCache })
    const id = await withNote(site)
    const read = await reader(site)
    const shared = await read(`/api/content/note/${id}`)
    assert.doesNotMatch(shared.headers.get(name) ?? '', /no-store/)
    assert.notEqual(shared.headers.get(name), null)
    const authorization = `Bearer ${site.tokens.get('editor')}`
    for (const [path, headers] of [
      [`/api/content/note/${id}`, { authorization }],
      [`/api/content/note/${id}?perspective=draft`, { authorization }],
      ['/api/content/note/00000000-0000-7000-8000-000000000000', {}],
      ['/healthz/live', {}],
      ['/openapi.json', { authorization }],
    ] as const)
      for (let time = 0; time < 2; time += 1) {
        const kept = (await read(path, headers)).headers.get(name)
        if (said === null) assert.equal(kept, null, path)
        else assert.match(kept ?? '', said, path)
      }
  }
})

test('the file of an asset has the tag by which its deletion purges it', { skip }, async () => {
  await using site = await testSite({ httpCache: varnish })
  const form = new FormData()
  form.set('file', new Blob(['hello'], { type: 'text/plain' }), 'hello.txt')
  const origin = await site.server.listen({ host: '127.0.0.1', port: 0 })
  const authorization = `Bearer ${site.tokens.get('editor')}`
  const made = await fetch(`${origin}/api/assets`, {
    method: 'POST',
    headers: { authorization },
    body: form,
  })
  assert.equal(made.status, 201, await made.clone().text())
  const { data } = (await made.json()) as { data: { url: string } | { url: string }[] }
  const { url } = Array.isArray(data) ? data[0]! : data
  const file = await fetch(`${origin}${url}`)
  assert.equal(file.status, 200)
  await file.arrayBuffer()
  assert.equal(file.headers.get('xkey')?.split(' ').length, 3)
  assert.notEqual(file.headers.get('stoa-as-of'), null)
})
