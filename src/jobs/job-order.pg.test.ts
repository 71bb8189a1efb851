import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { JobTooLargeError } from '#jobs/errors.ts'
import { countJobs, listJobs } from '#jobs/job-admin.ts'
import { jobKind } from '#jobs/job-kind.ts'
import type { JobQueue } from '#jobs/job-queue.ts'
import type { JobHandler } from '#jobs/running-job.ts'
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
import { MemoryClusterLink, MemoryHub } from '#test/support/memory-cluster-link.ts'

test(
  'jobs of one order key run one at a time and in order, past failures; others go on',
  { skip },
  async () => {
    await using db = await testJobs()
    const running = new Map<string, number>()
    const order = mailHandler(
      async (job) => {
        const [key = ''] = job.payload.name.split(' ')
        running.set(key, (running.get(key) ?? 0) + 1)
        try {
          assert.equal(running.get(key), 1, `two of ${key} at a time`)
          await sleep(Math.random() * 5)
          if (job.payload.name.endsWith('3') && job.failures === 0) throw new Error('once')
          await job.commit((tx) => tx.run(insertEffect, [job.payload.name, '']))
        } finally {
          running.set(key, running.get(key)! - 1)
        }
      },
      { ...mail, concurrency: 8 },
    )
    const hub = new MemoryHub()
    await using one = await jobNode(db.database, [order], { link: new MemoryClusterLink(hub) })
    await using two = await jobNode(db.database, [order], {
      name: 'two',
      link: new MemoryClusterLink(hub),
    })
    const keys = ['a', 'b', 'c', 'd', 'e']
    for (let at = 0; at < 10; at += 1)
      for (const [index, key] of keys.entries())
        await [one, two][index % 2]!.runner.queue.add(
          db.database,
          order.kind,
          { name: `${key} ${at}` },
          { orderKey: key },
        )
    await until(async () => (await effects(db.database)).length === 50, 'all ran')
    const done = await effects(db.database)
    for (const key of keys)
      assert.deepEqual(
        done.filter((name) => name.startsWith(key)),
        Array.from({ length: 10 }, (_, at) => `${key} ${at}`),
      )
  },
)

test(
  'jobs behind one that waits for its next attempt are set aside, and freed in order',
  { skip },
  async () => {
    await using db = await testJobs()
    let isOpen = false
    await using node = await jobNode(db.database, [
      mailHandler(async (job) => {
        if (job.payload.name === '0' && !isOpen) return job.postpone(200)
        await job.commit((tx) => tx.run(insertEffect, [job.payload.name, '']))
      }),
    ])
    const { queue } = node.runner
    for (let at = 0; at < 300; at += 1)
      await queue.add(db.database, mail, { name: String(at) }, { orderKey: 'k' })
    await queue.add(db.database, mail, { name: 'other' })
    await until(async () => (await effects(db.database)).includes('other'), 'others go on')
    await until(
      async () =>
        (await countJobs(db.database)).some(
          ({ state, count }) => state === 'blocked' && count === 299,
        ),
      'all behind it are set aside',
    )
    isOpen = true
    await until(async () => (await effects(db.database)).length === 301, 'all ran')
    assert.deepEqual(
      (await effects(db.database)).filter((name) => name !== 'other'),
      Array.from({ length: 300 }, (_, at) => String(at)),
    )
  },
)

test(
  'of a key at most one waits, with the newest payload, beside one that runs',
  { skip },
  async () => {
    await using db = await testJobs()
    const gate = Promise.withResolvers<void>()
    let started = 0
    await using node = await jobNode(db.database, [
      mailHandler(async (job) => {
        started += 1
        await gate.promise
        await job.commit((tx) => tx.run(insertEffect, [job.payload.name, job.idempotencyKey]))
      }),
    ])
    const { queue } = node.runner
    const add = async (name: string): Promise<void> =>
      queue.add(db.database, mail, { name }, { key: 'site' })
    await add('first')
    await until(() => started === 1, 'the first runs')
    for (const name of ['second', 'third', 'newest']) await add(name)
    await sleep(100)
    assert.equal(started, 1, 'one at a time')
    assert.equal((await listJobs(db.database, allMail)).length, 2)
    gate.resolve()
    await until(async () => (await effects(db.database)).length === 2, 'both ran')
    assert.deepEqual(await effects(db.database), ['first', 'newest'])
  },
)

