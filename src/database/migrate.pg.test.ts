import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { migrate } from '#database/migrate.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

test('twenty first starts at once migrate once', { skip: databaseMissing }, async () => {
  await using db = await testDatabase({ migrated: false, connectionsMax: 20 })
  const applied = await Promise.all(Array.from({ length: 20 }, () => migrate(db.database)))
  assert.equal(applied.filter((names) => names.length > 0).length, 1)
  const rows = await db.database.run(sql<{ name: string }>(`select name from stoa.migration order by name`))
  assert.deepEqual(rows.map((row) => row.name), applied.flat())
})
