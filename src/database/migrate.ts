import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { MigrationError } from '#database/errors.ts'

/** "stoa" in ASCII: the session lock under which one node at a time migrates. */
const lockKey = 0x73746f61

const folder = new URL('migrations/', import.meta.url)

type Migration = { readonly name: string; readonly text: string; readonly checksum: string }

const lock = sql<{ locked: string }>(`select pg_advisory_lock($1)::text as locked`)
const unlock = sql<{ unlocked: boolean }>(`select pg_advisory_unlock($1) as unlocked`)
const applied = sql<{ name: string; checksum: string }>(`select name, checksum from stoa.migration order by name`)
const record = sql(`insert into stoa.migration (name, checksum) values ($1, $2)`)
const prepare = [
  `create schema if not exists stoa`,
  `create table if not exists stoa.migration (
     name text primary key,
     checksum text not null,
     applied_at timestamptz(3) not null default now()
   )`,
]

/**
 * Brings the schema up to this program's. Numbered files run once each, in order, each in its own transaction, under a
 * session lock: of many nodes that start together one migrates and the others wait for it. Returns the names applied.
 */
export async function migrate(database: Database): Promise<string[]> {
  const migrations = await load()
  return database.session(async (session) => {
    await session.run(lock, [lockKey])
    try {
      for (const text of prepare) await session.run({ text, name: null })
      return await applyMissing(session, migrations)
    } finally {
      await session.run(unlock, [lockKey])
    }
  })
}

async function applyMissing(session: Queryable, migrations: readonly Migration[]): Promise<string[]> {
  const before = new Map((await session.run(applied)).map((row) => [row.name, row.checksum]))
  const fresh: string[] = []
  for (const migration of migrations) {
    const checksum = before.get(migration.name)
    if (checksum === migration.checksum) continue
    if (checksum !== undefined) {
      throw new MigrationError(`Migration ${migration.name} was changed after it ran here; restore the released file.`)
    }
    await session.transaction(async (tx) => {
      await tx.run({ text: migration.text, name: null })
      await tx.run(record, [migration.name, migration.checksum])
    })
    fresh.push(migration.name)
  }
  return fresh
}

async function load(): Promise<Migration[]> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort()
  return Promise.all(
    files.map(async (file) => {
      const text = await readFile(new URL(file, folder), 'utf8')
      return { name: file.slice(0, -'.sql'.length), text, checksum: createHash('sha256').update(text).digest('hex') }
    }),
  )
}
