import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { JobLostError, JobRefusedError } from '#jobs/errors.ts'
import { cancelJob, countJobs, listJobs, readJob, retryJob } from '#jobs/job-admin.ts'
import type { Job } from '#jobs/running-job.ts'
import { databaseMissing as skip } from '#test/support/database.ts'
import { jobNode } from '#test/support/job-node.ts'
import {
  allMail,
  effects,
  insertEffect,
  mail,
  mailHandler,
  silentQueue,
  testJobs,
  until,
  writesEffect,
} from '#test/support/jobs.ts'
import type { Mail } from '#test/support/jobs.ts'
import { MemoryClusterLink, MemoryHub } from '#test/support/memory-cluster-link.ts'

test(
  'a job runs once its transaction has committed, and is gone with its effect',
  { skip },
  async () => {
    await using db = await testJobs()
    await using node = await jobNode(db.database, [writesEffect])
    const { queue } = node.runner
    await db.database.transaction(async (tx) => {
      await queue.add(tx, mail, { name: 'kept' })
      await sleep(100)
      assert.deepEqual(await effects(db.database), [], 'not before the commit')
    })
    await assert.rejects(
      db.database.transaction(async (tx) => {
        await queue.add(tx, mail, { name: 'lost' })
        throw new Error('rolled back')
      }),
    )
    await until(async () => (await effects(db.database)).length === 1, 'it ran')
    assert.deepEqual(await effects(db.database), ['kept'])
    assert.deepEqual(await listJobs(db.database, allMail), [])
  },
)

test(
  'a job starts within milliseconds of its commit, without a round of polling',
  { skip },
  async () => {
    await using db = await testJobs()
    const started: number[] = []
    await using node = await jobNode(db.database, [
      mailHandler(async () => void started.push(performance.now())),
    ])
    await sleep(200)
    const added: number[] = []
    for (let at = 0; at < 20; at += 1) {
      await node.runner.queue.add(db.database, mail, { name: String(at) })
      added.push(performance.now())
      await until(() => started.length === at + 1, 'it started')
    }
    const waits = started.map((at, index) => at - added[index]!).sort((a, b) => a - b)
    assert.ok(waits[10]! < 200, `median ${waits[10]} ms`)
  },
)

test(
  'an effect that fails is rolled back with the completion, tried again, and then parked',
  { skip },
  async () => {
    await using db = await testJobs()
    const attempts: Job<Mail>[] = []
    await using node = await jobNode(db.database, [
      mailHandler(async (job) => {
        attempts.push(job)
        await job.commit(async (tx) => {
          await tx.run(insertEffect, [job.payload.name, ''])
          if (job.payload.name === 'poison') throw new Error('a secret of the content')
        })
      }),
    ])
    const { queue } = node.runner
    await queue.add(db.database, mail, { name: 'poison' })
    for (let at = 0; at < 10; at += 1) await queue.add(db.database, mail, { name: `healthy ${at}` })
    await until(
      async () => (await listJobs(db.database, { ...allMail, state: 'parked' })).length === 1,
      'parked',
    )
    assert.equal(
      (await effects(db.database)).length,
      10,
      'the healthy went on, and nothing of the poison is there',
    )
    const poison = attempts.filter(({ payload }) => payload.name === 'poison')
    assert.deepEqual(
      poison.map(({ attempt, failures }) => [attempt, failures]),
      [
        [1, 0],
        [2, 1],
        [3, 2],
      ],
    )
    assert.equal(new Set(poison.map(({ idempotencyKey }) => idempotencyKey)).size, 1)
    const [parked] = await listJobs(db.database, { ...allMail, state: 'parked' })
    assert.equal(parked!.failure?.code, 'E_INTERNAL')
    assert.doesNotMatch(parked!.failure.message, /secret/, 'the log has it, not the queue')
    assert.deepEqual(
      await countJobs(db.database).then((rows) => rows.filter(({ kind }) => kind === 'mail')),
      [{ kind: 'mail', state: 'parked', count: 1 }],
    )

    await retryJob(db.database, queue, parked!.id)
    await until(
      async () => (await readJob(db.database, parked!.id)).attempt === 6,
      'three attempts more',
    )
    await until(
      async () => (await readJob(db.database, parked!.id)).state === 'parked',
      'parked again',
    )
    assert.equal(attempts.at(-1)!.idempotencyKey, poison[0]!.idempotencyKey)
  },
)

