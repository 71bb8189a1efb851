import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { Type } from 'typebox'
import type { Access, Identity } from '#access/access.ts'
import type { RoutePlugin, Server } from '#api/api-context.ts'
import { write } from '#api/writes/idempotency.ts'
import { strict } from '#api/schemas/shared.ts'
import { createServer } from '#api/server.ts'
import type { ServerOptions } from '#api/server.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { sql } from '#database/database.ts'
import { closingCluster, testCluster } from '#test/support/cluster-parts.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import type { TestDatabase } from '#test/support/database.ts'

const anonymous = {
  authority: {
    actor: { kind: 'anonymous', id: null, name: 'anonymous' },
    grant: () => null,
    key: 'anonymous',
  },
  csrfToken: null,
  rightsHash: 'anonymous',
} as unknown as Identity

const sample: RoutePlugin = (server, { database }) => {
  server.route({
    method: 'POST',
    url: '/sample/:name',
    config: { access: 'public' },
    schema: {
      operationId: 'postSample',
      params: strict({ name: Type.String() }),
      querystring: strict({ n: Type.Optional(Type.Integer()) }),
      body: strict({ text: Type.Union([Type.String(), Type.Null()]) }),
      response: { 201: strict({ said: Type.String() }) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        if (request.body.text === 'fail') throw new Error('secret of the inside')
        await db.run(sql(`insert into stoa.content_type (name, definition) values ($1, '{}')`), [
          request.params.name,
        ])
        return { status: 201, body: { said: request.body.text, n: request.query.n } }
      }),
  })
  void database
}

async function sampleServer(
  db: TestDatabase,
  plugins: readonly RoutePlugin[] = [sample],
): Promise<Server> {
  const access = { identify: async () => anonymous } as unknown as Access
  const cluster = testCluster(db)
  try {
    return await createServer({
      database: db.database,
      cluster,
      secret: 'a secret of a test',
      content: {},
      media: {},
      access,
      logger: silentLogger,
      clock: systemClock,
      plugins: [closingCluster(cluster), ...plugins],
    } as unknown as ServerOptions)
  } catch (error) {
    await cluster[Symbol.asyncDispose]()
    throw error
  }
}

test('responds, refuses and says why', { skip: databaseMissing }, async () => {
  await using db = await testDatabase()
  const server = await sampleServer(db)
  const ready = await server.inject('/healthz/ready')
  assert.equal(ready.statusCode, 200, ready.body)
  assert.equal(ready.json().parts.database.state, 'up')
  const nowhere = await server.inject({ url: '/nowhere', headers: { 'x-request-id': 'abc-1' } })
  assert.equal(nowhere.statusCode, 404)
  assert.equal(nowhere.json().code, 'E_ROUTE_NOT_FOUND')
  assert.equal(nowhere.json().requestId, 'abc-1')
  assert.equal(nowhere.headers['x-request-id'], 'abc-1')
  const wrong = await server.inject({ method: 'DELETE', url: '/healthz/live' })
  assert.equal(wrong.statusCode, 405)
  assert.equal(wrong.headers['allow'], 'GET, HEAD, OPTIONS')
  const head = await server.inject({ method: 'HEAD', url: '/healthz/live' })
  assert.equal(head.statusCode, 200)
  assert.equal(head.body, '')
  const options = await server.inject({ method: 'OPTIONS', url: '/sample/a' })
  assert.equal(options.statusCode, 204)
  assert.equal(options.headers['allow'], 'POST, OPTIONS')
  const bad = await server.inject({
    method: 'POST',
    url: '/sample/a',
    headers: { 'content-type': 'application/json' },
    payload: '{"text": oops}',
  })
  assert.equal(bad.statusCode, 400)
  assert.equal(bad.json().code, 'E_JSON_MALFORMED')
  assert.equal(bad.json().position, 9)
  const extra = await server.inject({
    method: 'POST',
    url: '/sample/a?m=1',
    payload: { text: null },
  })
  assert.deepEqual(extra.json().faults, [{ in: 'query', path: '/m', message: 'is not known here' }])
  const secret = await server.inject({
    method: 'POST',
    url: '/sample/a',
    payload: { text: 'fail' },
  })
  assert.equal(secret.statusCode, 500)
  assert.doesNotMatch(secret.body, /secret/)
  const xml = await server.inject({
    method: 'POST',
    url: '/sample/a',
    headers: { 'content-type': 'text/xml' },
    payload: '<a/>',
  })
  assert.equal(xml.statusCode, 415)
  assert.equal((await server.inject('/%zz')).statusCode, 400)
  await server.close()
})

