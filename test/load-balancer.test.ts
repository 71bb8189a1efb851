import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { Agent, request } from 'node:http'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { sql } from '#database/database.ts'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'
import { haproxyMissing, startHaproxy } from '#test/support/haproxy.ts'
import type { Haproxy } from '#test/support/haproxy.ts'
import { startNode, stoaProgram } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'

/** STOA_TEST_ROLLING_REQUESTS=100000 for what issue 3 asks; a run of the tests needs fewer. */
const requestsMin = Number(process.env['STOA_TEST_ROLLING_REQUESTS'] ?? 3_000)
const readers = 16
const writers = 2
const nodeLeaseMs = 3_000
const withoutSettings = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('STOA_')),
)

type Failure = { readonly what: string; readonly startedMs: number; readonly endedMs: number }
type Load = AsyncDisposable & {
  readonly failures: readonly Failure[]
  requests(): number
  readonly written: readonly string[]
  stop(): Promise<void>
}

/**
 * Readers and writers through the load balancer, each with one request at a time over connections
 * that are kept.
 */
function startLoad(origin: string, token: string): Load {
  const agent = new Agent({ keepAlive: true, maxSockets: readers + writers })
  const failures: Failure[] = []
  const written: string[] = []
  let requests = 0
  const stopping = new AbortController()
  const send = async (method: string, path: string, body: string | null): Promise<number> =>
    new Promise((resolve, reject) => {
      const headers =
        body === null
          ? {}
          : {
              authorization: `Bearer ${token}`,
              'content-type': 'application/json',
              'content-length': Buffer.byteLength(body),
            }
      const sent = request(`${origin}${path}`, { method, agent, headers }, (response) => {
        response
          .on('error', reject)
          .on('end', () => resolve(response.statusCode ?? 0))
          .resume()
      })
      sent.on('error', reject).end(body ?? undefined)
    })
  const client = async (write: boolean, name: string): Promise<void> => {
    for (let number = 0; !stopping.signal.aborted; number += 1) {
      const title = `${name} ${number}`
      const startedMs = performance.now()
      const fail = (what: string): void =>
        void failures.push({
          what: `${write ? 'write' : 'read'}: ${what}`,
          startedMs,
          endedMs: performance.now(),
        })
      try {
        const status = write
          ? await send(
              'POST',
              '/api/content/note',
              JSON.stringify({ fields: { title }, publish: true }),
            )
          : await send('GET', '/api/content/note?limit=5', null)
        requests += 1
        if (write && status === 201) written.push(title)
        if (status !== (write ? 201 : 200)) fail(`status ${status}`)
      } catch (error) {
        requests += 1
        fail(String(error))
      }
      // Writes go on all the time, and leave the machine to the readers.
      if (write) await sleep(20)
    }
  }
  const clients = Array.from({ length: readers + writers }, (_, index) =>
    client(index < writers, `c${index}-${Date.now()}`),
  )
  const stop = async (): Promise<void> => {
    stopping.abort()
    await Promise.all(clients)
    agent.destroy()
  }
  return { failures, written, requests: () => requests, stop, [Symbol.asyncDispose]: stop }
}

/** The state of a node, as another one reports it. */
async function stateOf(origin: string, token: string, name: string): Promise<string | undefined> {
  const response = await fetch(`${origin}/api/cluster`, {
    headers: { authorization: `Bearer ${token}` },
  })
  const { data } = (await response.json()) as {
    data: { nodes: { name: string; state: string }[] }
  }
  return data.nodes.find((node) => node.name === name)?.state
}

async function allUp(haproxy: Haproxy): Promise<void> {
  for (let round = 0; !(await haproxy.servers()).every(({ up }) => up); round += 1) {
    assert.ok(round < 200, 'a node does not come back')
    await sleep(50)
  }
}

