import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cache } from '#cache/cache.ts'
import { secondLevelContract } from '#cache/contract.ts'
import { MemorySecondLevel } from '#test/support/memory-second-level.ts'
import { RedisSecondLevel } from '#cache/drivers/redis.ts'
import { EnvelopeSeal } from '#cache/envelope.ts'
import type { Codec } from '#cache/envelope.ts'
import type { SecondLevel } from '#cache/second-level.ts'
import { ChangeFeed } from '#change-feed/feed.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { redisMissing, startTestRedis } from '#test/support/redis.ts'
import { startRedisCluster, startSentinels } from '#test/support/redis-topology.ts'

const skip = databaseMissing === false ? redisMissing : databaseMissing

async function connected(level: SecondLevel): Promise<void> {
  for (let tries = 0; !level.connected; tries += 1) {
    assert.ok(tries < 1_000, 'the second level does not connect')
    await sleep(10)
  }
}

/** For the contract: two nodes' views of whatever `start` gives. */
function levelsAt(start: () => Promise<AsyncDisposable & { readonly url: string }>) {
  return async () => {
    const redis = await start()
    const levels = [
      new RedisSecondLevel({ url: redis.url, logger: silentLogger }),
      new RedisSecondLevel({ url: redis.url, logger: silentLogger }),
    ] as const
    await Promise.all(levels.map(connected))
    return {
      levels,
      [Symbol.asyncDispose]: async () => {
        await Promise.all(levels.map((level) => level.close()))
        await redis[Symbol.asyncDispose]()
      },
    }
  }
}

secondLevelContract('memory', {
  skip: false,
  open: async () => {
    const level = new MemorySecondLevel()
    return { levels: [level, level], [Symbol.asyncDispose]: async () => undefined }
  },
})

secondLevelContract('Redis', { skip: redisMissing, open: levelsAt(startTestRedis) })
secondLevelContract('Redis Sentinel', { skip: redisMissing, open: levelsAt(startSentinels) })
secondLevelContract('Redis Cluster', { skip: redisMissing, open: levelsAt(startRedisCluster) })

test(
  'Redis Sentinel: after a failover the level is at the new primary',
  { skip: redisMissing },
  async () => {
    await using sentinels = await startSentinels()
    const level = new RedisSecondLevel({ url: sentinels.url, logger: silentLogger })
    await using closing = new AsyncDisposableStack()
    closing.defer(() => level.close())
    await connected(level)
    await level.put('stoa:k', Buffer.from('before'))
    await sentinels.primary.kill()
    await sentinels.failedOver()
    const deadline = Date.now() + 20_000
    while (String(await level.get('stoa:k')) !== 'after') {
      assert.ok(Date.now() < deadline, 'the level does not find the new primary')
      await level.put('stoa:k', Buffer.from('after'))
      await sleep(20)
    }
  },
)

test(
  'Redis Cluster: a server that dies takes only its own share with it, and comes back',
  { skip: redisMissing },
  async () => {
    await using cluster = await startRedisCluster(['--cluster-require-full-coverage', 'no'])
    const level = new RedisSecondLevel({ url: cluster.url, logger: silentLogger })
    await using closing = new AsyncDisposableStack()
    closing.defer(() => level.close())
    const keys = Array.from({ length: 30 }, (_none, number) => `stoa:${number}`)
    const kept = async (): Promise<number> => {
      let count = 0
      for (const key of keys) {
        await connected(level)
        await level.put(key, Buffer.from('x'))
        await connected(level)
        count += Number((await level.get(key)) !== null)
      }
      return count
    }
    assert.equal(await kept(), keys.length)
    await cluster.servers[2]!.kill()
    const startedMs = performance.now()
    for (const key of keys) await level.get(key)
    assert.ok(performance.now() - startedMs < 2_000, 'reads wait for a server that is away')
    await cluster.servers[2]!.start()
    const deadline = Date.now() + 30_000
    while ((await kept()) < keys.length) assert.ok(Date.now() < deadline, 'it does not come back')
  },
)

