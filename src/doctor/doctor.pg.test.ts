import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { RedisSecondLevel } from '#cache/drivers/redis.ts'
import { RedisClusterLink } from '#cluster-link/drivers/redis.ts'
import { sql } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { check } from '#doctor/check.ts'
import type { Surroundings } from '#doctor/check.ts'
import { checks } from '#doctor/checks.ts'
import { diagnose } from '#doctor/doctor.ts'
import { silentLogger } from '#lib/logger.ts'
import { checkFileStore, claimFileStore } from '#node/file-store-check.ts'
import { readStandbys } from '#node/drivers.ts'
import { Nodes } from '#nodes/nodes.ts'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import { systemClock } from '#lib/clock.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { configWith, decided, found, testSurroundings, textsOf } from '#test/support/doctor.ts'
import { until } from '#test/support/link-survival.ts'
import { temporaryFolder } from '#test/support/node.ts'
import { pgbouncerMissing, startPgbouncer } from '#test/support/pgbouncer.ts'
import { PostgresServer, replicationMissing } from '#test/support/postgres-server.ts'
import { redisMissing, startTestRedis } from '#test/support/redis.ts'

const skip = databaseMissing

function databaseAt(url: string, directUrl: string | null = null): PostgresDatabase {
  return new PostgresDatabase({
    url,
    directUrl,
    connectionsMax: 4,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 5_000,
    logger: silentLogger,
  })
}

test('settings of the server that lose or damage data are found', { skip }, async () => {
  // The databases of tests are quick, and so have these faults.
  await using db = await testDatabase()
  const here = testSurroundings({ database: db.database })
  assert.match((await found('durability', here))[0] ?? '', /^error: .*fsync, full_page_writes off/)
  const name = new URL(db.url).pathname.slice(1)
  for (const [value, count] of [
    ['off', 1],
    ['on', 0],
  ] as const) {
    await db.database.run(
      sql(`alter database "${name}" set synchronous_commit = ${value}`, 'never'),
    )
    const database = databaseAt(db.url)
    assert.equal((await found('commits', testSurroundings({ database }))).length, count)
    await database.close()
  }
})

