import assert from 'node:assert/strict'
import { test } from 'node:test'
import { httpCacheContract, purgeOf } from '#http-cache/contract.ts'
import { CloudflareHttpCache } from '#http-cache/drivers/cloudflare.ts'
import { EdgeAwayError, EdgeBusyError, HttpCacheUrlError } from '#http-cache/errors.ts'
import { EdgeOrigin } from '#test/support/edge-origin.ts'
import { FakeCdn } from '#test/support/fake-cdn.ts'

async function open(options: { burst?: number } = {}) {
  await using stack = new AsyncDisposableStack()
  const origin = stack.use(await new EdgeOrigin().listen())
  const cdn = stack.use(
    await FakeCdn.start({
      vendor: 'cloudflare',
      origin: `http://${origin.host}`,
      callsPerS: 0.1,
      burst: options.burst ?? 100,
      purgeMs: [20, 60],
    }),
  )
  const given = { zone: 'zone', plan: 'enterprise', api: cdn.api }
  const cache = new CloudflareHttpCache({ ...given, token: 'token' })
  origin.cache = cache
  const closing = stack.move()
  return {
    origin,
    cdn,
    cache,
    againMs: 0,
    reader: cdn.place(0),
    withWrongKey: new CloudflareHttpCache({ ...given, token: 'wrong' }),
    leave: async () => {
      cdn.away = true
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

httpCacheContract('Cloudflare', { skip: false, open })

const { signal } = new AbortController()

test('too many calls; failures after which a purge may have arrived', async () => {
  await using opened = await open({ burst: 3 })
  const { cache, cdn } = opened
  const [purge] = purgeOf(cache, { type: 'note', id: 'a', count: 1 })
  cdn.failures = 2
  await assert.rejects(cache.edges[0]!.purge(purge!, signal), EdgeAwayError)
  await assert.rejects(cache.edges[0]!.purge(purge!, signal), EdgeAwayError)
  await cache.edges[0]!.purge(purge!, signal)
  await assert.rejects(cache.edges[0]!.purge(purge!, signal), EdgeBusyError)
  assert.equal(cdn.calls.length, 3)
})

test('a setting without zone, token or plan is refused', () => {
  const good = { zone: 'zone', token: 'token', plan: 'free' }
  assert.equal(new CloudflareHttpCache(good).edges.length, 1)
  for (const bad of [{ zone: '' }, { token: '' }, { plan: 'gold' }])
    assert.throws(() => new CloudflareHttpCache({ ...good, ...bad }), HttpCacheUrlError)
})
