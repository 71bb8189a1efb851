import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { numbersInDatabase, startCluster } from '#test/support/coherence/cluster.ts'
import type { Cluster } from '#test/support/coherence/cluster.ts'
import { percentile, Workload } from '#test/support/coherence/workload.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { PostgresServer, replicationMissing } from '#test/support/postgres-server.ts'
import { startProxy } from '#test/support/proxy.ts'
import type { Proxy } from '#test/support/proxy.ts'

/** STOA_TEST_FAULT_SECONDS: how long each fault lasts; longer to be surer. */
const faultMs = Number(process.env['STOA_TEST_FAULT_SECONDS'] ?? 4) * 1_000
const stoppedMs = 5_000
/** Between two faults, so that each begins with a cluster that is well. */
const healMs = 2_000
/** By then everything that is served is fresh again, without a restart. */
const restWithinMs = 15_000
const leaseMs = 1_000
/** A node waits at most for its lease before it acknowledges; twice that, for a busy machine. */
const quietMs = 2 * leaseMs
const environment = { STOA_LEASE_MS: String(leaseMs), STOA_DATABASE_TIMEOUT_MS: '5000' }

function workloadOn(cluster: Cluster): Workload {
  return new Workload({
    cluster,
    leaseMs,
    writers: 8,
    readers: 24,
    writePauseMs: 60,
    readPauseMs: 15,
    calm: false,
    repeats: true,
  }).start()
}

function say(t: TestContext, what: string, { counts, ledger, took }: Workload): void {
  const refused = [...(took.get('refused read') ?? []), ...(took.get('refused write') ?? [])]
  t.diagnostic(
    `${what}: ${ledger.checked} responses checked, ${ledger.marked} of them marked, ` +
      `${counts.pairs} with tokens, ${counts.writes} writes, ${counts.repeated} repeated; ` +
      `refused ${counts.refused}, the slowest after ${Math.round(Math.max(0, ...refused))} ms; ` +
      `broken ${counts.broken}; reads p99 ${Math.round(percentile(took.get('plain'), 0.99))} ms`,
  )
}

