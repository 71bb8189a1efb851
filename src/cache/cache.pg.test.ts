import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cache } from '#cache/cache.ts'
import type { CacheOptions } from '#cache/cache.ts'
import type { FillContext } from '#cache/fill.ts'
import { ChangeFeed } from '#change-feed/feed.ts'
import { MemoryHub, MemoryClusterLink } from '#test/support/memory-cluster-link.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { CacheOverloadError, DatabaseAwayError } from '#cache/errors.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing
const select = sql<{ n: number }>(`select n from item where id = $1`)
const update = sql(`update item set n = n + 1 where id = $1`)

type Node = { readonly feed: ChangeFeed; readonly cache: Cache }

async function cluster(
  database: Database,
  count: number,
  options: {
    readonly linked: boolean
    readonly leaseMs: number
    readonly cache?: CacheOptions['config']
  },
): Promise<AsyncDisposable & { readonly nodes: readonly Node[] }> {
  await database.run({
    text: `create table item (id int primary key, n int not null, grp int not null default 0)`,
    prepare: 'never',
  })
  await database.run({
    text: `select stoa.attach('item', 'item', '{id}', '{grp}')`,
    prepare: 'never',
  })
  await database.run({
    text: `insert into item select i, 0, i % 2 from generate_series(1, 10) i`,
    prepare: 'never',
  })
  const hub = new MemoryHub()
  const nodes = Array.from({ length: count }, () => {
    const feed = new ChangeFeed({
      database,
      link: options.linked ? new MemoryClusterLink(hub) : null,
      clock: systemClock,
      logger: silentLogger,
      config: { leaseMs: options.leaseMs },
    })
    return {
      feed,
      cache: new Cache({
        feed,
        database,
        ...(options.cache === undefined ? {} : { config: options.cache }),
      }),
    }
  })
  return {
    nodes,
    [Symbol.asyncDispose]: async () => {
      for (const node of nodes) {
        node.cache.close()
        await node.feed.stop()
      }
    },
  }
}

const item =
  (id: number) =>
  async (context: FillContext): Promise<number | null> => {
    const [row] = await context.row('item', String(id)).run(select, [id])
    return row?.n ?? null
  }

test(
  'a value is loaded once, found again, and dropped on every node when its row changes',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    await using made = await cluster(db.database, 2, { linked: true, leaseMs: 5_000 })
    const [one, other] = made.nodes as [Node, Node]
    const first = await Promise.all(
      Array.from({ length: 20 }, async () => other.cache.get('item:1', item(1))),
    )
    assert.ok(first.every((cached) => cached.value === 0))
    assert.equal(other.cache.counts.misses, 1)
    assert.equal((await other.cache.get('item:1', item(1))).state, 'hit')
    const { token } = await one.feed.write(db.database, async (tx) => tx.run(update, [1]))
    assert.deepEqual((await other.cache.get('item:1', item(1), { since: token })).value, 1)
    assert.equal((await other.cache.get('missing', item(99))).value, null)
    const made99 = await one.feed.write(db.database, async (tx) =>
      tx.run(sql(`insert into item values (99, 7)`)),
    )
    assert.equal((await other.cache.get('missing', item(99), { since: made99.token })).value, 7)
  },
)

test(
  'read your writes across nodes without any link, and at rest nothing is stale',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 30 })
    await using made = await cluster(db.database, 3, { linked: false, leaseMs: 600 })
    const { nodes } = made
    let pairs = 0
    const writer = async (id: number): Promise<void> => {
      for (let round = 1; round <= 25; round += 1) {
        const { token } = await nodes[round % 3]!.feed.write(db.database, async (tx) =>
          tx.run(update, [id]),
        )
        for (const node of nodes) {
          const { value } = await node.cache.get(`item:${id}`, item(id), { since: token })
          assert.equal(value, round)
          pairs += 1
        }
      }
    }
    await Promise.all([1, 2, 3, 4].map(writer))
    assert.equal(pairs, 300)
    for (const node of nodes)
      for (const id of [1, 2, 3, 4])
        assert.equal((await node.cache.get(`item:${id}`, item(id))).value, 25)
  },
)

