import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runBeginEpoch, runPoll } from '#change-feed/poll.ts'
import type { Database } from '#database/database.ts'
import { migrate } from '#database/migrate.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const before = ['0004-cluster', '0007-change-times', '0010-row-changes', '0021-change-text']

async function plain(database: Database, text: string): Promise<void> {
  await database.run({ text, name: null })
}

test(
  'an upgrade attaches anew what is attached; what was told before it has a key and no rows',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    const { database } = db
    await migrate(database, { only: before })
    await runBeginEpoch(database)
    await plain(
      database,
      `create table item (id int, locale text, grp int, extra jsonb, primary key (id, locale)); create table note (id uuid primary key)`,
    )
    await plain(
      database,
      `select stoa.attach('item', 'item', '{id,locale}', '{grp,locale}', 'extra'), stoa.attach('note', 'note', '{id}')`,
    )
    const [row] = (await database.run({
      text: `select pg_snapshot_xmax(pg_current_snapshot())::text as xmax`,
      name: null,
    })) as unknown as [{ xmax: string }]
    const xmax = Number(row.xmax)
    await plain(database, `insert into item values (1, 'en', 10, '{"tag": "x"}')`)

    assert.deepEqual(await migrate(database, { only: [...before, '0022-change-values'] }), [
      '0022-change-values',
    ])
    await plain(database, `update item set grp = null, extra = null where id = 1`)
    await plain(database, `insert into note values ('0197a000-0000-7000-8000-00000000000a')`)
    const { changes } = await runPoll(database, { xmin: xmax, xmax, xip: [] }, 100)
    assert.deepEqual(
      changes.map(({ collection, operation, key, before: was, after }) => [
        collection,
        operation,
        key,
        was,
        after,
      ]),
      [
        ['item', 'insert', '1/en', null, null],
        ['item', 'flush', null, null, null],
        ['note', 'flush', null, null, null],
        [
          'item',
          'update',
          '1/en',
          { grp: 10, locale: 'en', tag: 'x' },
          { grp: null, locale: 'en' },
        ],
        ['note', 'insert', '0197a000-0000-7000-8000-00000000000a', null, {}],
      ],
    )
  },
)

test(
  'names and values that JavaScript takes for something else arrive as they are',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    const { database } = db
    await runBeginEpoch(database)
    await plain(
      database,
      `create table odd (id text primary key, "__proto__" text, o text, "quo""te%s" text, wide char(4), at timestamptz, more jsonb)`,
    )
    await plain(
      database,
      `select stoa.attach('odd', 'odd', '{id}', array['__proto__', 'o', 'quo"te%s', 'wide', 'at'], 'more')`,
    )
    const { snapshot } = await runPoll(database, null, 100)
    await plain(
      database,
      `set extra_float_digits = -5; insert into odd values (E'a\\x1f{,}"', 'NULL', '{"x",NULL}', E'tab\\t\\x1e\\\\', 'w', '1969-12-31T23:59:59.999Z', '{"o": null, "__proto__": {"n": 1}}'); reset extra_float_digits`,
    )
    await plain(database, `insert into odd (id, at) values ('b', '-infinity')`)
    const [odd, empty] = (await runPoll(database, snapshot, 100)).changes
    assert.equal(odd?.key, 'a\u001f{,}"')
    assert.deepEqual(Object.entries(odd.after!), [
      ['__proto__', { n: 1 }],
      ['o', null],
      ['quo"te%s', 'tab\t\u001e\\'],
      ['wide', 'w   '],
      ['at', -1],
    ])
    assert.deepEqual(Object.values(empty!.after!), [null, null, null, null, null])
  },
)
