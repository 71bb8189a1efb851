import assert from 'node:assert/strict'
import { get as httpGet } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

const skip = databaseMissing
/** The attacker and the other clients have addresses of their own on loopback. */
const attacker = '127.0.0.2'
const other = '127.0.0.3'
/** More than the sockets of both sides hold. */
const fileBytes = 30_000_000
const locales = 'GET /api/locales HTTP/1.1\r\nHost: x\r\n\r\n'

async function listening(site: Site): Promise<number> {
  return Number(new URL(await site.server.listen({ host: '0.0.0.0', port: 0 })).port)
}

async function bigFile(site: Site): Promise<string> {
  const asset = await site.media.upload(site.database, site.access.systemIdentity.authority.actor, {
    name: 'film.bin',
    source: Readable.from([Buffer.alloc(fileBytes)]),
  })
  return `/assets/${asset.id}/film.bin`
}

type Attack = Disposable & { readonly sockets: Socket[] }

/** Opens connections from the attacker's address, writes to each, and reads none of them. */
async function attack(port: number, count: number, text: string): Promise<Attack> {
  const sockets = Array.from({ length: count }, () =>
    connect({ host: '127.0.0.1', port, localAddress: attacker }),
  )
  await Promise.all(
    sockets.map(async (socket) => {
      socket.on('error', () => undefined)
      socket.pause()
      await new Promise<void>((resolve) => socket.once('connect', resolve))
      socket.write(text)
    }),
  )
  return {
    sockets,
    [Symbol.dispose]: () => {
      for (const socket of sockets) socket.destroy()
    },
  }
}

async function statusFor(port: number, path: string, localAddress = other): Promise<number> {
  const response = await new Promise<IncomingMessage>(
    (resolve, reject) =>
      void httpGet({ host: '127.0.0.1', port, path, localAddress }, resolve).on('error', reject),
  )
  response.resume()
  return response.statusCode ?? 0
}

async function closed(socket: Socket, ms: number): Promise<boolean> {
  socket.resume()
  return Promise.race([
    new Promise<boolean>((resolve) => socket.once('close', () => resolve(true))),
    sleep(ms, false, { ref: false }),
  ])
}

/** Sends a text, and reads until enough is there, the connection ends or nothing more comes. */
async function received(
  port: number,
  text: string,
  isEnough: (text: string) => boolean,
): Promise<string> {
  const socket = connect(port, '127.0.0.1', () => socket.write(text))
  socket.on('error', () => undefined)
  let all = ''
  socket.on('data', (chunk) => {
    all += String(chunk)
    if (isEnough(all)) setTimeout(() => socket.destroy(), 100)
  })
  assert.ok(await closed(socket, 5_000), all)
  return all
}

function responsesIn(text: string): number {
  return text.split('HTTP/1.1 200 OK').length - 1
}

test(
  'requests that are pipelined behind a file that is not read hold no place',
  { skip },
  async () => {
    await using site = await testSite({ config: { requestsMax: 20 } })
    const path = await bigFile(site)
    const port = await listening(site)
    using readers = await attack(
      port,
      5,
      `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n${locales.repeat(1_100)}`,
    )
    await sleep(300)
    for (let times = 0; times < 30; times += 1)
      assert.equal(await statusFor(port, '/api/locales'), 200)
    await assert.rejects(statusFor(port, '/api/locales', attacker), 'it may not come again at once')
    assert.equal(site.server.api.places.inFlight, 0)
    for (const socket of readers.sockets) assert.ok(await closed(socket, 2_000))
  },
)

test('pipelined requests run one after the other, up to a bound', { skip }, async () => {
  await using site = await testSite()
  const port = await listening(site)
  for (const [sent, expected] of [
    [20, 20],
    [60, 33],
  ] as const) {
    const text = await received(port, locales.repeat(sent), (text) => responsesIn(text) >= expected)
    assert.equal(responsesIn(text), expected)
    assert.equal(/connection: close/i.test(text), expected < sent, 'the last one says so')
  }
})

test('an address that floods is held and not read, and others are served', { skip }, async () => {
  await using site = await testSite()
  const port = await listening(site)
  using flood = await attack(port, 1, locales.repeat(1_100))
  const [socket] = flood.sockets
  const { promise: cut, resolve } = Promise.withResolvers<void>()
  if (socket!.destroyed) resolve()
  else socket!.resume().once('close', () => resolve())
  await cut
  using back = await attack(port, 20, locales.repeat(1_100))
  let closed = 0
  for (const one of back.sockets) one.resume().on('close', () => (closed += 1))
  for (let count = 0; count < 10; count += 1)
    assert.equal(await statusFor(port, '/api/locales'), 200)
  assert.equal(closed, 0, 'closed, they would come back at once')
  assert.ok(
    back.sockets.every((one) => one.bytesRead === 0),
    'no request of theirs was parsed',
  )
})