test(
  'the level knows its server, and the clusters that share it',
  { skip: redisMissing },
  async () => {
    await using redis = await startTestRedis({ settings: ['--maxmemory', '64mb'] })
    await using closing = new AsyncDisposableStack()
    const levels = ['a1', 'b2'].map((name) => {
      const options = { url: redis.url, identity: async () => name, logger: silentLogger }
      const level = new RedisSecondLevel(options)
      closing.defer(() => level.close())
      return level
    })
    const [one, other] = levels as [RedisSecondLevel, RedisSecondLevel]
    for (const level of levels) await connected(level)
    assert.match(one.server?.version ?? '', /^\d+\./)
    const deadline = Date.now() + 10_000
    while (!(await one.examine()).otherClusters.includes('b2'))
      assert.ok(Date.now() < deadline, 'the other cluster leaves no mark')
    const [mine, theirs] = [await one.examine(), await other.examine()]
    assert.deepEqual([mine.otherClusters, theirs.otherClusters], [['b2'], ['a1']])
    assert.deepEqual([mine.memoryBytesMax, mine.refusesWhenFull], [64 * 1024 ** 2, true])
    assert.equal(mine.serverId, theirs.serverId)
  },
)

type Item = { readonly title: string }
const codec: Codec<Item> = {
  encode: ({ title }) => Buffer.from(title),
  decode: (bytes) => ({ title: bytes.toString() }),
}
const seal = { secret: 'the secret of this cluster', level: '1' }
const select = sql<Item>(`select title from item where id = $1`)

type Node = AsyncDisposable & {
  readonly cache: Cache
  readonly level: RedisSecondLevel
  get(): Promise<{ readonly state: string; readonly title: string | null }>
  write(title: string): Promise<void>
}

async function node(
  database: Database,
  url: string,
  redisUrl: string,
  programLevel = seal.level,
): Promise<Node> {
  const feedDatabase = new PostgresDatabase({
    url,
    connectionsMax: 3,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 5_000,
    logger: silentLogger,
  })
  const feed = new ChangeFeed({
    database: feedDatabase,
    link: null,
    clock: systemClock,
    logger: silentLogger,
  })
  const level = new RedisSecondLevel({ url: redisUrl, logger: silentLogger })
  const cache = new Cache({
    feed,
    database,
    secondLevel: { store: level, ...seal, level: programLevel },
  })
  await connected(level)
  return {
    cache,
    level,
    get: async () => {
      const { state, value } = await cache.get(
        'item:1',
        async (load): Promise<Item> =>
          (await load.row('item', '1').run(select, [1]))[0] ?? { title: '' },
        { codec },
      )
      return { state, title: value.title }
    },
    write: async (title) => {
      const { token } = await feed.write(database, async (tx) =>
        tx.run(sql(`update item set title = $1`), [title]),
      )
      assert.ok(token !== null && (await feed.reached(token, 5_000)))
    },
    [Symbol.asyncDispose]: async () => {
      cache.close()
      await feed.stop()
      await level.close()
      await feedDatabase.close()
    },
  }
}

async function withItem(database: Database): Promise<void> {
  await database.run(sql(`create table item (id int primary key, title text)`))
  await database.run(sql(`insert into item values (1, 'first')`))
  await database.run(sql(`select stoa.attach('item', 'item', '{id}')`))
}

test(
  'what one node has filled, another takes from Redis; what changed since, it does not',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using redis = await startTestRedis()
    await withItem(db.database)
    await using one = await node(db.database, db.url, redis.url)
    await using two = await node(db.database, db.url, redis.url)
    assert.equal((await two.get()).title, 'first')
    await sleep(50)
    assert.deepEqual(await one.get(), { state: 'hit', title: 'first' })
    assert.equal(one.cache.counts.second, 1)
    for (let round = 1; round <= 50; round += 1) {
      await one.write(`title ${round}`)
      const taken = await one.get()
      assert.equal(
        taken.title,
        `title ${round}`,
        'Redis still has the value from before, and it is not believed',
      )
      await sleep(2)
    }
  },
)

test('nodes of two versions on one Redis take no value of each other', { skip }, async () => {
  await using db = await testDatabase()
  await using redis = await startTestRedis()
  await withItem(db.database)
  await using old = await node(db.database, db.url, redis.url, '1')
  await using newer = await node(db.database, db.url, redis.url, '2')
  await using newToo = await node(db.database, db.url, redis.url, '2')
  for (let round = 0; round < 8; round += 1) {
    await old.write(`title ${round}`)
    for (const one of [old, newer, newToo]) {
      // Without a link each node finds the write within its lease.
      const deadline = Date.now() + 10_000
      while ((await one.get()).title !== `title ${round}`) {
        assert.ok(Date.now() < deadline, 'a write is not seen')
        await sleep(20)
      }
    }
  }
  assert.equal(old.cache.counts.second, 0)
  assert.ok(newToo.cache.counts.second > 0, 'nodes of one version share')
})