/** Ends the sessions that carry Cluster Link as soon as there are any. */
async function cutLinks(url: string, forMs: number): Promise<number> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  let cut = 0
  const end = performance.now() + forMs
  while (performance.now() < end) {
    const { rowCount } = await client.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where application_name like 'stoa%link' and datname = current_database()`,
    )
    cut += rowCount ?? 0
    await sleep(10)
  }
  await client.end()
  return cut
}

test(
  'three nodes: the link cut, a node stopped, and the database late, silent and reset for one node',
  { skip: databaseMissing },
  async (t) => {
    await using db = await testDatabase({ migrated: false, connectionsMax: 2 })
    await using network = await startProxy(db.url)
    await using cluster = await startCluster({
      urls: [db.url, db.url, network.url],
      entries: 64,
      environment,
    })
    await using workload = workloadOn(cluster)
    const { ledger } = workload
    const during = async (what: string, fault: () => Promise<void>): Promise<void> => {
      const [checked, marked] = [ledger.checked, ledger.marked]
      await fault()
      await sleep(healMs)
      assert.deepEqual(ledger.violations, [], what)
      say(t, what, workload)
      assert.ok(ledger.checked > checked + 100, `${what}: there were hardly any responses`)
      t.diagnostic(`${what}: ${ledger.marked - marked} marked`)
    }
    const forAWhile = (change: (proxy: Proxy) => void) => async (): Promise<void> => {
      change(network)
      await sleep(faultMs)
      network.heal()
    }
    await sleep(healMs)
    assert.equal(ledger.marked, 0, 'nothing is marked while nothing is broken')
    await during('the link is cut', async () => {
      const cut = await cutLinks(db.url, faultMs)
      assert.ok(cut >= 6, `the link was cut ${cut} times`)
      assert.equal(ledger.marked, 0, 'nothing is marked without the link')
    })
    await during('a node is stopped', async () => {
      cluster.nodes[1]!.process.kill('SIGSTOP')
      await sleep(stoppedMs)
      cluster.nodes[1]!.process.kill('SIGCONT')
    })
    await during(
      'responses of the database are late',
      forAWhile((proxy) => proxy.delay(500)),
    )
    const before = ledger.marked
    await during(
      'the database is silent',
      forAWhile((proxy) => proxy.silence()),
    )
    await during(
      'connections to the database are reset',
      forAWhile((proxy) => proxy.refuse()),
    )
    assert.ok(
      ledger.marked > before,
      'the node that lost the database goes on with what it knows, and says so',
    )
    await workload.stop()
    await workload.atRest(await numbersInDatabase(db.url), restWithinMs)
    assert.deepEqual(ledger.violations, [])
  },
)

for (const replication of ['synchronous', 'asynchronous'] as const) {
  test(
    `three nodes: the primary is killed and a standby promoted, ${replication} replication`,
    { skip: replicationMissing },
    async (t) => {
      await using first = await PostgresServer.primary()
      await using second = await PostgresServer.standbyOf(first)
      if (replication === 'synchronous') await first.commitOnlyWithStandby()
      const url = `postgres://postgres@127.0.0.1:${first.port},127.0.0.1:${second.port}/postgres`
      // Loads may go to the standby too, as long as it is one.
      await using cluster = await startCluster({
        urls: [url, url, url],
        entries: 64,
        environment: { ...environment, STOA_DATABASE_READ_URL: second.url },
      })
      await using workload = workloadOn(cluster)
      const { ledger } = workload
      await sleep(faultMs)
      assert.deepEqual(ledger.violations, [])
      if (replication === 'asynchronous') {
        // The last writes before the death of the primary do not arrive, and their transaction ids
        // are given out again.
        await second.query(`alter system set primary_conninfo = ''`)
        await second.query('select pg_reload_conf()')
        await until(
          async () => (await second.query('select 1 from pg_stat_wal_receiver')).length === 0,
        )
        const { writes } = workload.counts
        await until(async () => workload.counts.writes > writes + 8)
      }
      await first.kill()
      const deadAtMs = performance.now()
      // Nodes go on acknowledging what had been committed before: a write waits a moment for its
      // own node to have applied it. An acknowledgement that came after the count of what was lost
      // would look like one of the promoted server.
      await quiet(() => workload.counts.writes, quietMs)
      if (replication === 'asynchronous') {
        // Writes that had not arrived are lost; the nodes meet the promoted server only after this.
        await until(async () =>
          (
            await second.query(
              `select pg_last_wal_receive_lsn() is not distinct from pg_last_wal_replay_lsn()
                 as done`,
            )
          ).every(({ done }) => done === true),
        )
        const lost = ledger.survived(await numbersInDatabase(second.url), deadAtMs)
        t.diagnostic(`${lost} acknowledged writes were lost`)
        assert.ok(lost > 0)
      }
      await second.promote()
      const promotedMs = performance.now() - deadAtMs
      const writes = workload.counts.writes
      await until(async () => workload.counts.writes > writes + 8)
      t.diagnostic(
        `promoted after ${Math.round(promotedMs)} ms, ` +
          `writing again after ${Math.round(performance.now() - deadAtMs)} ms`,
      )
      await sleep(faultMs)
      say(t, replication, workload)
      await workload.stop()
      await workload.atRest(await numbersInDatabase(second.url), restWithinMs)
      assert.deepEqual(ledger.violations, [])
      assert.ok(ledger.checked > 500, `only ${ledger.checked} responses`)
    },
  )
}

/** Resolves once the count has stood still for so long. */
async function quiet(count: () => number, forMs: number): Promise<void> {
  let [last, sinceMs] = [count(), performance.now()]
  await until(async () => {
    if (count() !== last) [last, sinceMs] = [count(), performance.now()]
    return performance.now() - sinceMs >= forMs
  })
}

async function until(check: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000
  while (!(await check())) {
    if (performance.now() > deadline) throw new Error('it did not come')
    await sleep(20)
  }
}
