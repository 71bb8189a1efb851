import assert from 'node:assert/strict'
import { Agent, get } from 'node:http'
import { test } from 'node:test'
import type { NodeStatus } from '#nodes/cluster-status.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { embeddedMissing } from '#test/support/embedded.ts'
import { startSeveral } from '#test/support/several.ts'
import type { Several } from '#test/support/several.ts'

const deadlineMs = 90_000
const clients = 8
const requestDeadlineMs = 20_000

/** Resolves when each node has announced its address by a heartbeat. */
async function announced(several: Several): Promise<readonly NodeStatus[]> {
  const deadline = Date.now() + deadlineMs
  for (;;) {
    const nodes = await several.nodes()
    if (nodes.every(({ address }) => address !== null)) return nodes
    assert.ok(Date.now() < deadline, 'every node announces its address')
  }
}

async function ask(url: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    get(url, { agent, signal: AbortSignal.timeout(requestDeadlineMs) }, (response) =>
      response
        .on('error', reject)
        .on('end', () => resolve(response.statusCode ?? 0))
        .resume(),
    ).on('error', reject)
  })
}

/**
 * A connection for each request, as clients come that did not come before: only those meet a
 * process that is about to go.
 */
async function load(
  origin: string,
  whileThis: Promise<unknown>,
): Promise<{ readonly requests: number; readonly failures: readonly string[] }> {
  const agent = new Agent({ keepAlive: false })
  const over = new AbortController()
  const failures: string[] = []
  let requests = 0
  const client = async (): Promise<void> => {
    while (!over.signal.aborted) {
      requests += 1
      const status = await ask(`${origin}/api/locales`, agent).catch((error: unknown) =>
        String(error),
      )
      if (status !== 200) failures.push(String(status))
    }
  }
  const all = Promise.all(Array.from({ length: clients }, client))
  try {
    await whileThis
  } finally {
    over.abort()
    await all
  }
  return { requests, failures }
}

test(
  'stoa start --nodes 3: one port, and no node is missed when it is killed, drained or replaced',
  { skip: databaseMissing },
  async (t) => {
    await using db = await testDatabase({ migrated: false })
    await using several = await startSeveral(3, { STOA_DATABASE_URL: db.url })
    await several.ready()
    const before = await announced(several)
    assert.deepEqual(
      before.map(({ name, state }) => [name, state]),
      [
        ['box-1', 'live'],
        ['box-2', 'live'],
        ['box-3', 'live'],
      ],
    )
    for (const { address } of before)
      assert.equal(
        (await fetch(`http://${address}/healthz/ready`)).status,
        200,
        'the readiness of each is reachable',
      )

    const rolled = await load(
      several.origin,
      (several.signal('SIGHUP'), several.until('all nodes were restarted')),
    )
    t.diagnostic(`rolling restart: ${rolled.requests} requests, ${rolled.failures.length} failed`)
    assert.deepEqual(rolled.failures, [])
    const after = await several.nodes()
    assert.deepEqual(
      after.map(({ name, state }) => [name, state]),
      [
        ['box-1', 'live'],
        ['box-2', 'live'],
        ['box-3', 'live'],
      ],
    )
    assert.deepEqual(
      after.filter(({ id }) => before.some((one) => one.id === id)),
      [],
      'every one is another process',
    )

    const killed = await load(
      several.origin,
      (async () => {
        // Only the requests that it was serving can fail, and it comes again.
        process.kill((await several.children()).at(-1)!, 'SIGKILL')
        await several.until('has ended by itself and is started again')
        await several.until('"msg":"ready"', 7)
      })(),
    )
    t.diagnostic(`kill: ${killed.requests} requests, ${killed.failures.length} failed`)
    assert.ok(killed.failures.length < clients, killed.failures.join('\n'))
    assert.deepEqual(
      killed.failures.filter((text) => text.includes('aborted')),
      [],
      'no request waits for a node that is no more',
    )
    assert.deepEqual(
      (await several.nodes()).filter(({ state }) => state === 'live').map(({ name }) => name),
      ['box-1', 'box-2', 'box-3'],
    )

    const drained = await load(several.origin, several.stoa('drain', 'box-3'))
    assert.deepEqual(drained.failures, [])
    assert.deepEqual(
      (await several.nodes()).map(({ name }) => name),
      ['box-1', 'box-2'],
      'who was drained stays away',
    )

    several.signal('SIGTERM')
    assert.equal(await several.ended, 0)
  },
)

test(
  "stoa start --nodes 2 and nothing else: the nodes share their supervisor's embedded database",
  { skip: embeddedMissing() },
  async () => {
    await using several = await startSeveral(2, {})
    await several.ready()
    assert.deepEqual(
      (await several.nodes()).map(({ name, state }) => [name, state]),
      [
        ['box-1', 'live'],
        ['box-2', 'live'],
      ],
    )
    assert.equal((await fetch(`${several.origin}/healthz/ready`)).status, 200)
    several.signal('SIGINT')
    assert.equal(await several.ended, 0)
    await assert.rejects(
      several.stoa('start', '--nodes', '64'),
      /connections for \d+ nodes.*STOA_DATABASE_URL.*E_USAGE/,
    )
  },
)
