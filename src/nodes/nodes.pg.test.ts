import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { systemClock } from '#lib/clock.ts'
import type { Clock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { FenceLostError } from '#nodes/errors.ts'
import { Nodes } from '#nodes/nodes.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'

const skip = databaseMissing
const duties = ['publisher', 'indexer', 'mailer']

function start(
  database: Database,
  name: string,
  leaseMs = 2_000,
  clock: Clock = systemClock,
): Nodes {
  return new Nodes({
    database,
    info: { name, address: null, version: '1', fingerprint: 'f' },
    clock,
    logger: silentLogger,
    config: { leaseMs },
    duties,
  })
}

async function until(what: () => boolean, text: string): Promise<void> {
  const deadline = Date.now() + 15_000
  while (!what()) {
    assert.ok(Date.now() < deadline, text)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

test(
  'nodes find each other, share the duties, and hand them over when one drains and leaves',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    await using one = start(db.database, 'one')
    await using two = start(db.database, 'two')
    await using three = start(db.database, 'three')
    const nodes = [one, two, three]
    const held = (): string[] =>
      nodes.flatMap((node) => duties.filter((duty) => node.mode === 'live' && node.leads(duty)))
    await until(() => nodes.every((node) => node.live().length === 3), 'all see all')
    await until(() => held().length === 3, 'every duty has a leader')
    assert.deepEqual(held().sort(), duties.toSorted())
    const leader = nodes.find((node) => node.leads('publisher'))!
    leader.drain()
    assert.equal(leader.leads('publisher'), false)
    const others = nodes.filter((node) => node !== leader)
    await until(() => others.some((node) => node.leads('publisher')), 'the duty was handed over')
    await until(
      () => others[0]!.live().some((one) => one.id === leader.id && one.draining),
      'draining is announced',
    )
    await leader.leave()
    await until(() => others.every((node) => node.live().length === 2), 'gone')
    for (const node of others) await node.leave()
    assert.deepEqual(await db.database.run(sql(`select id from stoa.node`)), [])
  },
)

test(
  'a fence that another node has passed commits nothing, and the next leader waits for the last',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    await db.database.run({ text: 'create table effect (who text)', prepare: 'never' })
    await using one = start(db.database, 'one')
    await until(() => one.leads('publisher'), 'one leads')
    await one.fenced('publisher', async (tx) => tx.run(sql(`insert into effect values ('one')`)))
    const steal = sql(
      `update stoa.leadership set holder = 'other', fence = fence + 1 where duty = 'publisher'`,
    )
    let stolen = false
    let stealing: Promise<unknown> = Promise.resolve()
    await one.fenced('publisher', async (tx) => {
      stealing = db.database.run(steal).then(() => (stolen = true))
      await tx.run(sql(`select pg_sleep(0.2)`))
      assert.equal(stolen, false, 'no node takes a duty in the middle of its work')
      await tx.run(sql(`insert into effect values ('one again')`))
    })
    await stealing
    await assert.rejects(
      one.fenced('publisher', async (tx) => tx.run(sql(`insert into effect values ('too late')`))),
      FenceLostError,
    )
    assert.equal(one.leads('publisher'), false)
    assert.deepEqual(await db.database.run(sql(`select who from effect order by who`)), [
      { who: 'one' },
      { who: 'one again' },
    ])
  },
)

test(
  'a leader at work for longer than its lease goes on beating, and leads in its other duties',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    const leaseMs = 3_000
    await using one = start(db.database, 'one', leaseMs)
    await until(() => duties.every((duty) => one.leads(duty)), 'one leads')
    await using two = new Nodes({
      database: db.database,
      info: { name: 'two', address: null, version: '1', fingerprint: 'f' },
      clock: systemClock,
      logger: silentLogger,
      config: { leaseMs },
      duties: ['publisher'],
    })
    await until(() => two.live().length === 2 && one.live().length === 2, 'both see both')
    const over = new AbortController()
    const work = one
      .fenced('publisher', async (tx) => tx.run(sql(`select pg_sleep(${(leaseMs * 1.5) / 1_000})`)))
      .finally(() => over.abort())
    while (!over.signal.aborted) {
      assert.equal(two.live().length, 2, 'the one that works is not gone')
      assert.ok(one.leads('mailer'), 'its other duties are its own')
      assert.equal(two.leads('publisher'), false, 'no node takes a duty in the middle of its work')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await work
    // A duty that could not be renewed meanwhile is free for any node then.
    await until(
      () => [one, two].filter((node) => node.leads('publisher')).length === 1,
      'it is led again',
    )
  },
)

test('a node whose clock is off leads nothing and says by how much', { skip }, async () => {
  await using db = await testDatabase({ connectionsMax: 20 })
  let aheadMs = 0
  const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + aheadMs }
  await using one = start(db.database, 'one', 600, clock)
  await until(() => duties.every((duty) => one.leads(duty)), 'one leads')
  assert.equal(one.isClockOff, false)
  aheadMs = 86_400_000
  await until(() => one.isClockOff, 'the clock is seen to be off')
  await until(() => duties.every((duty) => !one.leads(duty)), 'it leads no more')
  assert.ok(Math.abs(one.clockSkewMs - aheadMs) < 5_000, String(one.clockSkewMs))
  await using two = start(db.database, 'two', 600)
  await until(() => duties.every((duty) => two.leads(duty)), 'another node leads')
  aheadMs = 0
  await until(() => !one.isClockOff, 'the clock was corrected')
  // Which of two nodes is preferred for a duty is chance, so the other one gives way.
  two.drain()
  await until(() => duties.every((duty) => one.leads(duty)), 'it leads again')
})
