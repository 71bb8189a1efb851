import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, globSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { sql } from '#database/database.ts'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'
import { embeddedMissing } from '#test/support/embedded.ts'
import { startNode, stoaProgram, temporaryFolder, withoutSettings } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'

/** STOA_TEST_COLD_STARTS=20 for what issue 3 asks; fewer fit into every run. */
const coldStarts = Number(process.env['STOA_TEST_COLD_STARTS'] ?? 6)
const deadlineMs = 60_000

test(
  `${coldStarts} cold starts at once on an empty database: one cluster, one migration, no error`,
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using folder = await temporaryFolder()
    const ports = await Promise.all(Array.from({ length: coldStarts }, freePort))
    // The same folder and the same database, and a port each: no other setting.
    const nodes = await Promise.all(
      ports.map((port) =>
        startNode({
          dataDir: folder.path,
          environment: { STOA_DATABASE_URL: db.url, STOA_PORT: String(port) },
        }),
      ),
    )
    try {
      const rows = await db.database.run(
        sql<{ name: string; address: string; fingerprint: string }>(
          `select info->>'name' as name, info->>'address' as address,
             info->>'fingerprint' as fingerprint
           from stoa.node`,
        ),
      )
      assert.deepEqual(
        rows.map(({ address }) => address).sort(),
        ports.map((port) => `127.0.0.1:${port}`).sort(),
        'all have joined',
      )
      assert.equal(
        new Set(rows.map(({ name }) => name)).size,
        coldStarts,
        'each has a name of its own',
      )
      assert.equal(new Set(rows.map(({ fingerprint }) => fingerprint)).size, 1)
      const migrations = await db.database.run(
        sql<{ name: string }>(`select name from stoa.migration order by name`),
      )
      assert.deepEqual(
        migrations.map(({ name }) => `${name}.sql`),
        globSync('*/*.sql', { cwd: 'src/database/migrations' }).sort(),
      )
      const pages = await Promise.all(
        nodes.map(
          async ({ origin }) =>
            (
              (await (await fetch(`${origin}/api/content/page?limit=100`)).json()) as {
                data: unknown[]
              }
            ).data.length,
        ),
      )
      assert.equal(
        new Set(pages).size,
        1,
        `the starter content was created once: ${pages.join(' ')}`,
      )
      const complaints = nodes.flatMap((node) =>
        node
          .output()
          .split('\n')
          .filter((line) => /"level":"?(50|60|error)/.test(line)),
      )
      assert.deepEqual(complaints, [], 'no error was logged')
    } finally {
      assert.deepEqual(
        await Promise.all(nodes.map(async (node) => node.stop())),
        nodes.map(() => 0),
        'all end in order',
      )
    }
    assert.deepEqual(await db.database.run(sql(`select id from stoa.node`)), [])
  },
)

test(
  'a node with other files or another secret is refused, with the setting to change',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    await using one = await temporaryFolder()
    await using two = await temporaryFolder()
    const environment = { STOA_DATABASE_URL: db.url, STOA_STARTER: 'false', STOA_NODE: 'first' }
    const first: RunningNode = await startNode({ dataDir: one.path, environment })
    const refused = async (folder: string, more: Record<string, string>): Promise<string> => {
      const env = {
        ...withoutSettings,
        ...environment,
        STOA_NODE: 'second',
        STOA_DATA: folder,
        STOA_PORT: String(await freePort()),
        ...more,
      }
      const { status, stderr } = spawnSync(process.execPath, [stoaProgram, 'start'], {
        encoding: 'utf8',
        timeout: deadlineMs,
        env,
      })
      assert.equal(status, 1, stderr)
      return stderr
    }
    try {
      assert.match(
        await refused(two.path, {}),
        /The files of this site are not in .*, which is empty\. .*STOA_FILES_URL.*\(E_FILES_MISMATCH\)/,
      )
      const missing = join(two.path, 'no such', 'folder')
      assert.match(
        await refused(two.path, { STOA_FILES_URL: pathToFileURL(missing).href }),
        /does not exist; make it, or mount its file system\. \(E_FILE_STORE_UNAVAILABLE\)/,
      )
      assert.ok(!existsSync(join(two.path, 'no such')), 'no folder was made')
      assert.match(
        await refused(one.path, { STOA_SECRET: 'another secret, which is as long as it must be' }),
        /Set STOA_SECRET .*\(E_NODES_SECRET\)/,
      )
      // The same folder by another way is the same files.
      const second = await startNode({
        dataDir: two.path,
        environment: { ...environment, STOA_FILES_URL: `file://${one.path}/files` },
      })
      assert.equal(await second.stop(), 0)
    } finally {
      // The row of a killed node stays, and must not keep others from joining.
      first.process.kill('SIGKILL')
      await first.stop()
    }
    assert.match(await refused(two.path, {}), /E_FILES_MISMATCH/, 'also when it is alone')
    await using alone = await startNode({
      dataDir: two.path,
      environment: { ...environment, STOA_FILES_URL: `file://${one.path}/files` },
    })
    const rows = await db.database.run(
      sql<{ address: string }>(`select info->>'address' as address from stoa.node`),
    )
    assert.ok(rows.some(({ address }) => address === new URL(alone.origin).host))
  },
)

test(
  'a node on the embedded database of another one is refused',
  { skip: embeddedMissing() },
  async () => {
    await using node = await startNode({ environment: { STOA_STARTER: 'false' } })
    await using folder = await temporaryFolder()
    const url = (await readFile(join(node.dataDir, 'postgres/url'), 'utf8')).trim()
    const env = {
      ...withoutSettings,
      STOA_DATABASE_URL: url,
      STOA_DATA: folder.path,
      STOA_PORT: String(await freePort()),
    }
    const { status, stderr } = spawnSync(process.execPath, [stoaProgram, 'start'], {
      encoding: 'utf8',
      timeout: deadlineMs,
      env,
    })
    assert.equal(status, 1, stderr)
    assert.match(stderr, /embedded in one of them.*STOA_DATABASE_URL.*\(E_NODES_DATABASE\)/)
  },
)
