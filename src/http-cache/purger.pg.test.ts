import assert from 'node:assert/strict'
import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { CloudflareHttpCache } from '#http-cache/drivers/cloudflare.ts'
import { FastlyHttpCache } from '#http-cache/drivers/fastly.ts'
import { allTag } from '#http-cache/tags.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { FakeCdn } from '#test/support/fake-cdn.ts'
import { purgingSite } from '#test/support/purging-site.ts'

/** A whole site behind a cache that it purges by its job. */

/** A port that leads to the site, which is there later than the cache in front of it. */
async function relay(): Promise<AsyncDisposable & { readonly origin: string; to: string }> {
  const state = { to: '' }
  const server = createServer((incoming, outgoing) => {
    const { method, url, headers } = incoming
    const sent = httpRequest(`${state.to}${url}`, { method, headers }, (response) => {
      outgoing.writeHead(response.statusCode ?? 502, response.headers)
      response.pipe(outgoing)
    })
    sent.on('error', () => outgoing.destroy())
    incoming.pipe(sent)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return Object.assign(state, {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  })
}

async function open(
  options: {
    readonly vendor?: 'fastly' | 'cloudflare'
    readonly callsPerS?: number
    readonly burst?: number
    readonly changesHide?: boolean
    readonly turnMs?: number
  } = {},
) {
  const {
    vendor = 'fastly',
    callsPerS = 100,
    burst = 100,
    changesHide = false,
    turnMs = 30_000,
  } = options
  await using stack = new AsyncDisposableStack()
  const between = stack.use(await relay())
  const cdn = stack.use(
    await FakeCdn.start({ vendor, origin: between.origin, callsPerS, burst, purgeMs: [0, 0, 0] }),
  )
  const given = { token: 'token', api: cdn.api }
  const cache =
    vendor === 'fastly'
      ? new FastlyHttpCache({ ...given, service: 'svc' })
      : new CloudflareHttpCache({ ...given, zone: 'zone', plan: 'free' })
  const purging = stack.use(await purgingSite(cache, { changesHide, turnMs }))
  between.to = purging.origin
  const closing = stack.move()
  return {
    ...purging,
    cdn,
    cache,
    read: async (path: string): Promise<{ status: number; body: string }> => {
      const response = await fetch(`${cdn.place(0)}${path}`)
      return { status: response.status, body: await response.text() }
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

test(
  'a publish is purged, once all nodes have it, and the receipt says when',
  { skip },
  async () => {
    await using opened = await open()
    const { publish, purged, read, cdn } = opened
    const other = await publish('Other')
    const { id, token: first } = await publish('Old')
    await purged(first)
    const path = `/api/content/note/${id}`
    const list = '/api/content/note?fields=title'
    assert.match((await read(path)).body, /Old/)
    assert.match((await read(list)).body, /Old/)
    await read(`/api/content/note/${other.id}`)
    const calls = cdn.calls.length
    const { token } = await publish('New', id)
    const receipt = await purged(token)
    assert.equal(receipt.everywhere, true)
    const [edge] = receipt.httpCache
    assert.equal(edge?.edge, 'fastly svc')
    assert.ok(Math.abs(Date.parse(edge?.purgedAt ?? '') - Date.now()) < 60_000)
    await sleep(20)
    assert.match((await read(path)).body, /New/)
    assert.match((await read(list)).body, /New/)
    const purges = cdn.calls.slice(calls)
    assert.ok(purges.some(({ soft, tags }) => soft && !tags.includes(allTag)))
  },
)

test('a draft purges nothing, and its receipt does not wait for the edge', { skip }, async () => {
  await using opened = await open()
  const { publish, purged, site, cdn } = opened
  const { id, token } = await publish('A')
  await purged(token)
  await site.request('PATCH', `/api/content/note/${id}`, { body: { fields: { title: 'B' } } })
  const calls = cdn.calls.length
  const saved = await site.request('PATCH', `/api/content/note/${id}`, {
    body: { fields: { title: 'C' } },
  })
  await purged(saved.headers['stoa-token'] ?? '')
  const repeats = cdn.calls.slice(calls).filter(({ soft, tags }) => soft && !tags.includes(allTag))
  assert.ok(repeats.length <= 1, 'the save that parted the draft from what is published')
})

test('what is unpublished is purged hard, and gone', { skip }, async () => {
  await using opened = await open()
  const { publish, purged, site, cdn, read } = opened
  const { id, token } = await publish('A')
  await purged(token)
  await read(`/api/content/note/${id}`)
  const calls = cdn.calls.length
  const gone = await site.request('POST', `/api/content/note/${id}/unpublish`, { body: {} })
  assert.ok(gone.status < 300, gone.text)
  await purged(gone.headers['stoa-token'] ?? '')
  await sleep(20)
  assert.equal((await read(`/api/content/note/${id}`)).status, 404)
  assert.ok(cdn.calls.slice(calls).some(({ soft }) => !soft))
})

test(
  'where a filter decides what strangers see, each change is purged hard',
  { skip },
  async () => {
    await using opened = await open({ changesHide: true })
    const { publish, purged, cdn } = opened
    const { token } = await publish('A')
    await purged(token)
    assert.ok(cdn.calls.every(({ soft }) => !soft))
  },
)

test(
  'an edge that is away gets its purges when it is back; the receipt and health say so',
  { skip },
  async () => {
    await using opened = await open()
    const { publish, purged, receipt, site, cdn, purger } = opened
    const { id, token: first } = await publish('A')
    await purged(first)
    cdn.away = true
    const { token } = await publish('B', id)
    const until = Date.now() + 15_000
    let waiting = (await receipt(token)).httpCache[0]!
    while (waiting.problem === null) {
      assert.ok(Date.now() < until)
      await sleep(20)
      waiting = (await receipt(token)).httpCache[0]!
    }
    assert.equal(waiting.state, 'waiting')
    assert.equal(waiting.doneBy, null)
    assert.equal((await receipt(token)).everywhere, false)
    await sleep(300)
    const health = await site.get('/healthz/ready')
    assert.equal(health.status, 200)
    assert.equal(health.json.status, 'degraded')
    assert.match(health.json.parts.httpCache.detail as string, /fastly svc/)
    assert.match(purger.problems()[0] ?? '', /fastly svc/)
    cdn.away = false
    const done = await purged(token)
    assert.equal(done.httpCache[0]?.problem, null)
    assert.deepEqual(purger.problems(), [])
  },
)

test(
  'purges that take too long for the vendor go as the tag of the type, within its limits',
  { skip },
  async () => {
    await using opened = await open({
      vendor: 'cloudflare',
      callsPerS: 5 / 60,
      burst: 25,
      turnMs: 200,
    })
    const { site, cdn, purged, receipt } = opened
    const ids: string[] = []
    for (let at = 0; at < 210; at += 1) {
      const fields = { title: `T${at}` }
      const made = await site.request('POST', '/api/content/note', { body: { fields } })
      ids.push(made.json.data.id as string)
    }
    const release = await site.request('POST', '/api/releases', { body: { name: 'All' } })
    const path = `/api/releases/${release.json.data.id as string}`
    const items = ids.map((entryId) => ({ entryId, locale: 'en', action: 'publish' }))
    const put = await site.request('POST', `${path}/items`, { body: { items } })
    assert.ok(put.status < 300, put.text)
    await sleep(300)
    await site.database.run(
      sql(`update stoa.http_cache_edge set calls = 1, calls_at = clock_timestamp()`),
    )
    await sleep(600)
    const calls = cdn.calls.length
    const done = await site.request('POST', `${path}/publish`, { body: {} })
    assert.ok(done.status < 300, done.text)
    const token = done.headers['stoa-token'] ?? ''
    const [edge] = (await receipt(token)).httpCache
    if (edge?.state === 'waiting') assert.ok(Date.parse(edge.doneBy ?? '') < Date.now() + 5_000)
    await purged(token)
    assert.ok(cdn.calls.length - calls <= 2)
    assert.ok(cdn.calls.at(-1)!.tags.length < 10)
    assert.equal(cdn.tooMany, 0)
  },
)

test('changes that no node read in time: everything is purged', { skip }, async () => {
  await using opened = await open({ turnMs: 100 })
  const { publish, purged, site, cdn } = opened
  await purged((await publish('A')).token)
  const calls = cdn.calls.length
  await site.database.run(sql(`update stoa.epoch set kept_from = '100'`))
  const until = Date.now() + 15_000
  const all = (): boolean =>
    cdn.calls.slice(calls).some(({ tags, soft }) => tags.includes(allTag) && !soft)
  while (!all()) {
    assert.ok(Date.now() < until)
    await site.database.run(sql(`update stoa.http_cache set position = '3:3:'`))
    await sleep(200)
  }
  await purged((await publish('B')).token)
})

test('a purge is repeated for fetches that were on their way', { skip }, async () => {
  await using opened = await open()
  const { publish, purged, cdn } = opened
  await purged((await publish('A')).token)
  await sleep(100)
  const calls = cdn.calls.length
  const { token } = await publish('B')
  await purged(token)
  const until = Date.now() + 10_000
  const first = cdn.calls[calls]!.tags
  const again = (): boolean =>
    cdn.calls.slice(calls + 1).some(({ tags }) => first.every((tag) => tags.includes(tag)))
  while (!again()) {
    assert.ok(Date.now() < until, 'no second purge')
    await sleep(50)
  }
})