test('a fill that races a write never leaves the old value behind', { skip }, async () => {
  await using db = await testDatabase({ connectionsMax: 20 })
  await using made = await cluster(db.database, 2, { linked: true, leaseMs: 5_000 })
  const [one, other] = made.nodes as [Node, Node]
  // Before the first proof a fill may have to be done again, and this one writes.
  while (!other.cache.leased) await new Promise((resolve) => setTimeout(resolve, 5))
  for (let round = 1; round <= 30; round += 1) {
    const slow = async (context: FillContext): Promise<number | null> => {
      const value = await item(5)(context)
      await one.feed.write(db.database, async (tx) => tx.run(update, [5]))
      return value
    }
    assert.equal((await other.cache.get(`race:${round}`, slow)).value, round - 1)
    const { token } = await one.feed.write(db.database, async (tx) => tx.run(update, [6]))
    assert.equal((await other.cache.get(`race:${round}`, item(5), { since: token })).value, round)
  }
  for (let round = 1; round <= 30; round += 1)
    assert.equal((await other.cache.get(`race:${round}`, item(5))).value, 30)
})

test('lists are dropped by predicate, values made of values with them', { skip }, async () => {
  await using db = await testDatabase({ connectionsMax: 20 })
  await using made = await cluster(db.database, 1, { linked: false, leaseMs: 5_000 })
  const [{ cache, feed }] = made.nodes as [Node]
  const group =
    (grp: number) =>
    async (context: FillContext): Promise<number[]> => {
      const rows = await context
        .list('item', [{ field: 'grp', is: 'eq', value: grp }])
        .run(sql<{ id: number }>(`select id from item where grp = $1 order by id`), [grp])
      return rows.map((row) => row.id)
    }
  const page = async (context: FillContext): Promise<string> =>
    `${await context.get('item:1', item(1))} of ${(await context.get('group:1', group(1))).join()}`
  assert.equal((await cache.get('page', page)).value, '0 of 1,3,5,7,9')
  assert.deepEqual((await cache.get('group:0', group(0))).value, [2, 4, 6, 8, 10])
  const moved = await feed.write(db.database, async (tx) =>
    tx.run(sql(`update item set grp = 2 where id = 3`)),
  )
  assert.equal((await cache.get('page', page, { since: moved.token })).value, '0 of 1,5,7,9')
  assert.equal(
    (await cache.get('group:0', group(0))).state,
    'hit',
    'the other group was not touched',
  )
  await db.database.run({ text: 'truncate item', prepare: 'never' })
  const last = await feed.write(db.database, async () => undefined)
  assert.deepEqual((await cache.get('group:0', group(0), { since: last.token })).value, [])
})

test('a change that cannot be read counts as one of any row', { skip }, async () => {
  await using db = await testDatabase({ connectionsMax: 20 })
  await using made = await cluster(db.database, 1, { linked: false, leaseMs: 5_000 })
  const [{ cache, feed }] = made.nodes as [Node]
  const group = async (context: FillContext): Promise<number> =>
    (await context.list('item', [{ field: 'grp', is: 'eq', value: 1 }]).run(select, [1])).length
  const broken = async (values: string): Promise<void> => {
    const { token } = await feed.write(db.database, async (tx) =>
      tx.run(
        sql(
          `insert into stoa.change (collection, key, operation, fields, row_values)
           values ('item', '3', 'update', '["vgrp"]', $1::text[])`,
        ),
        [`{${values}}`],
      ),
    )
    assert.equal((await cache.get('group', group, { since: token })).state, 'filled')
    assert.equal((await cache.get('group', group)).state, 'hit')
  }
  await cache.get('group', group)
  const { flushes } = cache.counts
  await broken('oops,2')
  await broken('2,oops')
  // Later fills are compared with it too.
  assert.equal((await cache.get('other', group)).state, 'filled')
  assert.equal(cache.counts.flushes, flushes)
})

