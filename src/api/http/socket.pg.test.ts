import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, readlink } from 'node:fs/promises'
import { Agent, request as httpRequest } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib'
import type { RoutePlugin } from '#api/api-context.ts'
import { strict } from '#api/schemas/shared.ts'
import { Type } from 'typebox'
import { silentLogger } from '#lib/logger.ts'
import type { Logger } from '#lib/logger.ts'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

/** A route that responds when the test says so, and one with a long response. */
class Gate {
  waiting = 0
  open: () => void = () => undefined
  #opened = new Promise<void>((resolve) => {
    this.open = resolve
  })

  readonly plugin: RoutePlugin = (server) => {
    const response = { 200: strict({ text: Type.String() }) }
    server.route({
      method: 'GET',
      url: '/gate',
      config: { access: 'public' },
      handlerTimeout: 2_000,
      schema: { operationId: 'gate', response },
      handler: async (_request, reply) => {
        this.waiting += 1
        await this.#opened
        return reply.send({ text: 'through' })
      },
    })
    server.route({
      method: 'POST',
      url: '/gate',
      config: { access: 'public' },
      handlerTimeout: 300,
      schema: { operationId: 'gatePost', body: strict({}), response },
      handler: async (_request, reply) => {
        await this.#opened
        return reply.send({ text: 'through' })
      },
    })
    server.route({
      method: 'GET',
      url: '/much',
      config: { access: 'public' },
      schema: { operationId: 'much', response },
      handler: (_request, reply) => reply.send({ text: 'stoa '.repeat(1_000) }),
    })
  }
}

async function listening(site: Site): Promise<number> {
  return Number(new URL(await site.server.listen({ host: '127.0.0.1', port: 0 })).port)
}

type Received = {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

async function get(
  port: number,
  path: string,
  options: {
    readonly agent?: Agent
    readonly headers?: Record<string, string>
    readonly signal?: AbortSignal
  } = {},
): Promise<Received> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ host: '127.0.0.1', port, path, ...options }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
        }),
      )
    })
    sent.on('error', reject)
    sent.end()
  })
}

async function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text))
    let response = ''
    socket.on('data', (chunk) => {
      response += chunk.toString()
    })
    socket.on('close', () => resolve(response))
    socket.on('error', reject)
  })
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000
  while (!condition()) {
    assert.ok(Date.now() < deadline, 'waited too long')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test('what is not HTTP gets a problem document too', { skip: databaseMissing }, async () => {
  await using site = await testSite()
  const port = await listening(site)
  const nonsense = await raw(port, 'HELLO\r\n\r\n')
  assert.match(nonsense, /^HTTP\/1\.1 400 /)
  assert.match(nonsense, /"code":"E_REQUEST_MALFORMED"/)
  const heavy = await raw(
    port,
    `GET /healthz/live HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(20_000)}\r\n\r\n`,
  )
  assert.match(heavy, /^HTTP\/1\.1 431 /)
  assert.match(heavy, /"code":"E_HEADERS_TOO_LARGE"/)
  assert.match(heavy, /Content-Type: application\/problem\+json/)
  const short = await raw(
    port,
    'POST /api/session HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}',
  )
  assert.match(short, /^HTTP\/1\.1 400 /)
})

test(
  'bytes that are not HTTP get no response while an earlier request has none yet',
  { skip: databaseMissing },
  async () => {
    const gate = new Gate()
    await using site = await testSite({ plugins: [gate.plugin] })
    const port = await listening(site)
    assert.equal(await raw(port, 'GET /gate HTTP/1.1\r\nHost: x\r\n\r\n\u0001nonsense\r\n\r\n'), '')
    // The response is that of the request whose body this is.
    assert.match(
      await raw(
        port,
        'POST /gate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n',
      ),
      /^HTTP\/1\.1 400 /,
    )
    gate.open()
  },
)

test(
  'past the bound of requests in flight a node says so, but stays alive',
  { skip: databaseMissing },
  async () => {
    const gate = new Gate()
    await using site = await testSite({ config: { requestsMax: 3 }, plugins: [gate.plugin] })
    const port = await listening(site)
    const held = [get(port, '/gate'), get(port, '/gate'), get(port, '/gate')]
    await until(() => gate.waiting === 3)
    const refused = await get(port, '/much')
    assert.equal(refused.status, 503)
    assert.equal(refused.headers['retry-after'], '1')
    assert.match(refused.body.toString(), /E_SERVER_BUSY/)
    assert.equal((await get(port, '/healthz/live')).status, 200)
    assert.match((await get(port, '/metrics')).body.toString(), /stoa_http_requests_shed_total 1/)
    gate.open()
    assert.deepEqual(
      (await Promise.all(held)).map((response) => response.status),
      [200, 200, 200],
    )
    assert.equal((await get(port, '/much')).status, 200, 'there is room again')
  },
)

test('clients that leave free their place', { skip: databaseMissing }, async () => {
  const gate = new Gate()
  await using site = await testSite({ config: { requestsMax: 2 }, plugins: [gate.plugin] })
  const port = await listening(site)
  const leaving = new AbortController()
  const held = [1, 2].map(async () =>
    assert.rejects(get(port, '/gate', { signal: leaving.signal })),
  )
  await until(() => gate.waiting === 2)
  leaving.abort()
  await Promise.all(held)
  let response = await get(port, '/much')
  for (let tries = 0; response.status === 503 && tries < 100; tries += 1)
    response = await get(port, '/much')
  assert.equal(response.status, 200)
  assert.match((await get(port, '/metrics')).body.toString(), /status="499"\} 2/)
  gate.open()
})