test('a failed job gives way to a newer one of its key', { skip }, async () => {
  await using db = await testJobs()
  const gate = Promise.withResolvers<void>()
  await using node = await jobNode(db.database, [
    mailHandler(async (job) => {
      if (job.payload.name === 'old') {
        await gate.promise
        throw new Error('the old one fails')
      }
      await job.commit((tx) => tx.run(insertEffect, [job.payload.name, '']))
    }),
  ])
  const { queue } = node.runner
  await queue.add(db.database, mail, { name: 'old' }, { key: 'site' })
  await until(
    async () => (await listJobs(db.database, { ...allMail, state: 'running' })).length === 1,
    'it runs',
  )
  await queue.add(db.database, mail, { name: 'new' }, { key: 'site' })
  gate.resolve()
  await until(async () => (await effects(db.database)).length === 1, 'the new one ran')
  assert.deepEqual(await listJobs(db.database, allMail), [])
})

test(
  'the urgent come first, none comes before it is due, and the database decides what time it is',
  { skip },
  async () => {
    await using db = await testJobs()
    const one = { ...mail, concurrency: 1 }
    const add = async (name: string, options: Parameters<JobQueue['add']>[3]): Promise<void> =>
      silentQueue.add(db.database, one, { name }, options)
    await add('low', { priority: 'low' })
    await add('late', { delayMs: 600 })
    await add('normal', {})
    await add('high', { priority: 'high' })
    const [row] = await db.database.run(
      sql<{ at: string }>(`select clock_timestamp() + interval '300 milliseconds' as at`),
    )
    await add('at', { dueAt: row!.at })
    const times = sql<{ early: number }>(
      `select count(*)::int as early from stoa.job
       where state = 'running' and started_at < due_at - interval '1 millisecond'`,
    )
    let early = 0
    await using node = await jobNode(db.database, [
      mailHandler(async (job) => {
        early += (await db.database.run(times))[0]!.early
        await job.commit((tx) => tx.run(insertEffect, [job.payload.name, '']))
      }, one),
    ])
    await until(async () => (await effects(db.database)).length === 5, 'all ran')
    assert.deepEqual(await effects(db.database), ['high', 'normal', 'low', 'at', 'late'])
    assert.equal(early, 0)
    assert.ok(node.nodes.mode === 'live')
  },
)

test(
  'recurring work waits once for the whole cluster, and comes again after each round',
  { skip },
  async () => {
    await using db = await testJobs()
    const kind = jobKind<null>('sweep', { everyMs: 100 })
    const sweep: JobHandler<null> = {
      kind,
      run: async (job) =>
        void (await job.commit((tx: Queryable) => tx.run(insertEffect, ['sweep', '']))),
    }
    await using one = await jobNode(db.database, [sweep])
    await using two = await jobNode(db.database, [sweep], { name: 'two' })
    await until(async () => (await effects(db.database)).length >= 5, 'it comes again and again')
    const rows = await db.database.run(
      sql<{ count: number }>(`select count(*)::int as count from stoa.job where kind = 'sweep'`),
    )
    assert.ok(rows[0]!.count <= 2)
    assert.ok(one.nodes.mode === 'live' && two.nodes.mode === 'live')
  },
)

test(
  'a payload or key that is too large is refused before anything is written',
  { skip },
  async () => {
    await using db = await testJobs()
    await assert.rejects(
      silentQueue.add(db.database, mail, { name: 'x'.repeat(70_000) }),
      JobTooLargeError,
    )
    await assert.rejects(
      silentQueue.add(db.database, mail, { name: 'x' }, { key: 'k'.repeat(201) }),
      JobTooLargeError,
    )
    await assert.rejects(
      silentQueue.add(db.database, mail, { name: 'x' }, { orderKey: 'k'.repeat(201) }),
      JobTooLargeError,
    )
    assert.deepEqual(await listJobs(db.database, allMail), [])
  },
)

test('several jobs are added by one statement, in their order', { skip }, async () => {
  await using db = await testJobs()
  const many = Array.from({ length: 1_000 }, (_, at) => ({
    payload: { name: String(at) },
    orderKey: `k${at % 7}`,
  }))
  await silentQueue.addAll(db.database, mail, many)
  await silentQueue.addAll(db.database, mail, [])
  await using node = await jobNode(db.database, [
    { ...writesEffect, kind: { ...mail, concurrency: 10 } },
  ])
  await until(async () => (await effects(db.database)).length === 1_000, 'all ran')
  const done = await effects(db.database)
  for (let key = 0; key < 7; key += 1) {
    const ofKey = done.map(Number).filter((at) => at % 7 === key)
    assert.deepEqual(
      ofKey,
      ofKey.toSorted((a, b) => a - b),
    )
  }
  assert.ok(node.nodes.mode === 'live')
})
