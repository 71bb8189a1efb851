import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram, temporaryFolder, withoutSettings } from '#test/support/node.ts'

const skip = databaseMissing
const deadlineMs = 60_000

type Settings = Readonly<Record<string, string>>

/** Starts a node that is to fail; resolves to what it printed. */
async function refused(settings: Settings): Promise<string> {
  const child = spawn(process.execPath, [stoaProgram, 'start'], {
    env: { ...withoutSettings, ...settings },
    timeout: deadlineMs,
  })
  let output = ''
  child.stdout.on('data', (chunk) => (output += String(chunk)))
  child.stderr.on('data', (chunk) => (output += String(chunk)))
  const status = await new Promise((resolve) => child.once('exit', resolve))
  assert.equal(status, 1, output)
  return output
}

/** All that a node could change, as text: tables, migrations, nodes, leaders, content, files. */
async function stateOf(database: Database, folders: readonly string[]): Promise<string> {
  const run = async (text: string): Promise<unknown> => database.run(sql(text))
  const tables = await run(
    `select table_name, column_name, data_type from information_schema.columns
     where table_schema = 'stoa' order by 1, 2`,
  )
  const rows = (tables as object[]).length === 0 ? [] : await rowsOf(run)
  const files = folders.map((folder) =>
    existsSync(folder)
      ? readdirSync(folder, { recursive: true, withFileTypes: true })
          .filter((file) => file.isFile())
          .map((file) => join(file.parentPath, file.name))
          .sort()
      : 'absent',
  )
  return JSON.stringify({ files, rows, tables })
}

async function rowsOf(run: (text: string) => Promise<unknown>): Promise<unknown> {
  return [
    await run(`select name from stoa.migration order by name`),
    await run(`select id, info::jsonb - 'starting' as info from stoa.node order by id`),
    await run(`select duty, holder, fence from stoa.leadership order by duty`),
    await run(`select value from stoa.secret`),
    await run(`select name from stoa.content_type order by name`),
    await run(`select count(*)::int as entries from stoa.entry`),
  ]
}

test('a node whose port is taken makes no schema and no folder', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  await using folder = await temporaryFolder()
  const data = join(folder.path, 'data')
  const port = await freePort()
  const taken = createServer().listen(port, '127.0.0.1')
  await new Promise((resolve) => taken.once('listening', resolve))
  try {
    const before = await stateOf(db.database, [data])
    for (const settings of [{ STOA_DATABASE_URL: db.url }, {}]) {
      const output = await refused({ STOA_DATA: data, STOA_PORT: String(port), ...settings })
      assert.match(output, /E_LISTEN/)
      assert.equal(await stateOf(db.database, [data]), before)
    }
  } finally {
    taken.close()
  }
})

test('a node that is refused, or cannot start, has changed nothing', { skip }, async () => {
  await using db = await testDatabase({ migrated: false })
  await using one = await temporaryFolder()
  await using two = await temporaryFolder()
  const common = { STOA_DATABASE_URL: db.url, STOA_STARTER: 'false', STOA_NODE: 'first' }
  await using first = await startNode({ dataDir: one.path, environment: common })
  await new Promise((resolve) => setTimeout(resolve, 4_000))
  const second = async (more: Settings): Promise<string> =>
    refused({
      ...common,
      STOA_NODE: 'second',
      STOA_STARTER: 'true',
      STOA_PORT: String(await freePort()),
      STOA_DATA: one.path,
      ...more,
    })
  const file = join(two.path, 'file')
  writeFileSync(file, 'in the way')
  const unchanged = async (more: Settings, code: RegExp): Promise<void> => {
    // A refused node may have made its own data folder; the shared files are as they were.
    const folders = [join(one.path, 'files')]
    const before = await stateOf(db.database, folders)
    assert.match(await second(more), code)
    assert.equal(await stateOf(db.database, folders), before, String(code))
  }
  await unchanged({ STOA_DATA: join(two.path, 'other') }, /E_FILES_MISMATCH/)
  await unchanged({ STOA_SECRET: 'another secret, long enough to be one' }, /E_NODES_SECRET/)
  await unchanged({ STOA_PORT: new URL(first.origin).port }, /E_LISTEN/)
  await unchanged({ STOA_DATA: file }, /E_DATA_FOLDER/)
  await db.database.run(
    sql(
      `insert into stoa.migration (name, checksum, compatible)
       values ('content/9999-newer', '', false)`,
    ),
  )
  await unchanged({}, /upgraded by a newer Stoa/)
  await db.database.run(
    sql(`update stoa.migration set name = '0001-content' where name = 'content/9999-newer'`),
  )
  await unchanged({}, /from before the first release/)
})
