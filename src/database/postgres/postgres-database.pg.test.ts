import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import type { PostgresOptions } from '#database/postgres/postgres-database.ts'
import { primaryConnector } from '#database/postgres/primary-connector.ts'
import { isoOf } from '#database/postgres/values.ts'
import {
  ConstraintError,
  DatabaseTimeoutError,
  DatabaseUnavailableError,
  SerializationError,
  UnsupportedDatabaseError,
} from '#database/errors.ts'
import { migrate } from '#database/migrate.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'
import { startProxy } from '#test/support/proxy.ts'

const insert = sql<{ id: number }>(
  `insert into stoa_test (id, parent, note) values ($1, $2, $3) returning id`,
)
const setup = `create table stoa_test (id int primary key,
  parent int constraint stoa_test_parent references stoa_test,
  note text not null constraint stoa_test_note check (note <> ''))`

function open(
  url: string,
  options: Partial<PostgresOptions> = {},
): PostgresDatabase & AsyncDisposable {
  const database = new PostgresDatabase({
    url,
    connectionsMax: 4,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 2_000,
    logger: silentLogger,
    ...options,
  })
  return Object.assign(database, { [Symbol.asyncDispose]: async () => database.close() })
}

const plain = async (on: Queryable, text: string): Promise<object[]> =>
  on.run({ text, prepare: 'never' })

test('what the database refuses has a name', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  const { database } = db
  await plain(database, setup)
  await database.run(insert, [1, null, 'a'])
  const refused = async (values: readonly unknown[]): Promise<string> => {
    try {
      await database.run(insert, values)
      return 'accepted'
    } catch (error) {
      assert.ok(error instanceof ConstraintError, String(error))
      return `${error.kind} ${error.constraint}`
    }
  }
  assert.equal(await refused([1, null, 'a']), 'unique stoa_test_pkey')
  assert.equal(await refused([2, 99, 'a']), 'foreignKey stoa_test_parent')
  assert.equal(await refused([2, null, '']), 'check stoa_test_note')
  assert.equal(await refused([2, null, null]), 'notNull note')
  await assert.rejects(plain(database, 'selekt 1'), /syntax error/)
  assert.deepEqual(
    await database.run(insert, [2, 1, 'b']),
    [{ id: 2 }],
    'the connections are still good',
  )
  assert.equal(database.usage().busy, 0)
})

test('a deadlock ends for one of the two, who may run again', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  const { database } = db
  await plain(database, setup)
  for (const id of [1, 2]) await database.run(insert, [id, null, 'a'])
  let arrived = 0
  const both = Promise.withResolvers<void>()
  const cross = async (first: number, second: number): Promise<unknown> =>
    database.transaction(async (tx) => {
      await plain(tx, `update stoa_test set note = 'x' where id = ${first}`)
      arrived += 1
      if (arrived === 2) both.resolve()
      await both.promise
      await plain(tx, `update stoa_test set note = 'y' where id = ${second}`)
    })
  const results = await Promise.allSettled([cross(1, 2), cross(2, 1)])
  const failures = results.flatMap((result) =>
    result.status === 'rejected' ? [result.reason as unknown] : [],
  )
  assert.equal(failures.length, 1)
  assert.ok(failures[0] instanceof SerializationError)
  assert.deepEqual(await plain(database, 'select distinct note from stoa_test order by note'), [
    { note: 'x' },
    { note: 'y' },
  ])
})

test(
  'a statement and a lock have deadlines, and the connection outlives them',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using database = open(db.url, { statementTimeoutMs: 200, connectionsMax: 2 })
    await assert.rejects(plain(database, 'select pg_sleep(5)'), DatabaseTimeoutError)
    await plain(database, setup)
    await database.run(insert, [1, null, 'a'])
    await database.transaction(async (tx) => {
      await plain(tx, 'select * from stoa_test for update')
      await assert.rejects(
        plain(database, 'select * from stoa_test for update'),
        DatabaseTimeoutError,
      )
      await assert.rejects(
        database.transaction(async (other) => {
          await plain(other, `set local lock_timeout = '50ms'`)
          await plain(other, 'select * from stoa_test for update')
        }),
        /lock was not free/,
      )
    })
    assert.deepEqual(await plain(database, 'select count(*)::int as n from stoa_test'), [{ n: 1 }])
  },
)

