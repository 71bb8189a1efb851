import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { Change } from '#change-feed/change.ts'
import { ChangeFeed } from '#change-feed/feed.ts'
import type { FeedNews } from '#change-feed/feed.ts'
import { runBeat, runBeginEpoch, runPoll, runTrim } from '#change-feed/poll.ts'
import { visible } from '#change-feed/snapshot.ts'
import { MemoryHub, MemoryClusterLink } from '#test/support/memory-cluster-link.ts'
import { compareEpochs } from '#change-feed/epoch.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { migrate } from '#database/migrate.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing, startTestPostgres, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing

async function plain(database: Database, text: string): Promise<void> {
  await database.run({ text, prepare: 'never' })
}

async function withTable(database: Database): Promise<void> {
  await plain(database, `create table item (id int primary key, grp int, name text, extra jsonb)`)
  await plain(database, `select stoa.attach('item', 'item', '{id}', '{grp,name}', 'extra')`)
}

async function until(what: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000
  while (!what()) {
    assert.ok(Date.now() < deadline, 'it did not happen in time')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test(
  'more than can be read within the deadline is flushed, not asked for again and again',
  { skip },
  async () => {
    await using db = await testDatabase()
    const { database } = db
    await plain(database, `create table item (id int primary key, text text)`)
    await plain(database, `select stoa.attach('item', 'item', '{id}', '{text}')`)
    const news: FeedNews[] = []
    const polling = new PostgresDatabase({
      url: db.url,
      connectionsMax: 3,
      statementTimeoutMs: 150,
      connectTimeoutMs: 5_000,
      logger: silentLogger,
    })
    const feed = new ChangeFeed({
      database: polling,
      link: null,
      clock: systemClock,
      logger: silentLogger,
      config: { pollTimeoutMs: 150, changesMax: 1_000 },
    })
    feed.subscribe((one) => news.push(one))
    try {
      await until(() => feed.state.cursor !== null)
      await plain(
        database,
        `insert into item select i, repeat('x', 100000) from generate_series(1, 900) i`,
      )
      await until(() => news.some(({ kind }) => kind === 'lost'))
      await until(() => news.some((one) => one.kind === 'flush' && one.reason === 'too many'))
      await plain(database, `update item set text = 'y' where id = 1`)
      await until(() =>
        news.some((one) => one.kind === 'apply' && one.changes.some(({ key }) => key === '1')),
      )
    } finally {
      await feed.stop()
      await polling.close()
    }
  },
)

test('the triggers record every way to change a row', { skip }, async () => {
  await using db = await testDatabase()
  const { database } = db
  await runBeginEpoch(database)
  await withTable(database)
  let { snapshot } = await runPoll(database, null, 100)
  const recorded = async (text: string): Promise<unknown[]> => {
    await plain(database, text)
    const result = await runPoll(database, snapshot, 100)
    snapshot = result.snapshot
    return result.changes.map(({ operation, key, before, after, collection }) => [
      collection,
      operation,
      key,
      before,
      after,
    ])
  }
  assert.deepEqual(
    await recorded(`insert into item values (1, 10, 'a', '{"tag": ["x"]}'), (2, 20, null, null)`),
    [
      ['item', 'insert', '1', null, { grp: 10, name: 'a', tag: ['x'] }],
      ['item', 'insert', '2', null, { grp: 20, name: null }],
    ],
  )
  assert.deepEqual(await recorded(`update item set grp = 11 where id = 1`), [
    ['item', 'update', '1', { grp: 10, name: 'a', tag: ['x'] }, { grp: 11, name: 'a', tag: ['x'] }],
  ])
  assert.deepEqual(
    new Set((await recorded(`update item set id = 3 where id = 2`)).map(String)),
    new Set(['item,delete,2,[object Object],', 'item,insert,3,,[object Object]']),
  )
  assert.deepEqual(
    await recorded(
      `insert into item values (3, 21) on conflict (id) do update set grp = excluded.grp`,
    ),
    [['item', 'update', '3', { grp: 20, name: null }, { grp: 21, name: null }]],
  )
  assert.deepEqual(await recorded(`begin; delete from item where id = 3; rollback`), [])
  assert.deepEqual(await recorded(`delete from item where id = 3`), [
    ['item', 'delete', '3', { grp: 21, name: null }, null],
  ])
  assert.deepEqual(
    await recorded(
      `set session_replication_role = replica; update item set grp = 12;
       set session_replication_role = origin`,
    ),
    [
      [
        'item',
        'update',
        '1',
        { grp: 11, name: 'a', tag: ['x'] },
        { grp: 12, name: 'a', tag: ['x'] },
      ],
    ],
  )
  assert.deepEqual(
    await recorded(`update item set name = E'"\\\\\\n}', extra = '{}' where id = 1`),
    [['item', 'update', '1', { grp: 12, name: 'a', tag: ['x'] }, { grp: 12, name: '"\\\n}' }]],
  )
  assert.deepEqual(
    await recorded(`select stoa.attach('item', 'item', '{id}', '{grp,name}', 'extra')`),
    [],
    'attached as it was already',
  )
  assert.deepEqual(await recorded(`select stoa.attach('item', 'item', '{id}', '{grp}')`), [
    ['item', 'flush', null, null, null],
  ])
  assert.deepEqual(await recorded(`truncate item`), [['item', 'flush', null, null, null]])
  assert.deepEqual(await recorded(`select stoa.detach('item'); insert into item values (9)`), [])
})

test('times are recorded as milliseconds, whatever the zone of the writer', { skip }, async () => {
  await using db = await testDatabase()
  const { database } = db
  await runBeginEpoch(database)
  await plain(database, `create table moment (id int primary key, at timestamptz)`)
  await plain(database, `select stoa.attach('moment', 'moment', '{id}', '{at}')`)
  const { snapshot } = await runPoll(database, null, 100)
  await plain(
    database,
    `set timezone = 'Asia/Tokyo'; insert into moment values (1, '2026-11-27T07:28:00.123Z'),
       (2, 'infinity'), (3, null); reset timezone`,
  )
  const { changes } = await runPoll(database, snapshot, 100)
  assert.deepEqual(
    changes.map(({ after }) => after),
    [{ at: Date.parse('2026-11-27T07:28:00.123Z') }, { at: null }, { at: null }],
  )
})

test(
  'none lost, none twice: many writers, long and prepared transactions, savepoints and rollbacks',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 14 })
    const { database } = db
    await runBeginEpoch(database)
    await withTable(database)
    const seen: string[] = []
    let { snapshot } = await runPoll(database, null, 100_000)
    const collect = async (): Promise<void> => {
      const result = await runPoll(database, snapshot, 100_000)
      for (const change of result.changes) {
        assert.ok(visible(result.snapshot, change.xid) && !visible(snapshot, change.xid))
        seen.push(change.key!)
      }
      snapshot = result.snapshot
    }
    const expected: string[] = []
    let id = 0
    const insert = sql(`insert into item (id) values ($1)`)
    const writer = async (): Promise<void> => {
      for (let round = 0; round < 40; round += 1) {
        const mine = (id += 1)
        const fails = mine % 7 === 0
        try {
          await database.transaction(async (tx) => {
            await tx.transaction(async (inner) => inner.run(insert, [mine]))
            if (mine % 5 === 0) await tx.run(sql(`select pg_sleep(0.02)`))
            if (fails) throw new RangeError('rolled back')
          })
          expected.push(String(mine))
        } catch (error) {
          if (!(error instanceof RangeError)) throw error
        }
      }
    }
    await plain(
      database,
      `begin; insert into item (id) values (100001); prepare transaction 'kept'`,
    )
    const long = database.transaction(async (tx) => {
      await tx.run(insert, [100_002])
      await tx.run(sql(`select pg_sleep(0.4)`))
    })
    const writing = new AbortController()
    const polling = (async () => {
      while (!writing.signal.aborted) await collect()
    })()
    await Promise.all(Array.from({ length: 8 }, writer))
    await long
    writing.abort()
    await polling
    await collect()
    assert.ok(!seen.includes('100001'), 'a prepared transaction is not committed yet')
    await plain(database, `commit prepared 'kept'`)
    await collect()
    expected.push('100001', '100002')
    assert.deepEqual(seen.sort(), expected.sort())
  },
)

