import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import { linkContract } from '#cluster-link/contract.ts'
import { PostgresLink } from '#cluster-link/drivers/postgres.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

linkContract('PostgreSQL NOTIFY', {
  skip: databaseMissing,
  open: async (count) => {
    const db = await testDatabase({ migrated: false })
    const links = Array.from({ length: count }, () => new PostgresLink({ url: db.url, logger: silentLogger }))
    // A link that is still connecting hears nothing yet: losing that is allowed, but not what is tested here.
    await Promise.all(links.map((link) => link.send('warm', 'x')))
    return {
      links,
      [Symbol.asyncDispose]: async () => {
        await Promise.all(links.map((link) => link.close()))
        await db[Symbol.asyncDispose]()
      },
    }
  },
})

test('PostgreSQL NOTIFY: a broken connection is made again by itself', { skip: databaseMissing }, async () => {
  await using db = await testDatabase({ migrated: false })
  const link = new PostgresLink({ url: db.url, logger: silentLogger })
  await link.send('feed', 'x')
  await db.database.run(sql(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and query like 'listen%' or query like '%pg_notify%' and pid <> pg_backend_pid()`))
  const deadline = Date.now() + 10_000
  for (;;) {
    try {
      await link.send('feed', 'again')
      break
    } catch (error) {
      if (Date.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  assert.equal(link.connected, true)
  await link.close()
})
