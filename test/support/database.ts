import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chown, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execFileSync } from 'node:child_process'
import pg from 'pg'
import type { Database } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { migrate } from '#database/migrate.ts'
import { silentLogger } from '#lib/logger.ts'

/**
 * A PostgreSQL for tests. `npm test` starts one for the whole run and names it in
 * STOA_TEST_DATABASE_URL; a file that is run by itself starts its own and stops it at the end. Each
 * test file gets a database made from one template.
 */
export type TestDatabase = AsyncDisposable & { readonly database: Database; readonly url: string }

let server: Promise<{ url: string; stop: () => Promise<void> }> | null = null

function systemBinaries(): string | null {
  for (const version of [18, 17, 16, 15]) {
    const folder = `/usr/lib/postgresql/${version}/bin`
    if (existsSync(join(folder, 'postgres'))) return folder
  }
  return null
}

/** The reason why tests with a database cannot run here, or false: for `test(name, { skip })`. */
export const databaseMissing: string | false =
  process.env['STOA_TEST_DATABASE_URL'] === undefined && systemBinaries() === null
    ? 'no PostgreSQL here: install the package postgresql, or set STOA_TEST_DATABASE_URL'
    : false

export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

/**
 * Starts a throw-away PostgreSQL on loopback, as an unprivileged user where this one is root.
 * `durable`: as in production, for benchmarks. `settings`: more, as `name=value`. `folder`: where
 * its files are.
 */
export async function startTestPostgres(
  options: {
    readonly durable?: boolean
    readonly settings?: readonly string[]
    readonly folder?: string
  } = {},
): Promise<{ url: string; stop: () => Promise<void> }> {
  const binaries = systemBinaries()
  if (binaries === null) throw new Error(String(databaseMissing))
  const folder = await mkdtemp(join(options.folder ?? tmpdir(), 'stoa-test-pg-'))
  const asRoot = process.getuid?.() === 0
  const identity = asRoot ? { uid: 65_534, gid: 65_534 } : {}
  if (asRoot) await chown(folder, 65_534, 65_534)
  const data = join(folder, 'data')
  const env = { ...process.env, LC_ALL: 'C.UTF-8', HOME: folder }
  execFileSync(
    join(binaries, 'initdb'),
    ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'],
    { ...identity, env, cwd: folder, stdio: 'ignore' },
  )
  const port = await freePort()
  const quick = ['fsync=off', 'full_page_writes=off', 'synchronous_commit=off']
  const settings = [
    'listen_addresses=127.0.0.1',
    'max_connections=300',
    'max_prepared_transactions=16',
    ...(options.durable === true ? ['shared_buffers=512MB', 'max_wal_size=4GB'] : quick),
    ...(options.settings ?? []),
  ]
  const child = spawn(
    join(binaries, 'postgres'),
    [
      '-D',
      data,
      '-k',
      folder,
      '-p',
      String(port),
      ...settings.flatMap((setting) => ['-c', setting]),
    ],
    { ...identity, env, cwd: folder, stdio: 'ignore' },
  )
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.unref()
  const killAtExit = (): void => void child.kill('SIGQUIT')
  process.once('exit', killAtExit)
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  await until(async () => withClient(url, async () => undefined))
  return {
    url,
    stop: async () => {
      process.off('exit', killAtExit)
      child.ref()
      child.kill('SIGINT')
      await ended
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function until(attempt: () => Promise<void>): Promise<void> {
  const deadline = Date.now() + 20_000
  for (;;) {
    try {
      await attempt()
      return
    } catch (error) {
      if (Date.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

function at(url: string, name: string): string {
  const result = new URL(url)
  result.pathname = `/${name}`
  return result.toString()
}

async function serverUrl(): Promise<{ url: string; release: () => Promise<void> }> {
  const shared = process.env['STOA_TEST_DATABASE_URL']
  if (shared !== undefined) return { url: shared, release: async () => undefined }
  server ??= startTestPostgres()
  const own = await server
  users += 1
  return {
    url: own.url,
    release: async () => {
      users -= 1
      if (users > 0) return
      server = null
      await own.stop()
    },
  }
}

let users = 0

type TestDatabaseOptions = {
  readonly connectionsMax?: number
  /** False leaves it empty. */
  readonly migrated?: boolean
  /** Sorts text by the rules of this ICU locale, as many servers do, and not by code point. */
  readonly icuLocale?: string
  /** A copy of this one on the same server; its connections are ended for it. */
  readonly copyOf?: TestDatabase
}

/** A fresh, migrated database: `await using db = await testDatabase()`. Dropped at the end. */
export async function testDatabase(options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const { url: root, release } = await serverUrl()
  const name = `stoa_test_${randomBytes(6).toString('hex')}`
  await withClient(root, async (client) => {
    if (options.copyOf !== undefined) {
      await copyDatabase(client, new URL(options.copyOf.url).pathname.slice(1), name)
      return
    }
    if (options.migrated === false) {
      await client.query(`create database ${name} template template0`)
      return
    }
    if (options.icuLocale !== undefined) {
      await client.query(
        `create database ${name} template template0
         locale_provider icu icu_locale '${options.icuLocale}'`,
      )
      return
    }
    await client.query(`select pg_advisory_lock(7357)`)
    const { rows } = await client.query(
      `select 1 from pg_database where datname = 'stoa_test_template'`,
    )
    if (rows.length === 0) {
      await client.query(`create database stoa_test_building template template0`)
      const building = open(at(root, 'stoa_test_building'), 2)
      await migrate(building)
      await building.close()
      await client.query(`alter database stoa_test_building rename to stoa_test_template`)
    }
    await client.query(`create database ${name} template stoa_test_template`)
    await client.query(`select pg_advisory_unlock(7357)`)
  })
  const url = at(root, name)
  const database = open(url, options.connectionsMax ?? 10)
  if (options.icuLocale !== undefined) await migrate(database)
  return {
    database,
    url,
    [Symbol.asyncDispose]: async () => {
      await database.close()
      await withClient(
        root,
        async (client) => void (await client.query(`drop database ${name} with (force)`)),
      )
      await release()
    },
  }
}

/** PostgreSQL copies a database only while nothing is connected to it. */
async function copyDatabase(client: pg.Client, source: string, name: string): Promise<void> {
  await client.query(`alter database ${source} allow_connections false`)
  try {
    await until(async () => {
      await client.query(
        `select pg_terminate_backend(pid, 1000) from pg_stat_activity where datname = $1`,
        [source],
      )
      await client.query(`create database ${name} template ${source}`)
    })
  } finally {
    await client.query(`alter database ${source} allow_connections true`)
  }
}

function open(url: string, connectionsMax: number): PostgresDatabase {
  return new PostgresDatabase({
    url,
    connectionsMax,
    statementTimeoutMs: 10_000,
    connectTimeoutMs: 10_000,
    logger: silentLogger,
  })
}