test(
  'a fill takes the snapshot of its own statement, not one of a moment later',
  { skip },
  async () => {
    await using db = await testDatabase()
    const { database } = db
    await runBeginEpoch(database)
    const slow = database.run(
      sql<{ as_of: string; before: string }>(
        `select pg_current_snapshot()::text as before, stoa.as_of() as as_of
         from (select pg_sleep(0.3) offset 0) s`,
      ),
    )
    await new Promise((resolve) => setTimeout(resolve, 100))
    await plain(database, `select pg_current_xact_id()`)
    const [row] = await slow
    assert.equal(row!.as_of.split(' ')[1], row!.before)
  },
)

test(
  'trimming marks cursors that it overtook, and spares running transactions',
  { skip },
  async () => {
    await using db = await testDatabase()
    const { database } = db
    await runBeginEpoch(database)
    await withTable(database)
    const { snapshot } = await runPoll(database, null, 100)
    await plain(database, `insert into item (id) values (1)`)
    await database.transaction(async (tx) => {
      await tx.run(sql(`insert into item (id) values (2)`))
      // Transaction ids are one row for the whole server: other tests' open transactions hold the
      // horizon back until they end.
      const deadline = Date.now() + 30_000
      const trimmed = async (): Promise<boolean> =>
        (await runTrim(database, 0)) > 0 &&
        (await runPoll(database, snapshot, 100)).keptFrom > snapshot.xmin
      while (!(await trimmed()) && Date.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 50))
    })
    const after = await runPoll(database, snapshot, 100)
    assert.ok(after.keptFrom > snapshot.xmin, 'a cursor from before is too old')
    assert.deepEqual(
      after.changes.map((change) => change.key),
      ['2'],
      'the open transaction lost nothing',
    )
  },
)