test('a handler that refuses a job parks it at once, with its reason', { skip }, async () => {
  await using db = await testJobs()
  await using node = await jobNode(db.database, [
    mailHandler(async () => {
      throw new JobRefusedError('The receiver is gone for good.')
    }),
  ])
  await node.runner.queue.add(db.database, mail, { name: 'one' })
  await until(
    async () => (await listJobs(db.database, { ...allMail, state: 'parked' })).length === 1,
    'parked',
  )
  const [parked] = await listJobs(db.database, allMail)
  assert.equal(parked!.attempt, 1)
  assert.deepEqual(parked!.failure, {
    code: 'E_JOB_REFUSED',
    message: 'The receiver is gone for good.',
  })
})

test(
  'work in steps keeps its progress, and a further attempt goes on from there',
  { skip },
  async () => {
    await using db = await testJobs()
    await using node = await jobNode(db.database, [
      mailHandler(async (job) => {
        for (let at = Number(job.progress ?? 0); at < 5; at += 1) {
          await job.step((tx) => tx.run(insertEffect, [`step ${at}`, '']), at + 1)
          if (at === 2 && job.failures === 0) throw new Error('in the middle')
        }
      }),
    ])
    await node.runner.queue.add(db.database, mail, { name: 'long' })
    await until(async () => (await listJobs(db.database, allMail)).length === 0, 'it is done')
    assert.deepEqual(
      await effects(db.database),
      [0, 1, 2, 3, 4].map((at) => `step ${at}`),
    )
  },
)

test(
  'nothing of a job that was cancelled commits, and its handler is aborted',
  { skip },
  async () => {
    await using db = await testJobs()
    const hub = new MemoryHub()
    const outcome = Promise.withResolvers<unknown>()
    await using node = await jobNode(
      db.database,
      [
        mailHandler(async (job) => {
          await new Promise((resolve) =>
            job.signal.addEventListener('abort', resolve, { once: true }),
          )
          try {
            await job.commit((tx) => tx.run(insertEffect, [job.payload.name, '']))
            outcome.resolve('committed')
          } catch (error) {
            outcome.resolve(error)
            throw error
          }
        }),
      ],
      { link: new MemoryClusterLink(hub) },
    )
    await using other = await jobNode(db.database, [], {
      name: 'two',
      link: new MemoryClusterLink(hub),
    })
    await silentQueue.add(db.database, mail, { name: 'long' })
    node.runner.queue.wake(mail.name)
    await until(
      async () => (await listJobs(db.database, { ...allMail, state: 'running' })).length === 1,
      'it runs',
    )
    const [running] = await listJobs(db.database, allMail)
    assert.equal(running!.node, 'one')
    const cancelled = await cancelJob(db.database, other.runner.queue, running!.id)
    assert.equal(cancelled.state, 'cancelled')
    assert.ok((await outcome.promise) instanceof JobLostError)
    assert.deepEqual(await effects(db.database), [])
    await assert.rejects(cancelJob(db.database, silentQueue, running!.id), { code: 'E_JOB_STATE' })
    await assert.rejects(retryJob(db.database, silentQueue, running!.id), { code: 'E_JOB_STATE' })
    await assert.rejects(readJob(db.database, '1e3'), { code: 'E_JOB_NOT_FOUND' })
  },
)

