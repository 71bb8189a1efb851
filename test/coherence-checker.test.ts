import assert from 'node:assert/strict'
import { createServer, request as forward } from 'node:http'
import type { IncomingMessage, Server } from 'node:http'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { numbersInDatabase, startCluster } from '#test/support/coherence/cluster.ts'
import { Ledger } from '#test/support/coherence/ledger.ts'
import type { Shown } from '#test/support/coherence/ledger.ts'
import { Workload } from '#test/support/coherence/workload.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const leaseMs = 1_000

function ledger(): Ledger {
  const made = new Ledger({
    leaseMs,
    groups: 2,
    numbers: new Map([
      ['a', 0],
      ['b', 0],
    ]),
  })
  for (const [n, atMs] of [
    [1, 1_000],
    [2, 2_000],
    [3, 5_000],
  ] as const) {
    made.attempts('a', n)
    made.acknowledged('a', n, atMs)
  }
  return made
}

const at = (startMs: number, staleS: number | null = null): Shown => ({
  startMs,
  endMs: startMs + 5,
  staleS,
  node: 'node-1',
})

test('the checker: a reader must see each write that was acknowledged a lease before', () => {
  const good = ledger()
  good.read('a', 1, at(2_900))
  good.read('a', 2, at(5_900))
  good.read('a', 3, at(6_001))
  good.read('a', 1, at(9_000, 8))
  good.read('a', 2, at(5_900), 2)
  good.list(1, new Map([['a', 3]]), at(9_000))
  good.list(0, new Map([['b', 0]]), at(9_000))
  // Within the lease it may be in either list, or in none.
  good.list(0, new Map([['b', 0]]), at(5_100))
  assert.deepEqual(good.violations, [])

  const rules = (look: (bad: Ledger) => void): string[] => {
    const bad = ledger()
    look(bad)
    return bad.violations.map(({ rule }) => rule)
  }
  assert.deepEqual(
    rules((bad) => bad.read('a', 1, at(3_001))),
    ['stale'],
  )
  assert.deepEqual(
    rules((bad) => bad.read('a', 1, at(2_500), 2)),
    ['token'],
  )
  assert.deepEqual(
    rules((bad) => bad.read('a', 2, at(9_000, 2))),
    ['mark'],
  )
  assert.deepEqual(
    rules((bad) => bad.read('a', 4, at(9_000))),
    ['invented'],
  )
  assert.deepEqual(
    rules((bad) => bad.list(1, new Map(), at(9_000))),
    ['list'],
  )
  assert.deepEqual(
    rules((bad) =>
      bad.list(
        0,
        new Map([
          ['a', 3],
          ['b', 0],
        ]),
        at(9_000),
      ),
    ),
    ['list'],
  )
})

test('the checker: what a failover undid may be shown no longer than a lease', () => {
  const book = ledger()
  assert.equal(
    book.survived(
      new Map([
        ['a', 2],
        ['b', 0],
      ]),
      6_000,
    ),
    1,
  )
  book.read('a', 3, at(6_900))
  book.read('a', 2, at(8_000))
  book.read('a', 3, at(9_000, 5))
  assert.deepEqual(book.violations, [])
  book.read('a', 3, at(7_100))
  assert.deepEqual(
    book.violations.map(({ rule }) => rule),
    ['lost'],
  )
})

/**
 * A cache with a fixed term in front of a node, as many a site has: wrong for as long as it keeps
 * a response, token or not.
 */
async function cachingProxy(
  origin: string,
  keepMs: number,
): Promise<AsyncDisposable & { readonly origin: string }> {
  type Kept = {
    readonly status: number
    readonly headers: IncomingMessage['headers']
    readonly body: Buffer
    readonly atMs: number
  }
  const kept = new Map<string, Kept>()
  const server: Server = createServer((request, response) => {
    const key = request.url ?? ''
    const give = ({ status, headers, body }: Kept): void =>
      void response.writeHead(status, { ...headers, 'content-length': body.byteLength }).end(body)
    const known = request.method === 'GET' ? kept.get(key) : undefined
    if (known !== undefined && performance.now() - known.atMs < keepMs) return give(known)
    const onward = forward(
      `${origin}${key}`,
      { method: request.method ?? 'GET', headers: request.headers },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => {
          const made = {
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
            atMs: performance.now(),
          }
          if (request.method === 'GET' && made.status === 200) kept.set(key, made)
          give(made)
        })
      },
    )
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return {
    origin: `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

test(
  'the checker finds a node that keeps responses for a fixed time, and nothing in correct nodes',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using cluster = await startCluster({ urls: [db.url, db.url], entries: 16 })
    await using wrong = await cachingProxy(cluster.nodes[1]!.origin, 3 * leaseMs)
    const common = {
      cluster,
      leaseMs,
      writers: 4,
      readers: 8,
      writePauseMs: 20,
      readPauseMs: 5,
      calm: true,
      repeats: false,
    }

    await using honest = new Workload(common).start()
    await sleep(2_000)
    await honest.stop()
    await honest.atRest(await numbersInDatabase(db.url), 0)
    assert.deepEqual(honest.ledger.violations, [])
    assert.ok(
      honest.ledger.checked > 200 && honest.counts.pairs > 50,
      JSON.stringify(honest.counts),
    )

    await using faulty = new Workload({
      ...common,
      origins: [cluster.nodes[0]!.origin, wrong.origin],
      from: honest,
    }).start()
    await sleep(5_000)
    await faulty.stop()
    await faulty.atRest(await numbersInDatabase(db.url), 0)
    const { ledger: book } = faulty
    for (const rule of ['stale', 'token'] as const)
      assert.ok(book.count(rule) > 0, `${rule}: ${JSON.stringify(book.violations)}`)
    assert.deepEqual(
      book.violations.filter(({ text }) => !text.startsWith('node-2')),
      [],
    )
  },
)