test(
  'two installations on one server and one Redis are isolated, a copy with the same secret too',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using redis = await startTestRedis()
    await withItem(db.database)
    await db.database.run(sql(`select stoa.begin_epoch()`))
    await db.database.run(sql(`select stoa.begin_epoch()`))
    await using copy = await testDatabase({ copyOf: db })
    await using other = await testDatabase()
    await withItem(other.database)
    await copy.database.run(sql(`update item set title = 'the copy'`))
    await other.database.run(sql(`update item set title = 'the other'`))
    await using one = await node(db.database, db.url, redis.url)
    await using two = await node(copy.database, copy.url, redis.url)
    await using three = await node(other.database, other.url, redis.url)
    assert.equal((await one.get()).title, 'first')
    await sleep(50)
    assert.equal((await two.get()).title, 'the copy')
    assert.equal((await three.get()).title, 'the other')
    for (const { cache } of [two, three]) assert.equal(cache.counts.second, 0)
    const epochs = await Promise.all(
      [db, copy, other].map(async ({ database }) => {
        const [row] = await database.run(sql<{ epoch: string }>(`select epoch from stoa.life`))
        return row!.epoch
      }),
    )
    assert.equal(new Set(epochs.map((epoch) => epoch.split('.')[0])).size, 3, epochs.join(' '))
  },
)

test(
  'Redis may go and come back, empty or with old values: reads stay right and do not wait',
  { skip },
  async () => {
    await using db = await testDatabase()
    await using redis = await startTestRedis()
    await withItem(db.database)
    await using one = await node(db.database, db.url, redis.url)
    await one.get()
    await redis.stop()
    await one.write('while Redis is away')
    const startedMs = performance.now()
    assert.equal((await one.get()).title, 'while Redis is away')
    assert.ok(performance.now() - startedMs < 2_000)
    assert.deepEqual(one.cache.missing, { replica: false, secondLevel: true })
    await redis.start()
    await connected(one.level)
    assert.equal(one.cache.missing.secondLevel, false)
    await one.write('back')
    assert.equal((await one.get()).title, 'back')
    // A restored copy of long ago: whatever it holds for this key.
    const strange = new RedisSecondLevel({ url: redis.url, logger: silentLogger })
    await connected(strange)
    await using two = await node(db.database, db.url, redis.url)
    await sleep(50)
    for (const bytes of [
      Buffer.from('nonsense'),
      Buffer.alloc(0),
      Buffer.from([0, 0, 0, 2, 123, 125, 1]),
    ]) {
      const [row] = await db.database.run(sql<{ epoch: string }>(`select epoch from stoa.life`))
      await strange.put(new EnvelopeSeal(seal).placeOf(row!.epoch, 'item:1'), bytes)
      assert.equal((await two.get()).title, 'back')
      await one.write('back')
      await sleep(20)
    }
    await strange.close()
  },
)

test(
  'a Redis that hangs is waited for once in a while, and not fed',
  { skip: redisMissing },
  async () => {
    await using redis = await startTestRedis()
    const level = new RedisSecondLevel({ url: redis.url, logger: silentLogger })
    try {
      await connected(level)
      await level.put('known', Buffer.from('x'))
      redis.hang()
      const big = Buffer.alloc(1024 * 1024)
      for (let at = 0; at < 100; at += 1) void level.put(`big ${at}`, big)
      const startedMs = performance.now()
      for (let at = 0; at < 100; at += 1) assert.equal(await level.get('known'), null)
      assert.ok(performance.now() - startedMs < 2_500, 'a hundred deadlines are five seconds')
      assert.equal(level.connected, false)
      redis.goOn()
      let came = 0
      for (let at = 0; at < 100; at += 1) {
        await connected(level)
        came += Number((await level.get(`big ${at}`)) !== null)
      }
      assert.ok(came > 0 && came <= 16, `${came} of a hundred megabytes were on their way at once`)
    } finally {
      redis.goOn()
      await level.close()
    }
  },
)