test(
  'an attempt that takes too long is aborted and counts as failed, even if it never ends',
  { skip },
  async () => {
    await using db = await testJobs()
    const reasons: string[] = []
    const kind = { ...mail, timeoutMs: 100, attemptsMax: 1 }
    await using node = await jobNode(db.database, [
      mailHandler(async (job) => {
        job.signal.addEventListener('abort', () =>
          reasons.push((job.signal.reason as { code: string }).code),
        )
        if (job.payload.name === 'deaf') return new Promise(() => undefined)
        await new Promise((_, reject) =>
          job.signal.addEventListener('abort', () => reject(new Error('aborted'))),
        )
      }, kind),
    ])
    await node.runner.queue.add(db.database, kind, { name: 'heeds' })
    await node.runner.queue.add(db.database, kind, { name: 'deaf' })
    await until(
      async () => (await listJobs(db.database, { ...allMail, state: 'parked' })).length === 2,
      'both are parked',
    )
    const parked = await listJobs(db.database, allMail)
    assert.deepEqual(
      parked.map(({ failure }) => failure?.code),
      ['E_JOB_TIMEOUT', 'E_JOB_TIMEOUT'],
    )
    assert.deepEqual(reasons, ['E_JOB_TIMEOUT', 'E_JOB_TIMEOUT'])
    assert.deepEqual(
      node.runner.usage().find(({ kind }) => kind === 'mail'),
      { kind: 'mail', running: 0, most: 4 },
    )
  },
)

test(
  'a node that stops gives back what does not end, and another goes on with it at once',
  { skip },
  async () => {
    await using db = await testJobs()
    const hub = new MemoryHub()
    const waits = mailHandler(
      async (job) =>
        new Promise((_, reject) =>
          job.signal.addEventListener('abort', () => reject(new Error('stopped'))),
        ),
    )
    const one = await jobNode(db.database, [waits], {
      link: new MemoryClusterLink(hub),
      leaseMs: 60_000,
    })
    try {
      await one.runner.queue.add(db.database, mail, { name: 'moved' })
      await until(
        async () => (await listJobs(db.database, { ...allMail, state: 'running' })).length === 1,
        'it runs',
      )
      await using two = await jobNode(db.database, [writesEffect], {
        name: 'two',
        link: new MemoryClusterLink(hub),
        leaseMs: 60_000,
      })
      const before = Date.now()
      await one.runner.drain(50)
      await one.runner.stop()
      await until(async () => (await effects(db.database)).length === 1, 'the other one did it')
      assert.ok(Date.now() - before < 4_000, 'by a hint, not by the lease')
      assert.ok(two.nodes.mode === 'live')
    } finally {
      await one[Symbol.asyncDispose]()
    }
  },
)

test('a job of a node that is gone without a trace is free for the others', { skip }, async () => {
  await using db = await testJobs()
  await silentQueue.add(db.database, mail, { name: 'orphan' })
  await db.database.run(
    sql(`update stoa.job set state = 'running', node = 'a node that never was', attempt = 7`),
  )
  await using node = await jobNode(db.database, [writesEffect], { leaseMs: 300 })
  await until(async () => (await effects(db.database)).length === 1, 'it ran')
  assert.ok(node.nodes.mode === 'live')
})

test(
  'a claim whose response was lost is found and given back by its own node',
  { skip },
  async () => {
    await using db = await testJobs()
    let isLosing = true
    const lossy: Database = {
      run: async (statement, values) => {
        const rows = await db.database.run(statement, values)
        if (
          !isLosing ||
          !statement.text.includes('claimed as (') ||
          !rows.some((row) => (row as { what?: string }).what === 'claimed')
        )
          return rows
        isLosing = false
        throw new Error('the response was lost')
      },
      transaction: (work) => db.database.transaction(work),
      session: (work) => db.database.session(work),
      checkout: (work) => db.database.checkout(work),
      usage: () => db.database.usage(),
      close: async () => undefined,
    }
    await using node = await jobNode(lossy, [writesEffect], { leaseMs: 60_000 })
    await silentQueue.add(db.database, mail, { name: 'claimed in silence' })
    node.runner.queue.wake(mail.name)
    await until(async () => (await effects(db.database)).length === 1, 'it ran')
    assert.equal(isLosing, false)
  },
)