test(
  'when all connections are busy callers wait within their deadline, and control is never starved',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using database = open(db.url, { connectionsMax: 2, connectTimeoutMs: 300 })
    const release = Promise.withResolvers<void>()
    const holders = Array.from({ length: 2 }, async () =>
      database.session(async () => release.promise),
    )
    await sleep(100)
    const waiting = Array.from({ length: 5 }, async () =>
      plain(database, 'select 1').catch((error: unknown) => error),
    )
    assert.deepEqual(await plain(database.control, 'select 1 as one'), [{ one: 1 }])
    assert.deepEqual(database.usage(), { busy: 2, idle: 0, waiting: 5 })
    for (const result of await Promise.all(waiting)) {
      assert.ok(result instanceof DatabaseTimeoutError)
      assert.match(result.message, /all 2 are busy/)
    }
    assert.equal(database.usage().waiting, 0)
    release.resolve()
    await Promise.all(holders)
    assert.deepEqual(await plain(database, 'select 1 as one'), [{ one: 1 }])
    assert.deepEqual(database.usage(), { busy: 0, idle: 2, waiting: 0 })
  },
)

test('more work than connections is done, by at most so many connections', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  await using database = open(db.url, {
    connectionsMax: 3,
    applicationName: 'stoa exhaustion',
    connectTimeoutMs: 10_000,
  })
  const rows = await Promise.all(
    Array.from({ length: 200 }, async (_, n) =>
      database.run(sql<{ n: number }>('select $1::int as n'), [n]),
    ),
  )
  assert.deepEqual(
    rows.map(([row]) => row?.n),
    Array.from({ length: 200 }, (_, n) => n),
  )
  const [connections] = await db.database.run(
    sql<{ n: number }>(
      `select count(*)::int as n from pg_stat_activity where application_name = 'stoa exhaustion'`,
    ),
  )
  assert.equal(connections?.n, 3)
})

test(
  'a connection that breaks fails its statement only, and the next caller gets another',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using database = open(db.url, { connectionsMax: 1 })
    const kill = async (pid: unknown): Promise<object[]> =>
      db.database.run(sql('select pg_terminate_backend($1)'), [pid])
    const own = sql<{ pid: number }>('select pg_backend_pid() as pid')
    await assert.rejects(
      database.session(async (session) => {
        const [row] = await session.run(own)
        await Promise.all([
          plain(session, 'select pg_sleep(10)'),
          sleep(50).then(() => kill(row?.pid)),
        ])
      }),
      DatabaseUnavailableError,
    )
    const [row] = await database.run(own)
    await kill(row?.pid)
    await sleep(50)
    const [next] = await database.run(own)
    assert.notEqual(next?.pid, row?.pid, 'an idle connection that broke is not given out')
  },
)

test('a commit that breaks says that its outcome is unknown', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  await plain(db.database, setup)
  await using proxy = await startProxy(db.url)
  await using database = open(proxy.url, { connectionsMax: 1 })
  const commit = database.transaction(async (tx) => {
    await tx.run(insert, [1, null, 'a'])
    proxy.swallowResponses()
    setTimeout(() => proxy.cut(), 300)
  })
  await assert.rejects(commit, (error: unknown) => {
    assert.ok(error instanceof DatabaseUnavailableError)
    assert.equal(error.facts['outcome'], 'unknown')
    return true
  })
  // Here it did take effect, as only the response was lost.
  assert.deepEqual(await plain(db.database, 'select id from stoa_test'), [{ id: 1 }])
  assert.deepEqual(await database.run(sql<{ id: number }>('select id from stoa_test')), [{ id: 1 }])
})

