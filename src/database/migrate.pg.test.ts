import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { DatabaseTimeoutError, MigrationError } from '#database/errors.ts'
import { migrate } from '#database/migrate.ts'
import { dumpSchema } from '#database/schema.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing

/** A folder of migrations of the test's own. */
function files(contents: Record<string, string>): {
  readonly folder: URL
  set(name: string, text: string): void
  remove(name: string): void
} & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'stoa-migrations-'))
  const set = (name: string, text: string): void => writeFileSync(join(path, `${name}.sql`), text)
  for (const [name, text] of Object.entries(contents)) set(name, text)
  return {
    folder: pathToFileURL(`${path}/`),
    set,
    remove: (name) => rmSync(join(path, `${name}.sql`)),
    [Symbol.dispose]: () => rmSync(path, { recursive: true }),
  }
}

test('twenty first starts at once migrate once', { skip }, async () => {
  await using db = await testDatabase({ migrated: false, connectionsMax: 20 })
  const applied = await Promise.all(Array.from({ length: 20 }, () => migrate(db.database)))
  assert.equal(applied.filter((names) => names.length > 0).length, 1)
  const rows = await db.database.run(
    sql<{ name: string }>(`select name from stoa.migration order by name`),
  )
  assert.deepEqual(
    rows.map((row) => row.name),
    applied.flat(),
  )
})

test('docs/reference/schema.sql is what the migrations make', { skip }, async () => {
  await using db = await testDatabase()
  const written = await readFile(
    new URL('../../docs/reference/schema.sql', import.meta.url),
    'utf8',
  )
  assert.equal(
    await dumpSchema(db.database),
    written,
    'the schema has changed: refresh it with  node test/dump-schema.ts',
  )
  // It is whole: an empty database becomes the same by it.
  await using empty = await testDatabase({ migrated: false })
  await empty.database.run({ text: written, prepare: 'never' })
  assert.equal(await dumpSchema(empty.database), written)
})

test(
  'a changed or misplaced file is refused, and one that fails leaves nothing',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    using own = files({
      '0001-a': 'create table stoa.a (n int)',
      '0003-c': 'create table stoa.c (n int)',
    })
    const options = { folder: own.folder }
    assert.deepEqual(await migrate(db.database, options), ['0001-a', '0003-c'])
    own.set('0004-d', 'create table stoa.d (n int); select 1 / 0')
    await assert.rejects(migrate(db.database, options), /division by zero/)
    assert.deepEqual(
      await db.database.run(
        sql(`select to_regclass('stoa.d') as d, (select count(*)::int from stoa.migration) as n`),
      ),
      [{ d: null, n: 2 }],
    )
    own.set('0004-d', 'create table stoa.d (n int)')
    assert.deepEqual(await migrate(db.database, options), ['0004-d'])
    own.set('0002-b', 'create table stoa.b (n int)')
    await assert.rejects(
      migrate(db.database, options),
      (error: unknown) => error instanceof MigrationError && /number after/.test(error.message),
    )
    own.remove('0002-b')
    own.set('0001-a', 'create table stoa.a (n bigint)')
    await assert.rejects(
      migrate(db.database, options),
      (error: unknown) =>
        error instanceof MigrationError && /restore the released file/.test(error.message),
    )
  },
)

test(
  'an older program starts on a newer schema, unless the newer one says that it cannot',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    using older = files({ '0001-a': 'create table stoa.a (n int)' })
    using newer = files({
      '0001-a': 'create table stoa.a (n int)',
      '0002-b': 'alter table stoa.a add column m int',
    })
    await migrate(db.database, { folder: newer.folder })
    assert.deepEqual(await migrate(db.database, { folder: older.folder }), [])
    newer.set(
      '0003-c',
      '-- incompatible: n is now called k, and older programs would fail.\nalter table stoa.a ' +
        'rename column n to k',
    )
    await migrate(db.database, { folder: newer.folder })
    await assert.rejects(
      migrate(db.database, { folder: older.folder }),
      (error: unknown) =>
        error instanceof MigrationError &&
        /newer Stoa \(0003-c\).*start the newer one/.test(error.message),
    )
  },
)

