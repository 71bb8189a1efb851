import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import type { Database, Queryable, Statement } from '#database/database.ts'
import { DatabaseTimeoutError, MigrationError } from '#database/errors.ts'

/** "stoa" in ASCII: the session lock under which one node at a time migrates. */
const lockKey = 0x73746f61
/** As long as a migration on another node may well take. */
const lockWaitDefaultMs = 900_000
const lockPollMs = 100
/**
 * All who use a table queue behind a migration that waits for it. So it waits briefly, gives
 * way, and comes again; all in all for as long as it takes a busy table to have a quiet moment.
 */
const tableWaitMs = 3_000
const tablePauseMs = 1_000
const tableAttemptsMax = 60
/** The longest that a timer can be: a migration may rewrite a large table. */
const noDeadlineMs = 2 ** 31 - 1
const marker = /^-- incompatible\b/m

const migrationsFolder = new URL('migrations/', import.meta.url)
/**
 * The sets of migrations, in the order in which they run. `cluster` is what `stoa/cluster` needs;
 * a site needs both.
 */
const sets = ['cluster', 'content'] as const
export type MigrationSet = (typeof sets)[number]
/** Migrations of the time before sets: those of a database from before the first release. */
const beforeSets = new Set(['0001-content', '0004-cluster'])

type Migration = {
  readonly name: string
  readonly text: string
  readonly checksum: string
  readonly compatible: boolean
}
/** Migrations that run in the order of their names, which all begin with the prefix. */
type Group = { readonly prefix: string; readonly migrations: readonly Migration[] }
type Applied = { name: string; checksum: string; compatible: boolean }

export type MigrateOptions = {
  /** How long to wait for another node that migrates, in milliseconds. */
  readonly lockWaitMs?: number
  /**
   * Called before migrations run that programs of an older version cannot work with, under the
   * lock and before anything has changed. Rejects to refuse.
   */
  readonly beforeIncompatible?: (names: readonly string[]) => Promise<void>
  /** Ends the wait with its reason. A migration that runs is not broken off. */
  readonly signal?: AbortSignal
  /** Only this set: for a program that uses one part of Stoa. */
  readonly set?: MigrationSet
  /** A folder of numbered files to run instead of Stoa's own sets. */
  readonly folder?: URL
}

const lock = sql<{ locked: boolean }>(`select pg_try_advisory_lock($1) as locked`)
const unlock = sql<{ unlocked: boolean }>(`select pg_advisory_unlock($1) as unlocked`)
const holder = sql<{ pid: number; name: string; since: string }>(`
  select a.pid, a.application_name as name, a.backend_start as since
  from pg_locks l join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and l.objid = $1::oid
    and l.database = (select oid from pg_database where datname = current_database())`)
const applied = sql<Applied>(`select name, checksum, compatible from stoa.migration order by name`)
const hasMigrations = sql<{ there: boolean }>(
  `select to_regclass('stoa.migration') is not null as there`,
)
const record = sql(`insert into stoa.migration (name, checksum, compatible) values ($1, $2, $3)`)
const prepare = [
  `create schema if not exists stoa`,
  `create table if not exists stoa.migration (
     name text primary key,
     checksum text not null,
     compatible boolean not null,
     applied_at timestamptz(3) not null default now()
   )`,
]

/**
 * Brings the schema up to this program's. Numbered files run once each, set by set and in order,
 * each in its own transaction, under a session lock: of many nodes that start together one migrates
 * and the others wait for it. Returns the names applied.
 *
 * A released file is never edited: its checksum is kept, and a file that differs from what ran is
 * refused. A program that is older than the schema starts all the same, so that nodes can be
 * replaced one by one, unless a migration that it does not know begins a line with `--
 * incompatible`.
 *
 * Errors: `MigrationError` (the message says what to do), `DatabaseTimeoutError` (another node
 * holds the lock, or a table never was free), and those of the database.
 */
export async function migrate(database: Database, options: MigrateOptions = {}): Promise<string[]> {
  const groups = await loadGroups(options)
  return database.session(async (session) => {
    await takeLock(session, options)
    try {
      for (const text of ['set statement_timeout = 0', ...prepare])
        await session.run({ text, prepare: 'never' })
      return await applyMissing(session, groups, options)
    } finally {
      await leave(session)
    }
  })
}

async function takeLock(
  session: Queryable,
  { lockWaitMs = lockWaitDefaultMs, signal }: MigrateOptions,
): Promise<void> {
  const deadline = performance.now() + lockWaitMs
  for (;;) {
    const [row] = await session.run(lock, [lockKey])
    if (row?.locked === true) return
    if (performance.now() > deadline) break
    signal?.throwIfAborted()
    await sleep(lockPollMs)
  }
  const [other] = await session.run(holder, [lockKey])
  const who =
    other === undefined
      ? ''
      : ` It is the connection "${other.name}" (server process ${other.pid}, since ${other.since}).`
  throw new DatabaseTimeoutError(
    `Another node has been migrating the schema for over ${Math.round(lockWaitMs / 1_000)} s.` +
      `${who} Wait for it; if that node is gone, end its connection with pg_terminate_backend.`,
    { pid: other?.pid },
  )
}