test('connections that the server does not have are found', { skip }, async () => {
  await using db = await testDatabase()
  const here = testSurroundings({ database: db.database })
  assert.deepEqual(await found('connections', here), [])
  const config = configWith({ STOA_DATABASE_CONNECTIONS: '900' })
  const [text = ''] = await found('connections', { ...here, config })
  assert.match(text, /^warning: The nodes may open 900 .*\(max_connections 300, 3 reserved/)
})

test('triggers of the change feed that are off or gone are found', { skip }, async () => {
  await using db = await testDatabase()
  const here = testSurroundings({ database: db.database })
  assert.deepEqual(await found('recording', here), [])
  await db.database.run(sql(`alter table stoa.asset disable trigger stoa_change_update`))
  await db.database.run(sql(`drop trigger stoa_change_insert on stoa.role`))
  const [text = ''] = await found('recording', here)
  assert.match(text, /^error: Not recorded, (?=.*stoa\.asset)(?=.*stoa\.role)/)
})

test('a collation that an upgrade of the system changed is found', { skip }, async () => {
  await using db = await testDatabase()
  const here = testSurroundings({ database: db.database })
  assert.deepEqual(await found('collation', here), [])
  await db.database.run(sql(`create collation stoa.old (provider = icu, locale = 'de')`, 'never'))
  await db.database.run(sql(`create table stoa.sorted (name text collate stoa.old)`, 'never'))
  await db.database.run(
    sql(`update pg_collation set collversion = '1' where collname = 'old'`, 'never'),
  )
  assert.match((await found('collation', here))[0] ?? '', /^error: The sort order of collation old/)
})

test('a type that is not upgraded, and a job that is parked, are found', { skip }, async () => {
  await using db = await testDatabase()
  const here = testSurroundings({ database: db.database })
  assert.deepEqual([await found('types', here), await found('jobs', here)], [[], []])
  await db.database.run(
    sql(`insert into stoa.content_type (name, definition, updated_at)
      values ('note', '{"fields": {}}', now() - interval '1 hour')`),
  )
  assert.match((await found('types', here))[0] ?? '', /^warning: Not up to date .* entries of note/)
  await db.database.run(
    sql(`insert into stoa.job (kind, payload, state) values ('webhook', 'null', 'parked')`),
  )
  assert.match((await found('jobs', here))[0] ?? '', /^warning: 1 job of the kind webhook/)
})

test('settings that differ between nodes are named with the nodes', { skip }, async () => {
  await using db = await testDatabase()
  await using closing = new AsyncDisposableStack()
  for (const [name, lease] of [
    ['one', 'a'],
    ['two', 'b'],
    ['three', 'a'],
  ] as const)
    closing.use(
      new Nodes({
        database: db.database,
        info: {
          name,
          address: null,
          version: '1',
          fingerprint: lease,
          traits: { 'setting.leaseMs': lease, 'setting.cacheUrl': 'same', files: name },
        },
        clock: systemClock,
        logger: silentLogger,
      }),
    )
  const here = testSurroundings({ database: db.database })
  const deadline = Date.now() + 10_000
  let texts: string[] = []
  while (!/one.*three|three.*one/.test(texts[0] ?? '') || texts.length !== 1) {
    assert.ok(Date.now() < deadline, texts.join('\n'))
    texts = await found('settings', here)
  }
  assert.match(texts[0] ?? '', /^warning: The setting leaseMs differs: .* \/ /)
})

test(
  'a synchronous standby that is away, and standbys that are none, are found',
  { skip: replicationMissing },
  async () => {
    await using primary = await PostgresServer.primary()
    await using standby = await PostgresServer.standbyOf(primary)
    await using stranger = await PostgresServer.primary()
    await using closing = new AsyncDisposableStack()
    const database = databaseAt(primary.url)
    closing.defer(() => database.close())
    const here = testSurroundings({ database })
    const reading = (...urls: readonly string[]): Surroundings => {
      const hosts = urls.map((url) => new URL(url).host).join(',')
      const config = configWith({ STOA_DATABASE_READ_URL: `postgres://postgres@${hosts}/postgres` })
      return { ...here, standbys: () => readStandbys(config) }
    }
    assert.deepEqual(await found('synchronous-standby', here), [])
    const [feedback = ''] = await found('standbys', reading(standby.url))
    assert.match(feedback, /^warning: .*without hot_standby_feedback/)
    await standby.query('alter system set hot_standby_feedback = on')
    await standby.query('select pg_reload_conf()')
    let texts = ['?']
    for (let round = 0; texts.length > 0 && round < 50; round += 1)
      texts = await found('standbys', reading(standby.url))
    assert.deepEqual(texts, [])
    const [role = ''] = await found('standbys', reading(primary.url))
    assert.match(role, /^warning: .*is a primary, not a standby/)
    const others = await found('standbys', reading(stranger.url))
    assert.match(others.join('\n'), /error: .*belongs to another database server/)
    await primary.commitOnlyWithStandby()
    await standby.stop()
    const deadline = Date.now() + 15_000
    while ((await found('synchronous-standby', here)).length === 0)
      assert.ok(Date.now() < deadline, 'not found')
    assert.match(
      (await found('synchronous-standby', here))[0] ?? '',
      /^error: Commits wait for a synchronous standby/,
    )
    const [away = ''] = await found('standbys', reading(standby.url))
    assert.match(away, /^warning: .*cannot be used: .*ECONNREFUSED/)
  },
)

test('two databases behind one node are found', { skip }, async () => {
  await using db = await testDatabase()
  await using other = await testDatabase()
  await using closing = new AsyncDisposableStack()
  const right = databaseAt(db.url, db.url)
  const wrong = databaseAt(db.url, other.url)
  for (const one of [right, wrong]) closing.defer(() => one.close())
  assert.deepEqual(await found('direct-url', testSurroundings({ database: right })), [])
  assert.match(
    (await found('direct-url', testSurroundings({ database: wrong })))[0] ?? '',
    /^error: .* lead to two databases/,
  )
})

test(
  'a pooler in transaction mode without sessions or deadlines is found',
  { skip: pgbouncerMissing || skip },
  async () => {
    await using db = await testDatabase()
    await using pooler = await startPgbouncer(db.url, 3)
    await using closing = new AsyncDisposableStack()
    const alone = databaseAt(pooler.url)
    const good = databaseAt(pooler.url, db.url)
    for (const one of [alone, good]) closing.defer(() => one.close())
    const [refused = ''] = await found('sessions', testSurroundings({ database: alone }))
    assert.match(refused, /^error: There are no sessions of the server: .*pooler/)
    const here = testSurroundings({ database: good })
    assert.deepEqual(await found('sessions', here), [])
    assert.match((await found('statement-deadline', here))[0] ?? '', /have no deadline/)
    assert.deepEqual(await found('idle-transactions', here), [])
    const user = new URL(db.url).username
    await db.database.run(
      sql(
        `alter role "${user}" in database "${new URL(db.url).pathname.slice(1)}"
         set idle_in_transaction_session_timeout = '5s'`,
        'never',
      ),
    )
    await using fresh = await startPgbouncer(db.url, 3)
    const short = databaseAt(fresh.url, db.url)
    closing.defer(() => short.close())
    assert.match(
      (await found('idle-transactions', testSurroundings({ database: short })))[0] ?? '',
      /idle for 5000 ms/,
    )
  },
)

test('files that are not those of the database are found', { skip }, async () => {
  await using db = await testDatabase()
  await using folder = await temporaryFolder()
  await using empty = await temporaryFolder()
  const storeIn = (path: string) =>
    new DiskFileStore({ folder: path, mayCreateFolder: false, clock: systemClock })
  const { database } = db
  await claimFileStore({ database, fileStore: storeIn(folder.path) })
  const at = (path: string): Surroundings => ({
    ...testSurroundings({ database }),
    checkFiles: () => checkFileStore({ database, fileStore: storeIn(path) }),
  })
  assert.deepEqual(await found('files', at(folder.path)), [])
  assert.match((await found('files', at(empty.path)))[0] ?? '', /^error: .*which is empty/)
})

test(
  'Redis that is away, shared with another cluster or full is found',
  { skip: skip || redisMissing },
  async () => {
    await using db = await testDatabase()
    await using redis = await startTestRedis({
      settings: '--maxmemory 64mb --maxmemory-policy allkeys-lru'.split(' '),
    })
    await using closing = new AsyncDisposableStack()
    const options = { url: redis.url, logger: silentLogger }
    const level = new RedisSecondLevel({ ...options, identity: async () => 'a1' })
    const link = new RedisClusterLink({ ...options, identity: async () => 'a1' })
    closing.defer(() => level.close())
    closing.defer(() => link.close())
    await until(() => level.connected && link.connected, 10_000, 'not connected')
    const config = configWith({ STOA_LINK_URL: redis.url })
    const here = testSurroundings({ database: db.database, secondLevel: level, link, config })
    const all = async (): Promise<string[]> =>
      (
        await Promise.all(['link', 'link-shared', 'second-level'].map((name) => found(name, here)))
      ).flat()
    assert.deepEqual(await all(), [])

    const otherLevel = new RedisSecondLevel({ ...options, identity: async () => 'b2' })
    const otherLink = new RedisClusterLink({ ...options, identity: async () => 'b2' })
    closing.defer(() => otherLevel.close())
    closing.defer(() => otherLink.close())
    await until(() => otherLevel.connected && otherLink.connected, 10_000, 'not connected')
    const shared = (await all()).join('\n')
    assert.match(shared, /Other clusters use the server of STOA_LINK_URL: b2/)
    assert.match(shared, /Other clusters use the server of STOA_CACHE_URL: b2/)

    await using full = await startTestRedis({ settings: ['--maxmemory', '64mb'] })
    const refusing = new RedisSecondLevel({ url: full.url, logger: silentLogger })
    closing.defer(() => refusing.close())
    await until(() => refusing.connected, 10_000, 'not connected')
    const [noeviction = ''] = await found('second-level', { ...here, secondLevel: refusing })
    assert.match(noeviction, /refuses new values when it is full/)
    const [one, two] = await Promise.all([level, refusing].map((each) => each.examine()))
    assert.match(
      decided('second-level', {
        one: { state: 'there', examined: { ...one, otherClusters: [] } },
        two: { state: 'there', examined: { ...two, refusesWhenFull: false } },
      }).join('\n'),
      /^warning one,two: The nodes use 2 different servers/,
    )

    await redis.kill()
    await until(() => !level.connected && !link.connected, 10_000, 'still connected')
    const away = (await all()).join('\n')
    assert.match(away, /Cluster Link does not reach the server of STOA_LINK_URL/)
    assert.match(away, /The server of STOA_CACHE_URL is not reached/)
  },
)

const inspectMachine = `
  const { checks } = await import('#doctor/checks.ts')
  const facts = {}
  for (const name of ['memory', 'file-descriptors'])
    facts[name] = await checks.find((one) => one.name === name).inspect({})
  console.log(JSON.stringify(facts))`

test('few file descriptors are found in a process that has few', { skip: skip }, async () => {
  const script = `ulimit -n 512; exec "${process.execPath}" --input-type=module -e "$CODE"`
  const { stdout } = await promisify(execFile)('sh', ['-c', script], {
    env: { ...process.env, CODE: inspectMachine },
  })
  const facts = JSON.parse(stdout) as Record<string, unknown>
  assert.match(
    decided('file-descriptors', { one: facts['file-descriptors'] }).join('\n'),
    /may have 512 files/,
  )
})

test('a heap above the limit of the container, a full disk and a wrong clock are found', () => {
  const gibibyte = 1024 ** 3
  const memory = (heapBytes: number, limitBytes: number) =>
    decided('memory', { one: { heapBytes, limitBytes } })
  assert.match(memory(2 * gibibyte, gibibyte)[0] ?? '', /may use 1024 MiB.* 2048 MiB/)
  assert.deepEqual([memory(gibibyte, 2 * gibibyte), memory(4 * gibibyte, 0)], [[], []])
  const disk = (freeBytes: number) =>
    decided('disk-space', {
      one: { disks: [{ folder: '/data', freeBytes, allBytes: 100 * gibibyte }] },
    })
  assert.match(disk(gibibyte)[0] ?? '', /^warning one: \/data has 1024 MiB free/)
  assert.deepEqual(disk(20 * gibibyte), [])
  assert.deepEqual(
    decided('clock', { one: { skewMs: 20 }, two: { skewMs: -700 }, three: { skewMs: 5_000 } }),
    [
      `warning two: Its clock is 700 ms behind the database's.`,
      `error three: Its clock is 5000 ms ahead of the database's.`,
    ],
  )
})

test('a clock that is off is found by comparing it with the database', { skip }, async () => {
  await using db = await testDatabase()
  const skewed = { ...systemClock, nowMs: () => systemClock.nowMs() + 7_000 }
  await using node = new Nodes({
    database: db.database,
    info: { name: 'one', address: null, version: '1', fingerprint: '' },
    clock: skewed,
    logger: silentLogger,
  })
  await until(() => node.clockSkewMs > 1_000, 10_000, 'the skew is not measured')
  const here = testSurroundings({ database: db.database })
  const [text = ''] = await found('clock', { ...here, clockSkewMs: async () => node.clockSkewMs })
  assert.match(text, /^error: Its clock is (69|70)\d\d ms ahead/)
})

test('loopback addresses are found where there are several machines, and only there', () => {
  const at = (machine: string, address: string, named = '10.0.0.1') => ({
    machine,
    host: machine,
    address,
    named,
  })
  assert.deepEqual(
    decided('addresses', { one: at('m1', '127.0.0.1:4000'), two: at('m1', '127.0.0.1:4001') }),
    [],
  )
  const texts = decided('addresses', {
    one: at('m1', '127.0.0.1:4000'),
    two: at('m2', '10.0.0.2:4000'),
    three: at('m3', 'm3:4000', '127.0.1.1'),
  }).join('\n')
  assert.match(texts, /warning one: The nodes are on several machines/)
  assert.match(texts, /warning three: The name m3, .* leads to 127\.0\.0\.1/)
})

test('nodes that follow two epochs are found', () => {
  const follow = (followed: string | null) => ({ followed })
  assert.deepEqual(decided('epoch', { one: follow('a.1.1'), two: follow('a.1.1') }), [])
  assert.match(
    decided('epoch', { one: follow('a.1.1'), two: follow('a.2.2'), new: follow(null) })[0] ?? '',
    /^error one,two: The nodes follow two epochs/,
  )
})

test('a check that hangs or fails is reported, and stops no other', { skip }, async () => {
  await using db = await testDatabase()
  const hanging = check<null>({
    name: 'hanging',
    looksAt: 'nothing',
    where: 'node',
    inspect: () => new Promise(() => undefined),
    evaluate: () => assert.fail('it has no facts'),
  })
  const failing = check<null>({
    name: 'failing',
    looksAt: 'nothing',
    where: 'once',
    inspect: async () => {
      throw new Error('it failed')
    },
    evaluate: () => assert.fail('it has no facts'),
  })
  const startedMs = performance.now()
  const { findings } = await diagnose({
    checks: [hanging, failing, ...checks],
    here: testSurroundings({ database: db.database }),
    name: 'one',
    ask: () => new Promise(() => undefined),
  })
  const elapsedMs = performance.now() - startedMs
  assert.ok(elapsedMs < 10_000, `${Math.round(elapsedMs)} ms`)
  const texts = textsOf(findings).join('\n')
  assert.match(texts, /Not examined \(hanging\): it took longer than 6.5 s/)
  assert.match(texts, /Not examined \(failing\): it failed/)
  assert.match(texts, /The nodes could not be asked/)
  assert.match(texts, /fsync/)
})