test('one Idempotency-Key, one effect', { skip: databaseMissing }, async () => {
  await using db = await testDatabase()
  const server = await sampleServer(db)
  const post = (url: string, key: string, text: string) =>
    server.inject({ method: 'POST', url, headers: { 'idempotency-key': key }, payload: { text } })
  const responses = await Promise.all(
    Array.from({ length: 8 }, () => post('/sample/a?n=1', 'k1', 'x')),
  )
  assert.deepEqual(
    responses.map((response) => response.statusCode),
    Array.from({ length: 8 }, () => 201),
    responses[1]?.body,
  )
  assert.deepEqual(
    new Set(responses.map((response) => response.body)),
    new Set(['{"said":"x","n":1}']),
  )
  assert.equal(
    responses.filter((response) => response.headers['idempotency-replayed'] === 'true').length,
    7,
  )
  const other = await post('/sample/b', 'k1', 'x')
  assert.equal(other.statusCode, 422)
  assert.equal(other.json().code, 'E_IDEMPOTENCY_KEY_REUSED')
  assert.equal((await post('/sample/c', 'k2', 'fail')).statusCode, 500)
  const kept = await db.database.run(
    sql<{ request_hash: string }>(`select request_hash from stoa.idempotency`),
  )
  assert.equal(kept.length, 1, 'a failure is not kept')
  const guess = JSON.stringify(['POST', '/sample/a?n=1', '', '{"text":"x"}'])
  const guessed = createHash('sha256').update(guess).digest('base64url')
  assert.notEqual(kept[0]!.request_hash, guessed, 'a dump does not let a body be guessed')
  await server.close()
})

test(
  'two writes under keys that lock each other out both take effect',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    const bothLocked = Promise.withResolvers<void>()
    let locked = 0
    const crossing: RoutePlugin = (server) => {
      server.route({
        method: 'POST',
        url: '/crossing/:first/:second',
        config: { access: 'public' },
        schema: {
          operationId: 'postCrossing',
          params: strict({ first: Type.Integer(), second: Type.Integer() }),
          querystring: strict({}),
          response: { 200: strict({}) },
        },
        handler: (request, reply) =>
          write(request, reply, async (tx) => {
            const lock = sql<object>(`select pg_advisory_xact_lock($1)`)
            await tx.run(lock, [request.params.first])
            locked += 1
            if (locked === 2) bothLocked.resolve()
            await bothLocked.promise
            await tx.run(lock, [request.params.second])
            return { status: 200, body: {} }
          }),
      })
    }
    const server = await sampleServer(db, [crossing])
    const post = (url: string, key: string) =>
      server.inject({ method: 'POST', url, headers: { 'idempotency-key': key } })
    const responses = await Promise.all([post('/crossing/1/2', 'a'), post('/crossing/2/1', 'b')])
    assert.deepEqual(
      responses.map((response) => response.statusCode),
      [200, 200],
      responses.map((response) => response.body).join(),
    )
    await server.close()
  },
)

test(
  'a route that does not say who may use it stops the server',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    const careless: RoutePlugin = (server) => {
      server.get('/careless', () => 'hello')
    }
    await assert.rejects(sampleServer(db, [careless]), /does not say in config\.access/)
  },
)
