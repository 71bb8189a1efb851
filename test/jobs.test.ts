import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { countJobs } from '#jobs/job-admin.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import { databaseMissing as skip, testDatabase } from '#test/support/database.ts'
import { effectKind, jobLeaseMs } from '#test/support/job-process.ts'

/** Jobs on real processes, with effects that nothing but the fence keeps from happening twice. */
const jobs = 600
const keys = 40
const poisonEvery = 50
const processes = 3
const deadlineMs = 50_000
const program = new URL('support/job-process.ts', import.meta.url).pathname

const makeTable = sql(
  `create table effect (id bigint generated always as identity,
     n int not null, who text not null, key text not null)`,
)
const effects = sql<{ n: number; who: string }>(`select n, who from effect order by id`)
const count = sql<{ count: number }>(`select count(*)::int as count from effect`)

type Worker = { readonly process: ChildProcess; readonly ended: Promise<void>; output(): string }

function start(url: string, mode: 'quick' | 'slow' | 'slow-inside'): Worker {
  const child = spawn(process.execPath, [program, url, mode], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (chunk) => (output += String(chunk)))
  return {
    process: child,
    ended: new Promise((resolve) => child.once('close', () => resolve())),
    output: () => output,
  }
}

async function until(what: () => boolean | Promise<boolean>, text: string): Promise<void> {
  const deadline = Date.now() + deadlineMs
  while (!(await what())) {
    assert.ok(Date.now() < deadline, text)
    await sleep(20)
  }
}

const queue = new JobQueue(null)

for (const mode of ['slow', 'slow-inside'] as const)
  test(
    `a node that is stopped past its lease has no effect beside its successor (${mode})`,
    { skip },
    async () => {
      await using db = await testDatabase()
      await db.database.run(makeTable)
      await queue.add(db.database, effectKind, { n: 1, isPoison: false })
      const first = start(db.url, mode)
      await until(() => first.output().includes('middle'), 'the first is at it')
      first.process.kill('SIGSTOP')
      const stoppedAt = Date.now()
      const second = start(db.url, 'quick')
      try {
        await until(async () => (await db.database.run(count))[0]!.count === 1, 'the second did it')
        const tookMs = Date.now() - stoppedAt
        first.process.kill('SIGCONT')
        await until(() => /refused/.test(first.output()), 'the first is refused')
        await sleep(jobLeaseMs)
        const all = await db.database.run(effects)
        assert.deepEqual(all, [{ n: 1, who: String(second.process.pid) }])
        assert.deepEqual(
          await countJobs(db.database).then((rows) => rows.filter(({ kind }) => kind === 'effect')),
          [],
        )
        // Two leases, beside the start of a process on a busy machine.
        assert.ok(tookMs < 2 * jobLeaseMs + 10_000, `free after ${tookMs} ms`)
      } finally {
        for (const { process } of [first, second]) process.kill('SIGKILL')
        await Promise.all([first.ended, second.ended])
      }
    },
  )

test(
  `${jobs} jobs under random kills and stops: each once and in order, and the poison is parked`,
  { skip },
  async (t) => {
    await using db = await testDatabase()
    await db.database.run(makeTable)
    await queue.addAll(
      db.database,
      effectKind,
      Array.from({ length: jobs }, (_, n) => ({
        payload: { n, isPoison: n % poisonEvery === 0 },
        ...(n % 2 === 0 ? {} : { orderKey: `k${n % keys}` }),
      })),
    )
    const healthy = jobs - jobs / poisonEvery
    const workers = Array.from({ length: processes }, () => start(db.url, 'quick'))
    let kills = 0
    let stops = 0
    try {
      const deadline = Date.now() + deadlineMs
      while ((await db.database.run(count))[0]!.count < healthy) {
        assert.ok(Date.now() < deadline, `the jobs do not come on after ${kills} kills`)
        await sleep(Math.random() * jobLeaseMs * 2)
        const at = Math.floor(Math.random() * processes)
        const victim = workers[at]!
        if (Math.random() < 0.5) {
          victim.process.kill('SIGSTOP')
          await sleep(jobLeaseMs * (0.5 + Math.random() * 2))
          victim.process.kill('SIGCONT')
          stops += 1
        } else {
          victim.process.kill('SIGKILL')
          await victim.ended
          workers[at] = start(db.url, 'quick')
          kills += 1
        }
      }
      await until(
        async () =>
          (await countJobs(db.database)).some(
            ({ state, count }) => state === 'parked' && count === jobs / poisonEvery,
          ),
        'the poison is parked',
      )
    } finally {
      for (const { process } of workers) process.kill('SIGKILL')
      await Promise.all(workers.map(async ({ ended }) => ended))
    }
    const all = (await db.database.run(effects)).map(({ n }) => n)
    assert.deepEqual(
      all.toSorted((one, other) => one - other),
      Array.from({ length: jobs }, (_, n) => n).filter((n) => n % poisonEvery !== 0),
      'none twice, none left out',
    )
    for (let key = 1; key < keys; key += 2) {
      const ofKey = all.filter((n) => n % keys === key)
      assert.deepEqual(
        ofKey,
        ofKey.toSorted((one, other) => one - other),
        `in order of ${key}`,
      )
    }
    t.diagnostic(`${all.length} jobs, ${kills} kills, ${stops} stops`)
  },
)