/**
 * On a connection that broke, the server has released the lock by itself, and the caller gets the
 * first error.
 */
async function leave(session: Queryable): Promise<void> {
  try {
    await session.run({ text: 'reset statement_timeout', prepare: 'never' })
    await session.run(unlock, [lockKey])
  } catch {
    return
  }
}

/**
 * Whether `migrate` would refuse this database, without changing it. Errors: `MigrationError`, and
 * those of the database.
 */
export async function checkSchema(database: Database, options: MigrateOptions = {}): Promise<void> {
  const [found] = await database.run(hasMigrations)
  if (found?.there !== true) return
  missingOf(await database.run(applied), await loadGroups(options))
}

async function applyMissing(
  session: Queryable,
  groups: readonly Group[],
  { beforeIncompatible }: MigrateOptions,
): Promise<string[]> {
  const rows = await session.run(applied)
  const missing = missingOf(rows, groups)
  const incompatible = missing.filter(({ compatible }) => !compatible)
  if (rows.length > 0 && incompatible.length > 0)
    await beforeIncompatible?.(incompatible.map(({ name }) => name))
  for (const migration of missing) await applyWhenFree(session, migration)
  return missing.map((migration) => migration.name)
}

function missingOf(rows: readonly Applied[], groups: readonly Group[]): Migration[] {
  refuseUnreleased(rows)
  return groups.flatMap((group) => {
    const before = rows.filter((row) => row.name.startsWith(group.prefix))
    refuseNewer(before, group.migrations)
    return group.migrations.filter((migration) => isMissing(migration, before))
  })
}

function refuseUnreleased(rows: readonly Applied[]): void {
  if (rows.every((row) => !beforeSets.has(row.name))) return
  throw new MigrationError(
    'This database was made by a Stoa from before the first release, whose tables this version ' +
      'does not read. Nothing was changed. Take the content over: run `stoa export DIR` with ' +
      'that version, start this one on an empty database, and run `stoa import DIR` there.',
  )
}

function refuseNewer(before: readonly Applied[], migrations: readonly Migration[]): void {
  const known = new Set(migrations.map((migration) => migration.name))
  const foreign = before.filter((row) => !known.has(row.name) && !row.compatible)
  if (foreign.length === 0) return
  throw new MigrationError(
    `The database has been upgraded by a newer Stoa ` +
      `(${foreign.map((row) => row.name).join(', ')}), and this version cannot work with it: ` +
      `start the newer one.`,
    { unknown: foreign.map((row) => row.name) },
  )
}

function isMissing(migration: Migration, before: readonly Applied[]): boolean {
  const row = before.find((one) => one.name === migration.name)
  if (row === undefined) {
    const last = before.at(-1)?.name
    if (last === undefined || last < migration.name) return true
    throw new MigrationError(
      `Migration ${migration.name} is new here, but ${last} has run already: give the new ` +
        `file a number after it.`,
      { name: migration.name, last },
    )
  }
  if (row.checksum === migration.checksum) return false
  throw new MigrationError(
    `Migration ${migration.name} was changed after it ran here; restore the released file.`,
    { name: migration.name },
  )
}

async function applyWhenFree(session: Queryable, migration: Migration): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await session.transaction(async (tx) => {
        await tx.run({ text: `set local lock_timeout = ${tableWaitMs}`, prepare: 'never' })
        // It comes first: a second program that runs the same migration waits here, and then fails.
        await tx.run(record, [migration.name, migration.checksum, migration.compatible])
        const statement: Statement<object> = {
          text: migration.text,
          prepare: 'never',
          timeoutMs: noDeadlineMs,
        }
        await tx.run(statement)
      })
      return
    } catch (error) {
      if (!(error instanceof DatabaseTimeoutError) || attempt >= tableAttemptsMax) throw error
      await sleep(tablePauseMs)
    }
  }
}

async function loadGroups({ folder, set }: MigrateOptions): Promise<Group[]> {
  if (folder !== undefined) return [{ prefix: '', migrations: await load(folder, '') }]
  return Promise.all(
    sets
      .filter((one) => set === undefined || one === set)
      .map(async (one) => ({
        prefix: `${one}/`,
        migrations: await load(new URL(`${one}/`, migrationsFolder), `${one}/`),
      })),
  )
}

async function load(folder: URL, prefix: string): Promise<Migration[]> {
  const files = (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort()
  return Promise.all(
    files.map(async (file) => {
      const text = await readFile(new URL(file, folder), 'utf8')
      return {
        name: `${prefix}${file.slice(0, -'.sql'.length)}`,
        text,
        checksum: createHash('sha256').update(text).digest('hex'),
        compatible: !marker.test(text),
      }
    }),
  )
}
