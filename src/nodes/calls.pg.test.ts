import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { PostgresClusterLink } from '#cluster-link/drivers/postgres.ts'
import { primaryConnector } from '#database/postgres/primary-connector.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { callPayloadMax, callReplyMax } from '#nodes/calls.ts'
import {
  CallDeadlineError,
  CallFailedError,
  CallNodeGoneError,
  CallTooLargeError,
  CallUnknownError,
  FenceLostError,
  NoLeaderError,
} from '#nodes/errors.ts'
import { NodeCalls } from '#nodes/node-calls.ts'
import { Nodes } from '#nodes/nodes.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startProxy } from '#test/support/proxy.ts'

const skip = databaseMissing
const leaseMs = 1_500
const deadlineMs = 5_000

type NodeRow = AsyncDisposable & { readonly nodes: Nodes; readonly calls: NodeCalls }

/** One node with its calls; with `linked: false` it neither sends nor receives a hint. */
async function node(options: {
  readonly database: Database
  readonly url: string
  readonly name: string
  readonly linked: boolean
  readonly duties?: readonly string[]
}): Promise<NodeRow> {
  const { database, url, name, linked, duties = [] } = options
  const link: ClusterLink | null = linked
    ? new PostgresClusterLink({
        connect: primaryConnector({ url, applicationName: 'stoa test link' }),
        logger: silentLogger,
      })
    : null
  const nodes = new Nodes({
    database,
    info: { name, address: null, version: '1', fingerprint: 'f' },
    clock: systemClock,
    logger: silentLogger,
    config: { leaseMs },
    duties,
  })
  const calls = new NodeCalls({ nodes, database, link, clock: systemClock, logger: silentLogger })
  while (nodes.mode !== 'live') await sleep(5)
  return {
    nodes,
    calls,
    [Symbol.asyncDispose]: async () => {
      await calls.stop()
      await nodes.leave()
      await link?.close()
    },
  }
}

for (const linked of [true, false]) {
  const how = linked ? 'with Cluster Link' : 'without Cluster Link'

  test(
    `${how}: all nodes reply, one that has just joined too, each with its result or its own error`,
    { skip },
    async (t) => {
      await using db = await testDatabase({ connectionsMax: 20 })
      const { database, url } = db
      await using one = await node({ database, url, name: 'one', linked })
      await using two = await node({ database, url, name: 'two', linked })
      for (const { calls, nodes } of [one, two])
        calls.handle('add', async (payload) => ({ sum: Number(payload) + 1, node: nodes.id }))
      await using three = await node({ database, url, name: 'three', linked })
      three.calls.handle('add', async () => {
        throw new FenceLostError('Not here.')
      })
      await using four = await node({ database, url, name: 'four', linked })
      const replies = new Map(
        (await one.calls.onAll('add', 41, { deadlineMs })).map((each) => [each.name, each]),
      )
      assert.deepEqual([...replies.keys()].sort(), ['four', 'one', 'three', 'two'])
      for (const [name, { nodes }] of [
        ['one', one],
        ['two', two],
      ] as const)
        assert.deepEqual(replies.get(name), {
          node: nodes.id,
          name,
          ok: true,
          value: { sum: 42, node: nodes.id },
        })
      const failed = replies.get('three')!
      assert.ok(!failed.ok && failed.error instanceof CallFailedError)
      assert.deepEqual(
        [failed.error.facts['code'], failed.error.message],
        ['E_NODES_FENCE', 'On the node three it failed: Not here.'],
      )
      const unknown = replies.get('four')!
      assert.ok(
        !unknown.ok && unknown.error instanceof CallUnknownError && unknown.node === four.nodes.id,
      )
      assert.deepEqual(await four.calls.onOne(two.nodes.id, 'add', 1, { deadlineMs }), {
        sum: 2,
        node: two.nodes.id,
      })
      const times: number[] = []
      for (let round = 0; round < (linked ? 50 : 0); round += 1) {
        const began = performance.now()
        await one.calls.onOne(two.nodes.id, 'add', round, { deadlineMs })
        times.push(performance.now() - began)
      }
      if (linked)
        t.diagnostic(`one call, median: ${times.sort((a, b) => a - b)[25]!.toFixed(1)} ms`)
      // The rows are removed after the caller has its replies.
      for (let round = 0; ; round += 1) {
        const rows = await database.run(sql(`select call from stoa.node_call`))
        if (rows.length === 0) break
        assert.ok(round < 100, 'the rows of calls stay')
        await sleep(20)
      }
    },
  )
}

