import assert from 'node:assert/strict'
import { chmod, copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startNode } from '#test/support/node.ts'
import { startSeveral } from '#test/support/several.ts'
import type { Several } from '#test/support/several.ts'

/** The session lock under which nodes migrate. */
const migrationLock = 0x73746f61
const graceMs = 3_000
const requestDeadlineMs = 5_000
const endsWithinMs = 15_000
const pauseMs = 100

/** The status with which it ended, in time. */
async function ended({ ended: status }: Several): Promise<number | null | 'goes on'> {
  return Promise.race([status, sleep(endsWithinMs, 'goes on' as const, { ref: false })])
}

async function statusOf(url: string): Promise<number> {
  const response = await fetch(url, {
    headers: { connection: 'close' },
    signal: AbortSignal.timeout(requestDeadlineMs),
  })
  await response.text()
  return response.status
}

test(
  'several nodes: a hang-up while they start restarts them later, and does nothing while they stop',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using several = await startSeveral(2, { STOA_DATABASE_URL: db.url })
    while ((await several.children()).length === 0) await sleep(5)
    several.signal('SIGHUP')
    await several.ready()
    await several.until('all nodes were restarted')
    assert.equal(await statusOf(`${several.origin}/healthz/ready`), 200)
    several.signal('SIGTERM')
    await several.until('stopping')
    several.signal('SIGHUP')
    assert.equal(await ended(several), 0)
  },
)

test(
  'several nodes: when all of them stop, health checks say so for as long as the grace lasts',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using other = await startNode({
      environment: { STOA_DATABASE_URL: db.url, STOA_NODE: 'other', STOA_STARTER: 'false' },
    })
    await using several = await startSeveral(2, {
      STOA_DATABASE_URL: db.url,
      STOA_FILES_URL: `file://${other.dataDir}/files`,
      STOA_DRAIN_GRACE_MS: String(graceMs),
    })
    await several.ready()
    // The heartbeats announce the other machine to each node: requests can go there meanwhile.
    const deadline = Date.now() + endsWithinMs
    while (
      (await several.nodes()).filter(({ state, report }) => state === 'live' && report !== null)
        .length < 3
    )
      assert.ok(Date.now() < deadline)
    several.signal('SIGTERM')
    await several.until('stopping', 2)
    const until = performance.now() + graceMs * 0.6
    let asked = 0
    for (; performance.now() < until; asked += 1) {
      assert.equal(await statusOf(`${several.origin}/healthz/ready`), 503)
      assert.equal(await statusOf(`${several.origin}/api/locales`), 200)
      await sleep(pauseMs)
    }
    assert.ok(asked > 3)
    assert.equal(await ended(several), 0)
  },
)

test(
  'several nodes: one that hangs gets no more connections while another one can have them',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using several = await startSeveral(2, { STOA_DATABASE_URL: db.url })
    await several.ready()
    const [one] = await several.children()
    process.kill(one!, 'SIGSTOP')
    try {
      const first = await Promise.allSettled(
        Array.from({ length: 2 }, () => statusOf(`${several.origin}/healthz/live`)),
      )
      assert.deepEqual(
        first.map(({ status }) => status).sort(),
        ['fulfilled', 'rejected'],
        'what went to it waits for it',
      )
      for (let round = 0; round < 8; round += 1)
        assert.equal(await statusOf(`${several.origin}/healthz/live`), 200)
    } finally {
      process.kill(one!, 'SIGCONT')
    }
  },
)

test(
  'several nodes: stopped while the first one waits for its turn to migrate, they end soon',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    const client = new pg.Client({ connectionString: db.url })
    await client.connect()
    await client.query('select pg_advisory_lock($1)', [migrationLock])
    try {
      await using several = await startSeveral(2, { STOA_DATABASE_URL: db.url })
      const waiting = `select 1 from pg_stat_activity
          where query like '%pg_try_advisory_lock%' and application_name like 'stoa box%'`
      while ((await client.query(waiting)).rowCount === 0) await sleep(pauseMs)
      several.signal('SIGTERM')
      assert.equal(await ended(several), 0)
    } finally {
      await client.end()
    }
  },
)

test(
  'several nodes: a program that is gone for a moment, as during an upgrade, is tried again',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    const folder = await mkdtemp(join(tmpdir(), 'stoa-program-'))
    try {
      const program = join(folder, 'node')
      const install = async (): Promise<void> => {
        await copyFile(process.execPath, program)
        await chmod(program, 0o755)
      }
      await install()
      await using several = await startSeveral(2, { STOA_DATABASE_URL: db.url }, program)
      await several.ready()
      await rm(program)
      several.signal('SIGHUP')
      await several.until('there is no process for it')
      assert.equal(await statusOf(`${several.origin}/healthz/ready`), 200, 'the other one serves')
      await install()
      await several.until('"msg":"ready"', 3)
      assert.equal((await several.children()).length, 2)
      several.signal('SIGTERM')
      assert.equal(await ended(several), 0)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
)