test(
  'a server that stops responding is abandoned, and its connection closed',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using proxy = await startProxy(db.url)
    await using database = open(proxy.url, { connectionsMax: 1, statementTimeoutMs: 200 })
    await plain(database, 'select 1')
    proxy.swallowResponses()
    await assert.rejects(plain(database, 'select 1'), DatabaseTimeoutError)
    proxy.heal()
    assert.deepEqual(await plain(database, 'select 1 as one'), [{ one: 1 }])
  },
)

test(
  'transactions: savepoints, swallowed errors, use after the end, idle for too long',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using database = open(db.url, { idleInTransactionTimeoutMs: 300 })
    await plain(database, setup)
    await database.transaction(async (tx) => {
      await tx.run(insert, [1, null, 'a'])
      await assert.rejects(
        tx.transaction(async (inner) => inner.run(insert, [1, null, 'again'])),
        ConstraintError,
      )
      await tx.transaction(async (inner) => inner.run(insert, [2, null, 'b']))
    })
    assert.deepEqual(await plain(database, 'select id from stoa_test order by id'), [
      { id: 1 },
      { id: 2 },
    ])

    await assert.rejects(
      database.transaction(async (tx) => {
        await tx.run(insert, [3, null, 'c'])
        await tx.run(insert, [3, null, 'c']).catch(() => undefined)
      }),
      /nothing was written/,
    )
    let kept: Queryable | null = null
    // The second statement is still waiting for its turn when the first one fails: it must not run
    // outside the transaction.
    const both = database.transaction(async (tx) => {
      kept = tx
      await Promise.all([
        tx.run(insert, [1, null, 'taken']),
        tx.run(insert, [4, null, 'd']).catch(() => undefined),
      ])
    })
    await assert.rejects(both, ConstraintError)
    await assert.rejects((kept as Queryable | null)!.run(insert, [5, null, 'e']), /has ended/)
    await assert.rejects(
      database.transaction(async (tx) => {
        await tx.run(insert, [6, null, 'f'])
        await sleep(600)
        await tx.run(insert, [7, null, 'g'])
      }),
      DatabaseUnavailableError,
    )
    assert.deepEqual(await plain(database, 'select id from stoa_test order by id'), [
      { id: 1 },
      { id: 2 },
    ])
  },
)

test('a prepared statement survives a change of its table', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  await using database = open(db.url, { connectionsMax: 1 })
  const all = sql<{ id: number }>('select * from stoa_test')
  await plain(database, setup)
  await database.run(all)
  await plain(database, 'alter table stoa_test add column more text')
  assert.deepEqual(await database.run(all), [])
})

test('values arrive as the port says', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  const text = `
    select '2026-11-20T17:30:00.12+02'::timestamptz(3) a, '2026-11-20 17:30+00'::timestamptz b,
    'infinity'::timestamptz c, array['2026-11-20 17:30+00'::timestamptz, null] d,
    '{"b": 1,  "a":2}'::json e, '{"b": 1,  "a":2}'::jsonb f, 9007199254740993 g,
    1.10 h, '\\x00ff'::bytea i, '2026-11-20'::date j, array[1,2] k`
  const [row] = await plain(db.database, text)
  assert.deepEqual(row, {
    a: '2026-11-20T15:30:00.120Z',
    b: '2026-11-20T17:30:00.000Z',
    c: 'infinity',
    d: ['2026-11-20T17:30:00.000Z', null],
    e: '{"b": 1,  "a":2}',
    f: '{"a": 2, "b": 1}',
    g: '9007199254740993',
    h: '1.10',
    i: Buffer.from([0, 255]),
    j: '2026-11-20',
    k: [1, 2],
  })
  assert.equal(isoOf('10000-01-01 00:00:00+00'), '10000-01-01 00:00:00+00')
  // Even where the URL brings options of its own.
  await using other = open(`${db.url}?options=${encodeURIComponent('-c search_path=public')}`)
  assert.deepEqual(await plain(other, `select '2026-11-20 17:30+00'::timestamptz a`), [
    { a: '2026-11-20T17:30:00.000Z' },
  ])
})