test(
  'three nodes behind HAProxy: a rolling restart fails no request, a kill only those in flight',
  { skip: databaseMissing || haproxyMissing },
  async (t) => {
    await using db = await testDatabase()
    const dataDir = await mkdtemp(join(tmpdir(), 'stoa-balanced-'))
    const ports = [await freePort(), await freePort(), await freePort()]
    const start = async (index: number): Promise<RunningNode> =>
      startNode({
        dataDir,
        environment: {
          STOA_DATABASE_URL: db.url,
          STOA_STARTER: 'false',
          STOA_LOG_LEVEL: 'warn',
          STOA_NODE: `node-${index + 1}`,
          STOA_PORT: String(ports[index]),
        },
      })
    const nodes = await Promise.all(ports.map((_, index) => start(index)))
    try {
      const made = await promisify(execFile)(
        process.execPath,
        [stoaProgram, 'token', 'create', 'load', '--role', 'administrator', '--json'],
        {
          env: { ...withoutSettings, STOA_DATABASE_URL: db.url, STOA_DATA: dataDir },
        },
      )
      const { token } = JSON.parse(made.stdout) as { token: string }
      const typed = await fetch(`${nodes[0]!.origin}/api/types/note`, {
        method: 'PUT',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({
          name: 'note',
          label: 'Note',
          fields: [{ kind: 'text', name: 'title', required: true }],
        }),
      })
      assert.equal(typed.status, 201, await typed.text())
      // Every node must have applied the new type first, or it rightly says that there is none.
      await sleep(1_500)
      await using haproxy = await startHaproxy(ports)

      await using load = startLoad(haproxy.origin, token)
      let restarts = 0
      do {
        for (const [index, node] of nodes.entries()) {
          assert.equal(await node.stop(), 0, node.output())
          nodes[index] = await start(index)
          restarts += 1
          await allUp(haproxy)
        }
      } while (load.requests() < requestsMin)
      await load.stop()
      t.diagnostic(
        `${load.requests()} requests, ${load.written.length} of them writes, ` +
          `through ${restarts} restarts: ${load.failures.length} failed`,
      )
      assert.deepEqual(load.failures, [])

      await using again = startLoad(haproxy.origin, token)
      await sleep(1_000)
      const victim = 1
      const killedMs = performance.now()
      // The system needs a moment to take a process down; until then its sockets take requests.
      const goneMs = new Promise<number>((resolve) =>
        nodes[victim]!.process.once('exit', () => resolve(performance.now())),
      )
      nodes[victim]!.process.kill('SIGKILL')
      while ((await stateOf(nodes[0]!.origin, token, `node-${victim + 1}`)) !== 'silent') {
        assert.ok(
          performance.now() - killedMs < 2 * nodeLeaseMs,
          'the killed node is not shown as silent within twice the lease',
        )
        await sleep(20)
      }
      t.diagnostic(`shown as silent ${Math.round(performance.now() - killedMs)} ms after the kill`)
      await sleep(1_000)
      await again.stop()
      const deadMs = await goneMs
      const late = again.failures.filter(({ startedMs }) => startedMs > deadMs)
      t.diagnostic(
        `${again.failures.length} requests failed, all in flight when the process was gone, ` +
          `${Math.round(deadMs - killedMs)} ms after the kill; ` +
          `${again.requests()} were sent in all`,
      )
      // One for each client at the moment of the kill; what came while the system took the process
      // down was in flight on it, too.
      assert.ok(
        again.failures.filter(({ startedMs }) => startedMs <= killedMs).length <= readers + writers,
      )
      assert.deepEqual(late, [], 'none but those that were in flight')

      const there = new Set(
        (
          await db.database.run(
            sql<{ title: string }>(
              `select data->>'title' as title
               from stoa.version where type = 'note' and is_published`,
            ),
          )
        ).map(({ title }) => title),
      )
      assert.deepEqual(
        [...load.written, ...again.written].filter((title) => !there.has(title)),
        [],
        'nothing acknowledged is lost',
      )
    } finally {
      await Promise.all(nodes.map(async (node) => node.stop()))
      await rm(dataDir, { recursive: true, force: true })
    }
  },
)
