import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import {
  DatabaseTimeoutError,
  SerializationError,
  UnsupportedDatabaseError,
} from '#database/errors.ts'
import { migrate } from '#database/migrate.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import type { PostgresOptions } from '#database/postgres/postgres-database.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { pgbouncerMissing, startPgbouncer } from '#test/support/pgbouncer.ts'

const skip = databaseMissing === false ? pgbouncerMissing : databaseMissing
const serverConnections = 2

function open(
  options: Pick<PostgresOptions, 'url'> & Partial<PostgresOptions>,
): PostgresDatabase & AsyncDisposable {
  const database = new PostgresDatabase({
    connectionsMax: 8,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 5_000,
    logger: silentLogger,
    ...options,
  })
  return Object.assign(database, { [Symbol.asyncDispose]: async () => database.close() })
}

const text = async (on: Queryable, statement: string): Promise<object[]> =>
  on.run(sql(statement, 'never'))

test(
  'work goes through PgBouncer in transaction mode, and sessions past it',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using pooler = await startPgbouncer(db.url, serverConnections)
    await using database = open({ url: pooler.url, directUrl: db.url })
    await migrate(database)
    await text(database, 'create table item (n int primary key, made timestamptz)')
    const insert = sql<{ n: number }>(`insert into item values ($1, $2) returning n`)
    const count = sql<{ n: number }>(`select count(*)::int as n from item`)
    await Promise.all(
      Array.from({ length: 100 }, (_, n) =>
        n % 2 === 0
          ? database.run(insert, [n, '2026-11-20T17:30:00.000Z'])
          : database.transaction(async (tx) => {
              await tx.run(count)
              await tx.transaction(async (inner) => inner.run(insert, [n, null]))
            }),
      ),
    )
    assert.deepEqual(await database.run(count), [{ n: 100 }])
    assert.deepEqual(await text(database, 'select made from item where n = 0'), [
      { made: '2026-11-20T17:30:00.000Z' },
    ])
    await assert.rejects(database.run(insert, [1, null]), { code: 'E_DATABASE_CONSTRAINT' })
    const [behind] = await db.database.run(
      sql<{ n: number }>(
        `select count(*)::int as n from pg_stat_activity
         where datname = current_database() and application_name = 'stoa'`,
      ),
    )
    assert.ok(behind !== undefined && behind.n <= 2 * serverConnections, JSON.stringify(behind))
    // A session lock is held by the server itself.
    await database.session(async (session) => {
      await session.run(sql(`select pg_advisory_lock(7)`))
      await text(session, `set statement_timeout = 1234`)
      assert.deepEqual(await text(session, 'show statement_timeout'), [
        { statement_timeout: '1234ms' },
      ])
      const tryLock = sql<{ locked: boolean }>(`select pg_try_advisory_xact_lock(7) as locked`)
      assert.deepEqual(await database.run(tryLock), [{ locked: false }])
      await session.run(sql(`select pg_advisory_unlock(7)`))
    })
  },
)

test(
  'a statement that is not over in time is cancelled behind PgBouncer too',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using pooler = await startPgbouncer(db.url, serverConnections)
    await using database = open({
      url: pooler.url,
      directUrl: db.url,
      statementTimeoutMs: 300,
    })
    await assert.rejects(text(database, 'select pg_sleep(30)'), DatabaseTimeoutError)
    const asleep = sql<{ n: number }>(
      `select count(*)::int as n from pg_stat_activity where state = 'active' and query like ` +
        `'%pg_sleep(30)%' and pid <> pg_backend_pid()`,
    )
    const until = Date.now() + 5_000
    while ((await db.database.run(asleep))[0]?.n !== 0)
      assert.ok(Date.now() < until, 'the server still sleeps')
  },
)

test('a table that changes under a transaction makes it run again', { skip }, async () => {
  await using db = await testDatabase({ migrated: false, connectionsMax: 1 })
  await text(db.database, 'create table item (n int)')
  const all = sql<object>('select * from item')
  await db.database.run(all)
  await text(db.database, 'alter table item add column more text')
  await assert.rejects(
    db.database.transaction(async (tx) => tx.run(all)),
    SerializationError,
  )
  assert.deepEqual(await db.database.transaction(async (tx) => tx.run(all)), [])
})

test(
  'a pooler is refused where sessions are needed, with the setting to change',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using pooler = await startPgbouncer(db.url, serverConnections)
    await using alone = open({ url: pooler.url })
    const refused = (sentence: RegExp) => (error: unknown) =>
      error instanceof UnsupportedDatabaseError && sentence.test(error.message)
    await assert.rejects(text(alone, 'select 1'), refused(/Set STOA_DATABASE_DIRECT_URL/))
    await using wrong = open({ url: db.url, directUrl: pooler.url })
    await assert.rejects(
      wrong.session(async (session) => text(session, 'select 1')),
      refused(/Name the servers behind it/),
    )
  },
)
