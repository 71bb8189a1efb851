import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { numbersInDatabase, startCluster } from '#test/support/coherence/cluster.ts'
import { Workload } from '#test/support/coherence/workload.ts'
import { databaseMissing, startTestPostgres, testDatabase } from '#test/support/database.ts'
import { pgbouncerMissing, startPgbouncer } from '#test/support/pgbouncer.ts'

const leaseMs = 1_000
const loadMs = 8_000
/** The default of STOA_DATABASE_CONNECTIONS. */
const connectionsMax = 10
const atRestMax = 6
/** A node closes what it has not used for a minute; work that comes round is done before. */
const restMs = 80_000

const load = { leaseMs, writePauseMs: 5, readPauseMs: 2, calm: true, repeats: false }

/** The connections of each node now, by the name of the node. */
async function connectionsOf(client: pg.Client): Promise<Map<string, number>> {
  const { rows } = await client.query<{ name: string; n: number }>(
    `select substring(application_name from 'stoa (node-[0-9]+)') as name, count(*)::int as n
     from pg_stat_activity where application_name like 'stoa node-%' group by 1 order by 1`,
  )
  return new Map(rows.map(({ name, n }) => [name, n]))
}

/** The most connections that any node held while `work` went on. */
async function mostDuring(url: string, work: Promise<unknown>): Promise<number> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  let most = 0
  const over = { now: false }
  const done = work.finally(() => (over.now = true))
  try {
    while (!over.now) {
      most = Math.max(most, ...(await connectionsOf(client)).values())
      await sleep(100)
    }
    await done
    return most
  } finally {
    await client.end()
  }
}

async function check(t: TestContext, workload: Workload, url: string): Promise<void> {
  await workload.stop()
  await workload.atRest(await numbersInDatabase(url), 0)
  assert.deepEqual(workload.ledger.violations, [])
  assert.ok(workload.ledger.checked > 200, JSON.stringify(workload.counts))
  t.diagnostic(JSON.stringify(workload.counts))
}

test(
  'eight nodes work on a server with 100 connections and refuse nothing for want of one',
  { skip: databaseMissing },
  async (t) => {
    const server = await startTestPostgres({ settings: ['max_connections=100'] })
    try {
      await using cluster = await startCluster({
        urls: Array.from({ length: 8 }, () => server.url),
        entries: 32,
        // Nothing is served from memory, so that all is asked of the database.
        environment: { STOA_CACHE_BYTES: '1048576' },
      })
      await using workload = new Workload({ ...load, cluster, writers: 32, readers: 64 }).start()
      const most = await mostDuring(server.url, sleep(loadMs))
      t.diagnostic(`under load a node held at most ${most} connections`)
      assert.ok(most <= connectionsMax)
      await check(t, workload, server.url)
      await sleep(restMs)
      const atRest = await mostDuring(server.url, sleep(1_000))
      t.diagnostic(`at rest a node held at most ${atRest} connections`)
      assert.ok(atRest <= atRestMax)
    } finally {
      await server.stop()
    }
  },
)

test(
  'three nodes through PgBouncer in transaction mode are coherent',
  { skip: databaseMissing === false ? pgbouncerMissing : databaseMissing },
  async (t) => {
    await using db = await testDatabase({ migrated: false, connectionsMax: 1 })
    await using pooler = await startPgbouncer(db.url, 4)
    await using cluster = await startCluster({
      urls: [pooler.url, pooler.url, pooler.url],
      entries: 16,
      environment: { STOA_DATABASE_DIRECT_URL: db.url, STOA_LOG_LEVEL: 'info' },
    })
    await cluster.nodes[0]!.printed(/through a connection pooler/)
    await using workload = new Workload({ ...load, cluster, writers: 4, readers: 8 }).start()
    await sleep(loadMs)
    await check(t, workload, db.url)
  },
)