test(
  'a long migration outlasts the deadline of statements; a node that waits too long says for which',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    using own = files({ '0001-a': 'create table stoa.a as select 1 as n from pg_sleep(3)' })
    const database = new PostgresDatabase({
      url: db.url,
      connectionsMax: 3,
      statementTimeoutMs: 300,
      connectTimeoutMs: 5_000,
      applicationName: 'stoa slow',
      logger: silentLogger,
    })
    try {
      const first = migrate(database, { folder: own.folder })
      await sleep(700)
      await assert.rejects(
        migrate(database, { folder: own.folder, lockWaitMs: 100 }),
        (error: unknown) =>
          error instanceof DatabaseTimeoutError &&
          /"stoa slow" \(server process \d+/.test(error.message),
      )
      const second = migrate(database, { folder: own.folder })
      assert.deepEqual(await first, ['0001-a'])
      assert.deepEqual(await second, [])
      await assert.rejects(
        database.run(sql('select pg_sleep(2)')),
        DatabaseTimeoutError,
        'the deadline is back',
      )
    } finally {
      await database.close()
    }
  },
)

test('a migration gives way while a table is in use, and comes again', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  using own = files({ '0001-a': 'create table stoa.a (n int)' })
  await migrate(db.database, { folder: own.folder })
  own.set('0002-b', 'alter table stoa.a add column m int')
  const held = Promise.withResolvers<void>()
  const reader = db.database.transaction(async (tx) => {
    await tx.run(sql('select * from stoa.a'))
    await held.promise
  })
  await sleep(200)
  const migrated = migrate(db.database, { folder: own.folder })
  await sleep(3_300)
  // The migration is pausing now, so that no one else queues behind it.
  assert.deepEqual(await db.database.run(sql('select n from stoa.a')), [])
  held.resolve()
  await reader
  assert.deepEqual(await migrated, ['0002-b'])
})

test(
  'a database from before the first release is refused, unchanged, with a way to go on',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await db.database.run({
      text: `create schema stoa;
        create table stoa.migration (name text primary key, checksum text not null,
          compatible boolean not null, applied_at timestamptz(3) not null default now());
        insert into stoa.migration
          values ('0001-content', '', true), ('0004-cluster', '', true)`,
      prepare: 'never',
    })
    for (const options of [{}, { set: 'cluster' }] as const) {
      await assert.rejects(
        migrate(db.database, options),
        (error: unknown) =>
          error instanceof MigrationError &&
          /before the first release.*Nothing was changed.*stoa export DIR.*stoa import DIR/.test(
            error.message,
          ),
      )
    }
    assert.deepEqual(
      await db.database.run(
        sql(
          `select relname as name from pg_class where relnamespace = 'stoa'::regnamespace and ` +
            `relkind = 'r'`,
        ),
      ),
      [{ name: 'migration' }],
    )
  },
)

test('the cluster set runs alone, and the content set later', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  const cluster = await migrate(db.database, { set: 'cluster' })
  assert.ok(cluster.length > 0 && cluster.every((name) => name.startsWith('cluster/')))
  assert.deepEqual(await migrate(db.database, { set: 'cluster' }), [])
  const content = await migrate(db.database)
  assert.ok(content.length > 0 && content.every((name) => name.startsWith('content/')))
  assert.deepEqual(await migrate(db.database, { set: 'cluster' }), [])
})

test(
  'a migration that older programs cannot work with asks first, and is refused whole',
  { skip },
  async () => {
    await using db = await testDatabase({ migrated: false })
    using own = files({ '0001-a': '-- incompatible\ncreate table stoa.a (n int)' })
    const { folder } = own
    const asked: (readonly string[])[] = []
    const beforeIncompatible = async (names: readonly string[]): Promise<void> => {
      asked.push(names)
      throw new Error('older nodes run')
    }
    assert.deepEqual(await migrate(db.database, { folder, beforeIncompatible }), ['0001-a'])
    assert.deepEqual(asked, [], 'on an empty database there is no older node')
    own.set('0002-b', 'create table stoa.b (n int)')
    own.set('0003-c', '-- incompatible\ncreate table stoa.c (n int)')
    await assert.rejects(migrate(db.database, { folder, beforeIncompatible }), /older nodes run/)
    assert.deepEqual(asked, [['0003-c']])
    const [row] = await db.database.run(sql<{ b: null }>(`select to_regclass('stoa.b') as b`))
    assert.equal(row!.b, null, 'not even the compatible one before it has run')
    assert.deepEqual(await migrate(db.database, { folder }), ['0002-b', '0003-c'])
  },
)