test(
  'clients that leave free the places and files of requests that wait on their connection',
  { skip: databaseMissing },
  async () => {
    const gate = new Gate()
    await using site = await testSite({ plugins: [gate.plugin] })
    const asset = await site.media.upload(
      site.database,
      site.access.systemIdentity.authority.actor,
      { name: 'film.bin', source: Readable.from([Buffer.alloc(1_000_000)]) },
    )
    const port = await listening(site)
    const text = ['/gate', '/gate', `/assets/${asset.id}/film.bin`]
      .map((path) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
      .join('')
    const hasProc = existsSync('/proc/self/fd')
    const open = async (): Promise<number> => {
      const places = await Promise.all(
        (hasProc ? await readdir('/proc/self/fd') : []).map(async (fd) =>
          readlink(`/proc/self/fd/${fd}`).catch(() => ''),
        ),
      )
      return places.filter((place) => place.includes(asset.blob)).length
    }
    const inFlight = async (): Promise<number> =>
      Number(
        /^stoa_http_requests_in_flight (\d+)$/m.exec(
          (await get(port, '/metrics')).body.toString(),
        )?.[1],
      ) - 1
    const seen: IncomingMessage[] = []
    site.server.server.on('request', (request: IncomingMessage) => {
      if (request.url !== '/metrics') seen.push(request)
    })
    const leave: ((socket: Socket) => unknown)[] = [
      (socket) => socket.resetAndDestroy(),
      (socket) => socket.write('CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n'),
    ]
    for (const [way, left] of leave.entries()) {
      const socket = connect(port, '127.0.0.1', () => socket.write(text))
      using ended = new DisposableStack()
      ended.defer(() => void socket.destroy())
      socket.on('error', () => undefined)
      await until(() => gate.waiting === 2 * (way + 1))
      const deadline = Date.now() + 5_000
      if (hasProc)
        while ((await open()) === 0) assert.ok(Date.now() < deadline, 'the file is not read')
      left(socket)
      const requests = seen.splice(0)
      for (
        let [places, files] = [3, 1];
        places + files > 0;
        [places, files] = [await inFlight(), await open()]
      ) {
        assert.ok(Date.now() < deadline, `way ${way}: ${places} in flight, ${files} files open`)
        await sleep(25)
      }
      assert.ok(
        requests.length >= 3 && requests.every(({ destroyed }) => destroyed),
        `way ${way}: nothing hangs on the requests`,
      )
    }
    gate.open()
  },
)

test(
  'a client that leaves in the middle of its body is no failure of this side',
  { skip: databaseMissing },
  async () => {
    const failures: unknown[] = []
    const logger: Logger = {
      ...silentLogger,
      child: () => logger,
      error: (facts) => void failures.push(facts),
    }
    await using site = await testSite({ logger })
    const port = await listening(site)
    for (const path of ['/api/content/article', '/api/session', '/nowhere']) {
      const arrived = once(site.server.server, 'request')
      const socket = connect(port, '127.0.0.1', () =>
        socket.write(
          `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`,
        ),
      )
      const [, response] = (await arrived) as [IncomingMessage, ServerResponse]
      const closed = once(response, 'close')
      // Once the body is being read.
      await sleep(50)
      socket.resetAndDestroy()
      await closed
      await sleep(50)
    }
    assert.deepEqual(failures, [])
  },
)

test(
  'a client that leaves at whatever moment of a file is no failure of this side',
  { skip: databaseMissing },
  async () => {
    const failures: unknown[] = []
    const logger: Logger = {
      ...silentLogger,
      child: () => logger,
      error: (facts) => void failures.push(facts),
    }
    await using site = await testSite({ logger })
    const asset = await site.media.upload(
      site.database,
      site.access.systemIdentity.authority.actor,
      { name: 'film.bin', source: Readable.from([Buffer.alloc(1_000_000)]) },
    )
    const port = await listening(site)
    const leave: ((socket: Socket) => unknown)[] = [
      (socket) => socket.resetAndDestroy(),
      (socket) => socket.write('CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n'),
    ]
    for (const left of leave) {
      for (let turns = 0; turns < 20; turns += 1) {
        const arrived = once(site.server.server, 'request')
        const socket = connect(port, '127.0.0.1', () =>
          socket.write(`GET /assets/${asset.id}/film.bin HTTP/1.1\r\nHost: x\r\n\r\n`),
        )
        socket.on('error', () => undefined)
        const [, response] = (await arrived) as [IncomingMessage, ServerResponse]
        const closed = once(response, 'close')
        for (let turn = 0; turn < turns; turn += 1)
          await new Promise((resolve) => setImmediate(resolve))
        left(socket)
        socket.resume()
        await closed
        socket.destroy()
      }
    }
    await sleep(50)
    assert.deepEqual(failures, [])
  },
)

test(
  'a response that takes too long is a 503 with a problem document',
  { skip: databaseMissing },
  async () => {
    const gate = new Gate()
    await using site = await testSite({ plugins: [gate.plugin] })
    const port = await listening(site)
    const response = await get(port, '/gate')
    assert.equal(response.status, 503)
    assert.match(response.body.toString(), /E_DEADLINE/)
    const posted = await fetch(`http://127.0.0.1:${port}/gate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{}',
    })
    assert.equal(posted.status, 503, 'also when the body is there')
    assert.match(await posted.text(), /E_DEADLINE/)
    gate.open()
  },
)

test(
  'a node that drains finishes what is in flight and sends keep-alive clients away',
  { skip: databaseMissing },
  async () => {
    const gate = new Gate()
    const site = await testSite({ plugins: [gate.plugin] })
    const port = await listening(site)
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    assert.equal((await get(port, '/much', { agent })).headers.connection, 'keep-alive')
    const held = get(port, '/gate')
    await until(() => gate.waiting === 1)
    site.server.beginDrain()
    const ready = await get(port, '/healthz/ready', { agent })
    assert.equal(ready.status, 503)
    assert.equal(ready.headers.connection, 'close')
    const closed = site[Symbol.asyncDispose]()
    gate.open()
    const last = await held
    assert.equal(last.status, 200)
    assert.equal(last.headers.connection, 'close')
    await closed
    agent.destroy()
  },
)

test(
  'a node that closes does not wait for connections on which nothing was ever sent',
  { skip: databaseMissing },
  async () => {
    const site = await testSite()
    const socket = connect(await listening(site), '127.0.0.1')
    await once(socket, 'connect')
    const late = Symbol('late')
    assert.notEqual(
      await Promise.race([site[Symbol.asyncDispose](), sleep(5_000, late, { ref: false })]),
      late,
    )
    socket.destroy()
  },
)

test('responses are compressed as the client prefers', { skip: databaseMissing }, async () => {
  const gate = new Gate()
  await using site = await testSite({ plugins: [gate.plugin] })
  const port = await listening(site)
  const plain = await get(port, '/much')
  assert.equal(plain.headers['content-encoding'], undefined)
  assert.equal(plain.headers.vary, 'Accept-Encoding')
  for (const [encoding, unpack] of [
    ['gzip', gunzipSync],
    ['br', brotliDecompressSync],
    ['zstd', zstdDecompressSync],
  ] as const) {
    const packed = await get(port, '/much', { headers: { 'accept-encoding': encoding } })
    assert.equal(packed.headers['content-encoding'], encoding)
    assert.ok(packed.body.length < 1_000)
    assert.equal(unpack(packed.body).toString(), plain.body.toString())
  }
  assert.equal(
    (await get(port, '/healthz/live', { headers: { 'accept-encoding': 'gzip' } })).headers[
      'content-encoding'
    ],
    undefined,
    'small responses stay as they are',
  )
})

test(
  'CORS: caches do not serve a response without an origin to requests that have one',
  { skip: databaseMissing },
  async () => {
    await using site = await testSite({ config: { corsOrigins: ['*'] } })
    await site.request('PUT', '/api/types/note', {
      body: { name: 'note', label: 'Note', fields: [] },
    })
    const [without, withOrigin] = [
      await site.server.inject('/api/content/note'),
      await site.server.inject({
        url: '/api/content/note',
        headers: { origin: 'https://www.example.org' },
      }),
    ]
    assert.deepEqual(
      [
        without.headers['access-control-allow-origin'],
        withOrigin.headers['access-control-allow-origin'],
      ],
      [undefined, '*'],
    )
    for (const response of [without, withOrigin])
      assert.match(String(response.headers['vary']), /Origin/)
  },
)

test(
  'CORS: only named origins, with credentials; preflight without asking who it is',
  { skip: databaseMissing },
  async () => {
    await using site = await testSite({ config: { corsOrigins: ['https://www.example.org'] } })
    const ask = (origin: string, method = 'GET') =>
      site.server.inject({
        method: method as 'GET',
        url: '/api/locales',
        headers: {
          origin,
          ...(method === 'OPTIONS' ? { 'access-control-request-method': 'PUT' } : {}),
        },
      })
    const good = await ask('https://www.example.org')
    assert.equal(good.headers['access-control-allow-origin'], 'https://www.example.org')
    assert.equal(good.headers['access-control-allow-credentials'], 'true')
    assert.match(String(good.headers['vary']), /Origin/)
    assert.equal(
      (await ask('https://evil.example')).headers['access-control-allow-origin'],
      undefined,
    )
    const preflight = await ask('https://www.example.org', 'OPTIONS')
    assert.equal(preflight.statusCode, 204)
    assert.match(String(preflight.headers['access-control-allow-methods']), /PATCH/)
    assert.match(String(preflight.headers['access-control-allow-headers']), /If-Match/)
  },
)