test(
  'the parts of what is loaded are not turned away by those that wait for them',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    await using made = await cluster(db.database, 1, {
      linked: false,
      leaseMs: 5_000,
      cache: { fillsMax: 4 },
    })
    const [{ cache }] = made.nodes as [Node]
    const whole =
      (id: number) =>
      async (context: FillContext): Promise<string> => {
        const [row] = await context.row('item', String(id)).run(select, [id])
        return `${row?.n} with ${await context.get('shared', item(10))}`
      }
    const found = await Promise.allSettled(
      Array.from({ length: 8 }, async (_, index) =>
        cache.get(`whole:${index + 1}`, whole(index + 1)),
      ),
    )
    assert.deepEqual(
      found.map((one) =>
        one.status === 'fulfilled' ? one.value.value : (one.reason as Error).constructor,
      ),
      [
        ...Array.from({ length: 4 }, () => '0 with 0'),
        ...Array.from({ length: 4 }, () => CacheOverloadError),
      ],
    )
  },
)

test('what is kept counts with its key, and a part as its loader says', { skip }, async () => {
  await using db = await testDatabase({ connectionsMax: 20 })
  await using made = await cluster(db.database, 1, { linked: false, leaseMs: 5_000 })
  const [{ cache }] = made.nodes as [Node]
  await cache.get('short', item(1))
  const { bytes } = cache.counts
  await cache.get('long'.padEnd(8_000, '.'), item(1))
  assert.ok(cache.counts.bytes > bytes * 2 + 7_000, String(cache.counts.bytes))
  const before = cache.counts.bytes
  const part = { bytesOf: (value: { readonly body: Buffer }) => value.body.byteLength }
  await cache.get(
    'whole',
    async (context) => context.get('part', async () => ({ body: Buffer.alloc(10_000) }), part),
    part,
  )
  assert.ok(
    cache.counts.bytes - before < 22_000,
    `${cache.counts.bytes - before} bytes for two of 10,000`,
  )
})

test(
  'while the database is away what is known is served and marked, and nothing needs a restart',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    let away = false
    const gate = async <T>(work: () => Promise<T>): Promise<T> => {
      if (away) throw new DatabaseUnavailableError('The database cannot be reached; try again.')
      return work()
    }
    const database: Database = {
      run: async (statement, values) => gate(async () => db.database.run(statement, values)),
      transaction: async (work) => gate(async () => db.database.transaction(work)),
      session: async (work) =>
        gate(async () =>
          db.database.session(async (session) =>
            work({
              transaction: async (inner) => gate(async () => session.transaction(inner)),
              run: async (statement, values) => gate(async () => session.run(statement, values)),
            }),
          ),
        ),
      checkout: async (work) =>
        gate(async () =>
          db.database.checkout(async (session) =>
            work({
              transaction: async (inner) => gate(async () => session.transaction(inner)),
              run: async (statement, values) => gate(async () => session.run(statement, values)),
            }),
          ),
        ),
      close: async () => undefined,
      usage: () => db.database.usage(),
    }
    await using made = await cluster(database, 1, { linked: false, leaseMs: 300 })
    const [{ cache }] = made.nodes as [Node]
    await cache.get('item:1', item(1))
    away = true
    const deadline = Date.now() + 10_000
    while (cache.leased) {
      assert.ok(Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    const stale = await cache.get('item:1', item(1))
    assert.equal(stale.state, 'stale')
    assert.ok(stale.ageMs >= 300)
    await assert.rejects(cache.get('item:2', item(2)), DatabaseAwayError)
    await db.database.run(update, [1])
    away = false
    while ((await cache.get('item:1', item(1))).state === 'stale') {
      assert.ok(Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    assert.equal((await cache.get('item:1', item(1))).value, 1)
  },
)
