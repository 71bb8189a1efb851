import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { DatabaseNotSharedError } from '#nodes/errors.ts'
import { joinNodes } from '#nodes/join.ts'
import type { OtherNode } from '#nodes/join.ts'
import type { NodeInfo } from '#nodes/node-info.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'

const insert = sql(`insert into stoa.node (id, counter, info) values ($1, 5, $2)`)
const ids = sql<{ id: string }>(`select id from stoa.node order by id`)
const described = (name: string, traits: Readonly<Record<string, string>> = {}): NodeInfo => ({
  name,
  address: null,
  version: '1',
  fingerprint: '',
  traits,
})

test('a node that has certainly ended is removed at once, before admission', { skip }, async () => {
  await using db = await testDatabase()
  await db.database.run(insert, [
    'a',
    JSON.stringify(described('former', { database: 'embedded' })),
  ])
  await db.database.run(insert, ['b', JSON.stringify(described('other', { database: 'external' }))])
  const seen: (readonly OtherNode[])[] = []
  const info = await joinNodes({
    id: 'c',
    database: db.database,
    leaseMs: 60_000,
    ended: ({ traits }) => traits?.['database'] === 'embedded',
    admit: async (others) => {
      seen.push(others)
      return described('new')
    },
  })
  assert.equal(info.name, 'new')
  assert.deepEqual(
    seen.map((others) => others.map((other) => other.info.name)),
    [['other']],
  )
  assert.deepEqual(
    (await db.database.run(ids)).map(({ id }) => id),
    ['b', 'c'],
  )
})

test(
  'a row that refuses and stands still for longer than a lease is dead; one that beats is not',
  { skip },
  async () => {
    await using db = await testDatabase()
    await db.database.run(insert, ['a', JSON.stringify(described('other'))])
    const join = async (id: string): Promise<NodeInfo> =>
      joinNodes({
        id,
        database: db.database,
        leaseMs: 300,
        admit: async (others) => {
          if (others.some((other) => other.info.name === 'other'))
            throw new DatabaseNotSharedError('There is another one.', ['a'])
          return described(id)
        },
      })
    const beating = setInterval(
      () => void db.database.run(sql(`update stoa.node set counter = counter + 1 where id = 'a'`)),
      20,
    )
    await assert.rejects(join('b'), DatabaseNotSharedError)
    clearInterval(beating)
    assert.equal((await join('b')).name, 'b')
    assert.deepEqual(
      (await db.database.run(ids)).map(({ id }) => id),
      ['b'],
    )
  },
)

test(
  'a joining node that hangs delays the others for a bounded time, and is not admitted later',
  { skip },
  async () => {
    await using db = await testDatabase()
    const [joining, hanging] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const hangs = joinNodes({
      id: 'a',
      database: db.database,
      leaseMs: 300,
      admit: async () => {
        joining.resolve()
        await hanging.promise
        return described('a')
      },
    })
    const refused = assert.rejects(hangs, DatabaseUnavailableError)
    const join = async (): Promise<NodeInfo> =>
      joinNodes({ id: 'b', database: db.database, leaseMs: 300, admit: async () => described('b') })
    await joining.promise
    try {
      assert.equal((await join()).name, 'b')
    } finally {
      hanging.resolve()
    }
    await refused
    assert.deepEqual(
      (await db.database.run(ids)).map(({ id }) => id),
      ['b'],
    )
  },
)
