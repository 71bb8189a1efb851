/**
 * A node reduced to its database: starts the embedded PostgreSQL on the folder named by the first
 * argument, prints one line of JSON, and stays until it gets SIGTERM or is killed. With a second
 * argument so many writers insert rows, and each row's number is printed once the database has
 * acknowledged it. Tests run it as a process of its own to kill it.
 */
import { writeSync } from 'node:fs'
import { sql } from '#database/database.ts'
import { startEmbeddedPostgres } from '#embedded-postgres/embedded-postgres.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { silentLogger } from '#lib/logger.ts'

const [, , dataDir, writers = '0'] = process.argv
if (dataDir === undefined) throw new Error('usage: embedded-node.ts DATA_DIR [WRITERS]')
/** Writes go straight into the pipe: each line that the parent reads was acknowledged here. */
const say = (line: string): void => void writeSync(1, `${line}\n`)
const insert = sql<{ n: string }>('insert into written (body) values ($1) returning n')

async function write(database: PostgresDatabase): Promise<never> {
  for (;;) {
    const [row] = await database.run(insert, ['x'.repeat(2_000)])
    say(String(row?.n))
  }
}

const startedAt = performance.now()
try {
  const embedded = await startEmbeddedPostgres({ dataDir, logger: silentLogger })
  const hold = setInterval(() => undefined, 60_000)
  process.once('SIGTERM', () => {
    clearInterval(hold)
    void embedded.stop()
  })
  say(JSON.stringify({ url: embedded.url, ms: performance.now() - startedAt }))
  if (writers !== '0') {
    const database = new PostgresDatabase({
      url: embedded.url,
      connectionsMax: Number(writers),
      statementTimeoutMs: 10_000,
      connectTimeoutMs: 10_000,
      logger: silentLogger,
    })
    await database.run({
      text: 'create table if not exists written (n bigserial primary key, body text)',
      prepare: 'never',
    })
    await Promise.all(Array.from({ length: Number(writers) }, async () => write(database)))
  }
} catch (error) {
  if (!(error instanceof StoaError)) throw error
  say(JSON.stringify({ code: error.code, message: error.message, facts: error.facts }))
  process.exitCode = 1
}
