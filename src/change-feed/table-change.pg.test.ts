import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runBeginEpoch, runPoll } from '#change-feed/poll.ts'
import type { Database } from '#database/database.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing

async function plain(database: Database, text: string): Promise<void> {
  await database.run({ text, prepare: 'never' })
}

test('values of every kind arrive as JSON has them', { skip }, async () => {
  await using db = await testDatabase()
  const { database } = db
  await runBeginEpoch(database)
  await plain(
    database,
    `create table kind (id int primary key, "a ""b' 5%" int8, yes bool, no bool, whole int2,
       price numeric, share float8, ref uuid, day date, at timestamptz, tags text[],
       more jsonb, blob bytea)`,
  )
  await plain(
    database,
    `select stoa.attach('kind', 'kind', '{id}', array['a "b'' 5%', 'yes', 'no', 'whole', 'price',
       'share', 'ref', 'day', 'at', 'tags', 'more', 'blob'], 'more')`,
  )
  const { snapshot } = await runPoll(database, null, 100)
  await plain(
    database,
    `insert into kind values (1, 9007199254740991, true, false, -3, 1.50, 0.25,
       '0197a000-0000-7000-8000-00000000000a', '2026-01-02', '2026-01-02T03:04:05.678Z',
       '{x,"y z"}', '{"k": [1]}', '\\x01');
     insert into kind (id) values (2)`,
  )
  const [full, empty] = (await runPoll(database, snapshot, 100)).changes
  assert.deepEqual(full?.after, {
    'a "b\' 5%': 9_007_199_254_740_991,
    yes: true,
    no: false,
    whole: -3,
    price: 1.5,
    share: 0.25,
    ref: '0197a000-0000-7000-8000-00000000000a',
    day: '2026-01-02',
    at: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
    tags: ['x', 'y z'],
    more: { k: [1] },
    blob: '\\x01',
    k: [1],
  })
  assert.deepEqual(new Set(Object.values(empty?.after ?? {})), new Set([null]))
})
