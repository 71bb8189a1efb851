import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { listJobs } from '#jobs/job-admin.ts'
import { silentLogger } from '#lib/logger.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { jobNode } from '#test/support/job-node.ts'
import {
  allMail,
  effects,
  insertEffect,
  mailHandler,
  silentQueue,
  testJobs,
  until,
  writesEffect,
} from '#test/support/jobs.ts'
import { startProxy } from '#test/support/proxy.ts'

const leaseMs = 900

function open(url: string): PostgresDatabase {
  return new PostgresDatabase({
    url,
    connectionsMax: 5,
    statementTimeoutMs: 2_000,
    connectTimeoutMs: 2_000,
    logger: silentLogger,
  })
}

test(
  'an outage of the database frees no job of a node that lives through it',
  { skip },
  async () => {
    await using db = await testJobs()
    await using proxy = await startProxy(db.url)
    const [near, far] = [open(proxy.url), open(proxy.url)]
    try {
      const gate = Promise.withResolvers<void>()
      await using one = await jobNode(
        near,
        [
          mailHandler(async (job) => {
            await gate.promise
            await job.commit((tx) => tx.run(insertEffect, [job.payload.name, 'one']))
          }),
        ],
        { leaseMs },
      )
      await silentQueue.add(db.database, writesEffect.kind, { name: 'long' })
      one.runner.queue.wake(writesEffect.kind.name)
      const running = { ...allMail, state: 'running' } as const
      await until(async () => (await listJobs(db.database, running)).length === 1, 'it runs')
      await using two = await jobNode(far, [writesEffect], { name: 'two', leaseMs })
      await until(() => two.nodes.live().length === 2, 'both see both')
      await sleep(leaseMs)
      proxy.refuse()
      await sleep(leaseMs * 3)
      proxy.heal()
      // Long enough for the second to free it, if it counted the outage.
      await sleep(leaseMs * 3)
      const [job] = await listJobs(db.database, running)
      assert.deepEqual([job?.attempt, job?.failures, job?.node], [1, 0, 'one'])
      gate.resolve()
      await until(async () => (await effects(db.database)).length === 1, 'it is done')
    } finally {
      await Promise.all([near.close(), far.close()])
    }
  },
)
