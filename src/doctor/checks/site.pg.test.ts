import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer, request } from 'node:http'
import type { RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { ForwardingLog } from '#api/http/forwarding-log.ts'
import type { Surroundings } from '#doctor/check.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { configWith, found, testSurroundings } from '#test/support/doctor.ts'
import { selfSigned } from '#test/support/redis-topology.ts'

const skip = databaseMissing

async function withServer(
  listener: RequestListener,
  tls: { readonly cert: string; readonly key: string } | null,
): Promise<AsyncDisposable & { readonly url: string }> {
  const server =
    tls === null
      ? createServer(listener)
      : createTlsServer({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) }, listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `${tls === null ? 'http' : 'https'}://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

test(
  'a certificate near its end, and a site that is not reached, are found',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using tls = await selfSigned(3)
    await using site = await withServer((_request, response) => void response.end(), tls)
    const at = (url: string): Surroundings => ({
      ...testSurroundings({ database: db.database }),
      config: configWith({ STOA_PUBLIC_URL: url }),
    })
    const texts = (await found('public-url', at(site.url))).join('\n')
    assert.match(texts, /The certificate of the site ends in [23] days/)
    assert.match(texts, /is not reached at STOA_PUBLIC_URL: .*self.signed/)
    const [closed = ''] = await found('public-url', at('http://127.0.0.1:1'))
    assert.match(closed, /is not reached at STOA_PUBLIC_URL/)
    const plain = (await found('public-url', at('http://stoa.invalid'))).join('\n')
    assert.match(plain, /STOA_PUBLIC_URL has no TLS/)
  },
)

test('a proxy that strips Stoa-Token is found', { skip }, async () => {
  await using db = await testDatabase()
  for (const [strips, count] of [
    [true, 1],
    [false, 0],
  ] as const) {
    await using proxy = await withServer((incoming, response) => {
      const arrived = strips ? undefined : incoming.headers['stoa-token']
      response.statusCode = arrived === undefined ? 200 : 400
      response.end(JSON.stringify({ path: arrived === undefined ? '' : '/stoa-token' }))
    }, null)
    const config = configWith({ STOA_PUBLIC_URL: proxy.url })
    const texts = await found('public-url', testSurroundings({ database: db.database, config }))
    assert.equal(texts.length, count, texts.join('\n'))
    if (strips) assert.match(texts[0] ?? '', /strips the header Stoa-Token/)
  }
})

test('what proxies write into X-Forwarded-For is compared with the setting', { skip }, async () => {
  await using db = await testDatabase()
  const arrive = async (forwarded: string | null, trusted: number): Promise<string[]> => {
    const log = new ForwardingLog()
    await using server = await withServer((incoming, response) => {
      log.note(incoming, trusted)
      response.end()
    }, null)
    for (let count = 0; count < 25; count += 1)
      await new Promise((resolve, reject) => {
        const headers = forwarded === null ? {} : { 'x-forwarded-for': forwarded }
        request(server.url, { headers }, (response) => response.resume().on('end', resolve))
          .on('error', reject)
          .end()
      })
    return found('forwarding', {
      ...testSurroundings({ database: db.database }),
      config: configWith({ STOA_TRUST_PROXY: String(trusted) }),
      forwarding: log.counts,
    })
  }
  assert.deepEqual(await arrive(null, 0), [])
  assert.deepEqual(await arrive('192.0.2.1', 1), [])
  assert.deepEqual(await arrive('2001:db8::1, 192.0.2.1', 2), [])
  assert.match((await arrive('192.0.2.1', 0))[0] ?? '', /a proxy that is not trusted/)
  assert.match((await arrive(null, 1))[0] ?? '', /^error: STOA_TRUST_PROXY is 1/)
  assert.match((await arrive('192.0.2.1', 2))[0] ?? '', /fewer addresses/)
  assert.match((await arrive('192.0.2.1:4711', 1))[0] ?? '', /writes ports/)
  assert.match((await arrive('[2001:db8::1]:4711', 1))[0] ?? '', /writes ports/)
})
