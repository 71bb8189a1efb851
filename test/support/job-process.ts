/**
 * A node that does nothing but jobs, as a process of its own, so that a test can stop and kill it:
 * `node job-process.ts URL MODE`. `slow`: stands still before its effect. `slow-inside`: the same
 * in the transaction of the effect. `quick`: neither.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { identityOf, openLink } from '#cluster.ts'
import { sql } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { jobKind } from '#jobs/job-kind.ts'
import type { Job } from '#jobs/running-job.ts'
import { silentLogger } from '#lib/logger.ts'
import { jobNode } from '#test/support/job-node.ts'

export const jobLeaseMs = 900
export type Effect = { readonly n: number; readonly isPoison: boolean }
export const effectKind = jobKind<Effect>('effect', {
  concurrency: 4,
  // Each kill counts as a failed attempt, and there are many.
  attemptsMax: 12,
  backoff: { firstMs: 10, maxMs: 100 },
})

const pauseMs = 600
const workMsMax = 200
const insert = sql(`insert into effect (n, who, key) values ($1, $2, $3)`)
const [, , url = '', mode = ''] = process.argv

async function run(job: Job<Effect>): Promise<void> {
  const { n, isPoison } = job.payload
  if (isPoison) throw new Error('poison')
  if (mode === 'slow') {
    process.stdout.write('middle\n')
    await sleep(pauseMs)
  } else await sleep(Math.random() * workMsMax)
  try {
    await job.commit(async (tx) => {
      await tx.run(insert, [n, String(process.pid), job.idempotencyKey])
      if (mode !== 'slow-inside') return
      process.stdout.write('middle\n')
      await sleep(pauseMs)
    })
    if (mode !== 'quick') process.stdout.write('committed\n')
  } catch (error) {
    process.stdout.write(`refused ${(error as { code?: string }).code ?? String(error)}\n`)
    throw error
  }
}

if (import.meta.main) {
  const database = new PostgresDatabase({
    url,
    connectionsMax: 8,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 5_000,
    logger: silentLogger,
  })
  await jobNode(database, [{ kind: effectKind, run }], {
    name: String(process.pid),
    leaseMs: jobLeaseMs,
    link: await openLink({
      url,
      linkUrl: null,
      identity: identityOf(database),
      applicationName: 'job process',
      logger: silentLogger,
    }),
  })
}
