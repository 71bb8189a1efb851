import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { PreparedStatements } from '#database/postgres/prepared-statements.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'

/** More than any connection keeps, and more than a process once had names for. */
const shapes = 3_000
/** The last shapes are used often enough for the server to keep a plan for any values. */
const manyTimes = 300
const secondPlanFrom = 8
/** The estimate of `preparedBytesMax`, and as much again for second plans. */
const memoryMaxMb = 64

const prepared = sql<{ n: number }>(
  `select count(*)::int as n from pg_prepared_statements`,
  'never',
)
const has = sql<{ n: number }>(
  `select count(*)::int as n from pg_prepared_statements where statement = $1`,
  'never',
)
const memory = sql<{ mb: number }>(
  `select (sum(total_bytes) / 1048576)::float8 as mb from pg_backend_memory_contexts where ` +
    `name like 'CachedPlan%'`,
  'never',
)

/** A list as a reader may ask for it, another text for each number. */
function list(number: number): string {
  const conditions = Array.from(
    { length: 8 },
    (_, at) => `and (v.filter->'f${(number + at) % shapes}') is distinct from to_jsonb($2::text)`,
  )
  return `select v.entry_id, v.number, v.data, v.locale, v.saved_at from stoa.version v
    where v.type = $1 and v.is_latest ${conditions.join(' ')} order by v.entry_id desc limit 20`
}

test(
  'whatever is asked for, a connection keeps bounded statements, and those that come again',
  { skip },
  async () => {
    await using db = await testDatabase()
    const database = new PostgresDatabase({
      url: db.url,
      connectionsMax: 1,
      statementTimeoutMs: 10_000,
      connectTimeoutMs: 10_000,
      logger: silentLogger,
    })
    try {
      const honest = sql(list(0), 'repeated')
      for (let number = 1; number <= shapes; number += 1) {
        const odd = sql(list(number), 'repeated')
        const times = number > shapes - manyTimes ? secondPlanFrom : 2
        for (let time = 0; time < times; time += 1) await database.run(odd, ['article', 'x'])
        if (number % 10 === 0) await database.run(honest, ['article', 'x'])
      }
      const [{ mb } = { mb: 0 }] = await database.run(memory)
      const [{ n } = { n: 0 }] = await database.run(prepared)
      assert.ok(n > 20 && n < 1_000, `${n} statements are prepared`)

      assert.ok(mb < memoryMaxMb, `${mb} MB of plans`)
      assert.deepEqual(await database.run(has, [honest.text]), [{ n: 1 }])
    } finally {
      await database.close()
    }
  },
)

test('a statement that fails is prepared anew when it is asked for again', { skip }, async () => {
  await using db = await testDatabase({ migrated: false, connectionsMax: 1 })
  const { database } = db
  const divide = sql<{ n: number }>('select 10 / $1::int as n')
  await assert.rejects(database.run(divide, [0]))
  await assert.rejects(database.run(divide, ['x']))
  assert.deepEqual(await database.run(divide, [5]), [{ n: 2 }])
  const later = sql<{ n: number }>('select n from later')
  await assert.rejects(database.run(later))
  await database.run(sql('create table later (n int)', 'never'))
  assert.deepEqual(await database.run(later), [])
})

test('the least recently used goes first, and is closed with the next statement', () => {
  const statements = new PreparedStatements()
  const long = (name: string): string => `select '${name}'`.padEnd(20_000)
  const first = statements.of(long('first'))
  while (statements.takeClosing().length === 0) {
    assert.equal(statements.of(long('first')), first)
    statements.of(long(String(statements.count)))
    assert.ok(statements.count < 100)
  }
  assert.equal(statements.of(long('first')), first)
})

test('a text is repeated from its second use on, while it is remembered', () => {
  const statements = new PreparedStatements()
  assert.deepEqual(
    ['a', 'b', 'a'].map((text) => statements.isRepeated(text)),
    [false, false, true],
  )
  for (let number = 0; number < 1_000; number += 1) statements.isRepeated(`odd ${number}`)
  assert.equal(statements.isRepeated('b'), false)
})