test(
  'a URL that cannot work is refused at once, and never with its password',
  { skip },
  async () => {
    for (const url of [
      'mysql://u:secret@h/db',
      'postgres://u:secret@a,,b/db',
      'nonsense',
      'postgres://u:secret@h/db?sslmode=verify-ca',
    ]) {
      assert.throws(
        () => open(url),
        (error: unknown) =>
          error instanceof UnsupportedDatabaseError && !error.message.includes('secret'),
      )
    }
    await using db = await testDatabase({ migrated: false })
    const began = performance.now()
    const elsewhere = new URL(db.url)
    elsewhere.pathname = '/stoa_no_such_database'
    await using missing = open(elsewhere.toString(), { connectTimeoutMs: 20_000 })
    await assert.rejects(
      plain(missing, 'select 1'),
      /does not exist: create it, or correct STOA_DATABASE_URL/,
    )
    assert.ok(performance.now() - began < 15_000, 'without waiting for the deadline')
    await plain(db.database, `create role stoa_test_weak login`)
    try {
      const weak = new URL(db.url)
      weak.username = 'stoa_test_weak'
      await using unprivileged = open(weak.toString())
      await assert.rejects(
        migrate(unprivileged),
        /permission denied for database .*: make the user in STOA_DATABASE_URL the owner/,
      )
    } finally {
      await plain(db.database, `drop role stoa_test_weak`)
    }
    await using encrypted = open(`${db.url}?sslmode=require`, { connectTimeoutMs: 500 })
    await assert.rejects(plain(encrypted, 'select 1'), DatabaseUnavailableError)
  },
)

test(
  'close waits for work that is under way, refuses more, and may be called twice',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    const database = open(db.url)
    await plain(database, 'select 1')
    const work = plain(database, 'select 1 as one from pg_sleep(0.3)')
    await sleep(50)
    const closed = database.close()
    assert.deepEqual(await work, [{ one: 1 }])
    await closed
    await database.close()
    await assert.rejects(plain(database, 'select 1'), DatabaseUnavailableError)
  },
)

test(
  'closing cuts what is still in use after its deadline',
  { skip, timeout: 60_000 },
  async () => {
    await using db = await testDatabase({ connectionsMax: 2 })
    const never = Promise.withResolvers<void>()
    const started = Promise.withResolvers<void>()
    const held = db.database.session(async (session) => {
      await session.run(sql(`select 1`))
      started.resolve()
      await never.promise
      await session.run(sql(`select 1`))
    })
    const outcome = assert.rejects(held, (error) => error instanceof DatabaseUnavailableError)
    await started.promise
    await db.database.close()
    never.resolve()
    await outcome
  },
)

test(
  'closing does not wait for a server that does not respond',
  { skip, timeout: 60_000 },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using network = await startProxy(db.url)
    const database = open(network.url)
    await plain(database, 'select 1')
    network.silence()
    const late = Symbol('late')
    assert.notEqual(
      await Promise.race([database.close(), sleep(8_000, late, { ref: false })]),
      late,
    )
  },
)

test('a server that sends idle connections away keeps those of Stoa', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  await plain(
    db.database,
    `do $$ begin execute format('alter database %I set idle_session_timeout = 100', ` +
      `current_database()); end $$`,
  )
  await using database = open(db.url)
  const listener = await primaryConnector({ url: db.url, applicationName: 'stoa test' })()
  const pid = 'select pg_backend_pid() as pid'
  const before = [await plain(database, pid), (await listener.query(pid)).rows]
  await sleep(400)
  assert.deepEqual([await plain(database, pid), (await listener.query(pid)).rows], before)
  await listener.end()
})