test(
  'nodes that are late, silent or gone are distinguished, and no call outlasts its deadline',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    const { database, url } = db
    await using one = await node({ database, url, name: 'one', linked: true })
    await using two = await node({ database, url, name: 'two', linked: true })
    const received = new AbortController()
    two.calls.handle('sleep', async (_payload, { signal }) => {
      if (!signal.aborted)
        await new Promise<void>((done) =>
          signal.addEventListener('abort', () => done(), { once: true }),
        )
      received.abort()
    })
    // On a busy machine a call may arrive when its deadline is over: then it is not run.
    for (let tries = 0; !received.signal.aborted; tries += 1) {
      assert.ok(tries < 20, 'the handler learns that the caller no longer waits')
      const began = performance.now()
      await assert.rejects(
        one.calls.onOne(two.nodes.id, 'sleep', null, { deadlineMs: 300 }),
        CallDeadlineError,
      )
      assert.ok(performance.now() - began < 2_000)
      await sleep(1_000, null, { signal: received.signal }).catch(() => null)
    }
    // The row of a node that was killed: its counter stands still.
    await database.run(
      sql(`insert into stoa.node (id, counter, info) values ('dead', 7, '{"name":"dead"}')`),
    )
    const replies = await one.calls.onAll('none', null, { deadlineMs: 15_000 })
    const dead = replies.find(({ node }) => node === 'dead')
    assert.ok(
      dead !== undefined && !dead.ok && dead.error instanceof CallNodeGoneError,
      JSON.stringify(dead),
    )
    assert.ok(
      !(await one.calls.onAll('none', null, { deadlineMs })).some(({ node }) => node === 'dead'),
      'and from then on it is not asked',
    )
    await assert.rejects(one.calls.onOne('absent', 'none', null, { deadlineMs }), CallNodeGoneError)
  },
)

test('sizes are bounded, and a leader is waited for', { skip }, async () => {
  await using db = await testDatabase({ connectionsMax: 20 })
  const { database, url } = db
  await using one = await node({ database, url, name: 'one', linked: true })
  await assert.rejects(
    one.calls.onLeader('mailer', 'none', null, { deadlineMs: 300 }),
    NoLeaderError,
  )
  await using two = await node({ database, url, name: 'two', linked: true, duties: ['mailer'] })
  two.calls.handle('mail', async () => 'sent')
  two.calls.handle('large', async () => 'x'.repeat(callReplyMax))
  assert.equal(await one.calls.onLeader('mailer', 'mail', null, { deadlineMs }), 'sent')
  await assert.rejects(
    one.calls.onAll('mail', 'x'.repeat(callPayloadMax), { deadlineMs }),
    CallTooLargeError,
  )
  await assert.rejects(
    one.calls.onOne(two.nodes.id, 'large', null, { deadlineMs }),
    CallTooLargeError,
  )
})

test(
  'a handler that never ends hinders no other call, and does not keep its node from leaving',
  { skip },
  async () => {
    await using db = await testDatabase({ connectionsMax: 20 })
    const { database, url } = db
    await using one = await node({ database, url, name: 'one', linked: true })
    await using two = await node({ database, url, name: 'two', linked: true })
    const never = new Promise<never>(() => undefined)
    two.calls.handle('hang', async () => never)
    two.calls.handle('echo', async (payload) => payload)
    // More than a node works on at once.
    const hung = await Promise.allSettled(
      Array.from({ length: 70 }, () =>
        one.calls.onOne(two.nodes.id, 'hang', null, { deadlineMs: 1_000 }),
      ),
    )
    for (const each of hung)
      assert.ok(each.status === 'rejected' && each.reason instanceof CallDeadlineError)
    assert.equal(
      await one.calls.onOne(two.nodes.id, 'echo', 'still there', { deadlineMs }),
      'still there',
    )
    const last = assert.rejects(
      one.calls.onOne(two.nodes.id, 'hang', null, { deadlineMs: 4 * deadlineMs }),
      CallNodeGoneError,
    )
    await sleep(500)
    // Leaving does not wait for it.
    await two.calls.stop()
    await two.nodes.leave()
    await last
  },
)

test('a call comes back at its deadline though the database hangs', { skip }, async () => {
  await using db = await testDatabase({ connectionsMax: 20 })
  await using network = await startProxy(db.url)
  const far = new PostgresDatabase({
    url: network.url,
    connectionsMax: 3,
    statementTimeoutMs: 3_000,
    connectTimeoutMs: 3_000,
    logger: silentLogger,
  })
  await using one = await node({ database: far, url: db.url, name: 'one', linked: false })
  await using two = await node({ database: db.database, url: db.url, name: 'two', linked: false })
  two.calls.handle('slow', async () => sleep(deadlineMs))
  const asked = assert.rejects(
    one.calls.onOne(two.nodes.id, 'slow', null, { deadlineMs: 1_000 }),
    CallDeadlineError,
  )
  await sleep(500)
  network.silence()
  const late = Symbol('late')
  assert.notEqual(await Promise.race([asked, sleep(2_000, late)]), late)
  network.cut()
  await far.close()
})
