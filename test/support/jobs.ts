import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { jobKind } from '#jobs/job-kind.ts'
import type { JobKind } from '#jobs/job-kind.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import type { Job, JobHandler } from '#jobs/running-job.ts'
import { testDatabase } from '#test/support/database.ts'
import type { TestDatabase } from '#test/support/database.ts'

/** A kind of jobs for tests of the queue, and a table for their effects. */

export type Mail = { readonly name: string }
export const mail = jobKind<Mail>('mail', {
  concurrency: 4,
  attemptsMax: 3,
  backoff: { firstMs: 20, maxMs: 40 },
})
/** A queue of a process without nodes: no hint goes out. */
export const silentQueue = new JobQueue(null)
export const allMail = { state: null, kind: 'mail', after: null, limit: 400 }

const table = sql(`create table effect (
  id bigint generated always as identity, name text not null, who text not null default '')`)
export const insertEffect = sql(`insert into effect (name, who) values ($1, $2)`)
const names = sql<{ name: string }>(`select name from effect order by id`)

export async function testJobs(): Promise<TestDatabase> {
  const db = await testDatabase({ connectionsMax: 20 })
  await db.database.run(table)
  return db
}

/** The names in the order in which they were committed, as far as that shows. */
export async function effects(database: Database): Promise<string[]> {
  return (await database.run(names)).map(({ name }) => name)
}

/** Writes the name of each job, as its one effect. */
export const writesEffect: JobHandler<Mail> = {
  kind: mail,
  run: async (job) =>
    void (await job.commit((tx) => tx.run(insertEffect, [job.payload.name, job.idempotencyKey]))),
}

export function mailHandler(
  run: (job: Job<Mail>) => Promise<void>,
  kind: JobKind<Mail> = mail,
): JobHandler<Mail> {
  return { kind, run }
}

export async function until(what: () => boolean | Promise<boolean>, text: string): Promise<void> {
  const deadline = Date.now() + 15_000
  while (!(await what())) {
    assert.ok(Date.now() < deadline, text)
    await sleep(10)
  }
}
