import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pageOf, purgeOf, httpCacheContract } from '#http-cache/contract.ts'
import { FastlyHttpCache } from '#http-cache/drivers/fastly.ts'
import { EdgeBusyError, HttpCacheUrlError } from '#http-cache/errors.ts'
import { EdgeOrigin } from '#test/support/edge-origin.ts'
import { FakeCdn } from '#test/support/fake-cdn.ts'

async function open(options: { burst?: number; purgeMs?: readonly number[] } = {}) {
  await using stack = new AsyncDisposableStack()
  const origin = stack.use(await new EdgeOrigin().listen())
  const cdn = stack.use(
    await FakeCdn.start({
      vendor: 'fastly',
      origin: `http://${origin.host}`,
      callsPerS: 1,
      burst: options.burst ?? 100,
      purgeMs: options.purgeMs ?? [20, 60, 40],
    }),
  )
  const cache = new FastlyHttpCache({ service: 'svc', token: 'token', api: cdn.api })
  origin.cache = cache
  const closing = stack.move()
  return {
    origin,
    cdn,
    cache,
    againMs: 150,
    reader: cdn.place(0),
    withWrongKey: new FastlyHttpCache({ service: 'svc', token: 'wrong', api: cdn.api }),
    leave: async () => {
      cdn.away = true
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

httpCacheContract('Fastly', { skip: false, open })

const { signal } = new AbortController()

test('a place that is purged before the shield is fresh after the second purge', async () => {
  await using opened = await open({ purgeMs: [0, 0, 150] })
  const { origin, cache, reader } = opened
  const read = async (): Promise<string> => (await fetch(`${reader}/a`)).text()
  let count = 1
  origin.responses.set('/a', () => ({ body: `${count}`, tags: pageOf('note', ['a']), count }))
  assert.equal(await read(), '1')
  count = 2
  const purges = purgeOf(cache, { type: 'note', id: 'a', count })
  const send = async (): Promise<void> => {
    for (const purge of purges) await cache.edges[0]!.purge(purge, signal)
  }
  await send()
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(await read(), '1', 'the shield still had it')
  await new Promise((resolve) => setTimeout(resolve, 200))
  await send()
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(await read(), '2')
  assert.ok(cache.edges[0]!.limits.repeatsMs.length > 0)
})

test('too many calls: the time after which it accepts more', async () => {
  await using opened = await open({ burst: 1 })
  const { cache } = opened
  const [purge] = purgeOf(cache, { type: 'note', id: 'a', count: 1 })
  await cache.edges[0]!.purge(purge!, signal)
  await assert.rejects(cache.edges[0]!.purge(purge!, signal), (error) => {
    assert.ok(error instanceof EdgeBusyError)
    return error.retryAfterMs >= 1_000 && error.retryAfterMs <= 3_000
  })
})

test('a setting without service or token is refused', () => {
  assert.throws(() => new FastlyHttpCache({ service: 'svc', token: '' }), HttpCacheUrlError)
  assert.throws(() => new FastlyHttpCache({ service: 'a/b', token: 't' }), HttpCacheUrlError)
})