test('heads whose bodies never come leave room for the others, and are cut', { skip }, async () => {
  await using site = await testSite({
    config: { requestsMax: 10, transferGraceMs: 1_000, transferRateMin: 1_000 },
  })
  const port = await listening(site)
  using bodiless = await attack(
    port,
    60,
    'POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
  )
  await sleep(200)
  assert.equal(await statusFor(port, '/api/locales'), 200)
  assert.equal(await statusFor(port, '/api/locales', attacker), 200, 'reads of that address too')
  assert.equal(await statusFor(port, '/healthz/ready'), 200)
  const posted = await fetch(`http://127.0.0.1:${port}/api/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"email":"a@example.com","password":"wrong"}',
  })
  assert.equal(posted.status, 401, 'another address signs in')
  const socket = bodiless.sockets[0]!
  let text = ''
  socket.on('data', (chunk) => {
    text += String(chunk)
  })
  assert.ok(await closed(socket, 5_000), 'a body that does not come ends its connection')
  assert.match(text, /^HTTP\/1\.1 408 .*E_REQUEST_TIMEOUT/s)
})

test(
  'a reader that is too slow is cut, and one that is slow but steady is not',
  { skip },
  async () => {
    await using site = await testSite({
      config: { transferGraceMs: 1_000, transferRateMin: 50_000 },
    })
    const path = await bigFile(site)
    const port = await listening(site)
    using stalled = await attack(port, 1, `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    using steady = await attack(port, 1, `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    const [slow, fine] = [stalled.sockets[0]!, steady.sockets[0]!]
    const ended = { slow: false, fine: false }
    slow.on('close', () => (ended.slow = true))
    fine.on('close', () => (ended.fine = true))
    const until = Date.now() + 4_000
    while (Date.now() < until) {
      fine.read()
      await sleep(50)
    }
    slow.resume()
    await sleep(200)
    assert.deepEqual(ended, { slow: true, fine: false })
  },
)

test('what clients leave unread is bounded in bytes', { skip }, async () => {
  await using site = await testSite({ config: { unsentBytesMax: 3_000_000 } })
  const much = 'x'.repeat(490_000)
  await site.request('PUT', '/api/types/page', {
    body: { name: 'page', label: 'Page', fields: [{ name: 'body', kind: 'text' }] },
  })
  for (let count = 0; count < 20; count += 1)
    await site.request('POST', '/api/content/page', {
      body: { fields: { body: much.slice(0, 20_000) }, publish: true },
    })
  const port = await listening(site)
  using readers = await attack(
    port,
    40,
    `GET /api/content/page?limit=20 HTTP/1.1\r\nHost: x\r\n\r\n`.repeat(30),
  )
  const deadline = Date.now() + 10_000
  let largest = 0
  while (Date.now() < deadline) {
    largest = Math.max(largest, site.server.connections.unsentBytes)
    if (readers.sockets.some((socket) => socket.destroyed)) break
    await sleep(100)
  }
  await sleep(1_500)
  assert.ok(
    site.server.connections.unsentBytes <= 3_000_000,
    `${site.server.connections.unsentBytes} bytes, ${largest} at most`,
  )
})

test(
  'two hosts, none, or a strange one are refused, and framing is read one way',
  { skip },
  async () => {
    await using site = await testSite()
    const port = await listening(site)
    const codeOf = async (text: string): Promise<string> => {
      const response = await received(port, text, (part) => part.includes('\r\n\r\n'))
      return `${response.slice(9, 12)} ${/"code":"(E_\w+)"/.exec(response)?.[1] ?? ''}`
    }
    for (const path of ['/api/content/article', '/api/locales'])
      for (const [headers, expected] of [
        ['Host: a\r\nHost: b\r\n', '400 E_HOST_INVALID'],
        ['', '400 E_HOST_INVALID'],
        ['Host: a, b\r\n', '400 E_HOST_INVALID'],
        ['Host: user@a\r\n', '400 E_HOST_INVALID'],
        ['Host: a/b\r\n', '400 E_HOST_INVALID'],
        ['Host: a\r\nTransfer-Encoding: gzip\r\n', '400 E_REQUEST_MALFORMED'],
        [
          'Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n',
          '400 E_REQUEST_MALFORMED',
        ],
        ['Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n', '400 E_REQUEST_MALFORMED'],
      ] as const)
        assert.equal(await codeOf(`GET ${path} HTTP/1.1\r\n${headers}\r\n`), expected, headers)
    assert.equal(await codeOf('GET /api/locales HTTP/1.1\r\nHost: [::1]:80\r\n\r\n'), '200 ')
    assert.equal(await codeOf('GET /api/locales HTTP/1.0\r\n\r\n'), '200 ')
  },
)