test(
  'the heartbeat moves once for those who saw the same counter, and not in another epoch',
  { skip },
  async () => {
    await using db = await testDatabase()
    const epoch = await runBeginEpoch(db.database)
    const won = await Promise.all(Array.from({ length: 5 }, () => runBeat(db.database, 0, epoch)))
    assert.equal(won.filter(Boolean).length, 1)
    assert.equal(await runBeat(db.database, 1, '7.1.1'), false)
  },
)

test('20 nodes that name the epoch together name it once', { skip }, async () => {
  await using db = await testDatabase({ connectionsMax: 20 })
  const names = await Promise.all(Array.from({ length: 20 }, () => runBeginEpoch(db.database)))
  assert.equal(new Set(names).size, 1)
  assert.match(names[0]!, /^[0-9a-f]{16}\.1\.1$/)
  await plain(db.database, `select stoa.end_epoch()`)
  assert.match(await runBeginEpoch(db.database), /^[0-9a-f]{16}\.1\.2$/)
})

test(
  'a dump that was restored in place, with the name of the epoch in it, has another epoch',
  { skip },
  async () => {
    await using db = await testDatabase()
    const before = await runBeginEpoch(db.database)
    for (const text of [
      `alter table stoa.life rename to old_life`,
      `create unlogged table stoa.life (like stoa.old_life including all)`,
      `insert into stoa.life select * from stoa.old_life`,
      `drop table stoa.old_life`,
    ])
      await db.database.run(sql(text))
    const after = await runBeginEpoch(db.database)
    assert.equal(compareEpochs(after, before), 'unrelated')
    assert.equal(await runBeginEpoch(db.database), after)
  },
)

/**
 * Kills a backend of the server right after a transaction ended: is its id given out again? The
 * epoch must have ended in any case.
 */
async function crash(url: string, database: Database): Promise<boolean> {
  const client = new pg.Client({ connectionString: url })
  const ended = new Promise<void>((resolve) => client.once('end', () => resolve()))
  client.on('error', () => {
    // It may report its end more than once.
  })
  await client.connect()
  const before = await runBeginEpoch(database)
  // The WAL writer would flush the end of the transaction soon; that it has not done so yet is the
  // point.
  await client.query(`alter system set wal_writer_delay = '10s'`)
  await client.query('select pg_reload_conf()')
  await client.query('checkpoint')
  const { rows: backends } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  await client.query('begin')
  const { rows } = await client.query<{ xid: string }>('select pg_current_xact_id()::text as xid')
  await client.query('rollback')
  const { snapshot } = await runPoll(database, null, 10)
  assert.ok(visible(snapshot, Number(rows[0]!.xid)), 'the poll has seen it end')
  process.kill(backends[0]!.pid, 'SIGKILL')
  await ended
  // The other sessions live on for a moment, until the server has noticed.
  await recovered(database)
  const [row] = await database.run(sql<{ xid: string }>(`select pg_current_xact_id()::text as xid`))
  assert.notEqual(await runBeginEpoch(database), before)
  return Number(row!.xid) <= Number(rows[0]!.xid)
}

/** Waits until the server responds and the name of the epoch is gone. */
async function recovered(database: Database): Promise<void> {
  for (const deadline = Date.now() + 30_000; ;) {
    try {
      if ((await database.run(sql(`select epoch from stoa.life`))).length === 0) return
    } catch (error) {
      if (Date.now() > deadline) throw error
    }
    assert.ok(Date.now() < deadline, 'the name of the epoch is still there')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

test('a crash gives transaction ids out again, and ends the epoch', { skip }, async () => {
  const server = await startTestPostgres()
  const database = new PostgresDatabase({
    url: server.url,
    connectionsMax: 2,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 5_000,
    logger: silentLogger,
  })
  try {
    await migrate(database)
    let again = false
    for (let attempt = 0; attempt < 8 && !again; attempt += 1)
      again = await crash(server.url, database)
    assert.ok(again, 'no id was given out twice: the server was too quick to flush, every time')
  } finally {
    await database.close()
    await server.stop()
  }
})

test('a listener that throws gets a flush, and harms no other listener', { skip }, async () => {
  await using db = await testDatabase()
  await withTable(db.database)
  await using feed = new ChangeFeed({
    database: db.database,
    link: null,
    clock: systemClock,
    logger: silentLogger,
  })
  const news: FeedNews[] = []
  const others: FeedNews[] = []
  const received = (list: readonly FeedNews[], key: string): boolean =>
    list.some((one) => one.kind === 'apply' && one.changes.some((change) => change.key === key))
  feed.subscribe((one) => {
    news.push(one)
    if (one.kind === 'apply' && one.changes.some(({ key }) => key === '1'))
      throw new Error('cannot take that')
  })
  feed.subscribe((one) => others.push(one))
  await until(() => news.some(({ kind }) => kind === 'lease'))
  await db.database.run(sql(`insert into item (id) values (1)`))
  await until(() => received(others, '1') && news.at(-1)?.kind === 'lease')
  const after = news.slice(
    news.findIndex((one) => one.kind === 'apply' && one.changes.length > 0) + 1,
  )
  assert.deepEqual(
    after.slice(0, 2).map(({ kind }) => kind),
    ['flush', 'lease'],
    'nothing before the flush, the lease of what it refused least of all',
  )
  await db.database.run(sql(`insert into item (id) values (2)`))
  await until(() => received(news, '2') && received(others, '2'))
  assert.equal(others.filter(({ kind }) => kind === 'flush').length, 1)
})

test(
  'a feed flushes first, applies what others write on a hint, and stops without a trace',
  { skip },
  async () => {
    await using db = await testDatabase()
    await withTable(db.database)
    const hub = new MemoryHub()
    const feeds = Array.from(
      { length: 2 },
      () =>
        new ChangeFeed({
          database: db.database,
          link: new MemoryClusterLink(hub),
          clock: systemClock,
          logger: silentLogger,
          config: { leaseMs: 60_000 },
        }),
    )
    await using stopping = new AsyncDisposableStack()
    for (const feed of feeds) stopping.use(feed)
    const [writer, reader] = feeds as [ChangeFeed, ChangeFeed]
    const news: FeedNews[] = []
    reader.subscribe((one) => news.push(one))
    await until(() =>
      feeds.every((feed) => feed.state.mode === 'following' && feed.state.provenAtMs > 0),
    )
    assert.equal(news[0]?.kind, 'flush')
    const before = writer.state.polls
    const { token } = await writer.write(db.database, async (tx) =>
      tx.run(sql(`insert into item (id) values (1)`)),
    )
    const changes = (): readonly Change[] =>
      news.flatMap((one) => (one.kind === 'apply' ? one.changes : []))
    await until(() => changes().length > 0)
    assert.equal(changes()[0]!.xid, token!.xid)
    assert.equal(token!.epoch, reader.state.epoch)
    await sleep(20)
    assert.equal(writer.state.polls, before + 1, 'its own hint, sent back by the link, is ignored')
    for (const feed of feeds) await feed.stop()
  },
)
