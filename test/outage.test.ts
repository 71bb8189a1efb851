import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  entryPath,
  groups,
  listPath,
  numbersInDatabase,
  startCluster,
} from '#test/support/coherence/cluster.ts'
import type { Cluster } from '#test/support/coherence/cluster.ts'
import { HttpLine } from '#test/support/coherence/http-line.ts'
import type { LineResponse } from '#test/support/coherence/http-line.ts'
import { percentile, Workload } from '#test/support/coherence/workload.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startProxy } from '#test/support/proxy.ts'

/** STOA_TEST_OUTAGE_SECONDS: how long the database is away; longer to be surer. */
const outageMs = Number(process.env['STOA_TEST_OUTAGE_SECONDS'] ?? 10) * 1_000
const leaseMs = 1_000
const databaseTimeoutMs = 3_000
/**
 * Requests for content that is not cached are refused by then: a lease until the node knows,
 * another until it times out, and time for a busy machine.
 */
const refusedWithinMs = 4_000
const backWithinMs = 10_000
/** Concurrent requests for content that no node has cached. */
const flood = 400
const grownMbMax = 150

type Reader = { readonly who: string; readonly headers: Readonly<Record<string, string>> }

/** Each kind of caller: anonymous, with an API token, with a session. */
async function readersOf({ nodes, tokens }: Cluster): Promise<Reader[]> {
  const call = async (
    path: string,
    body: object,
    headers: Record<string, string> = {},
  ): Promise<Response> =>
    fetch(`${nodes[0]!.origin}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    })
  const user = {
    email: 'ada@example.com',
    name: 'Ada',
    password: 'columns and a roof',
    roles: ['author'],
  }
  const made = await call('/api/users', user, { authorization: `Bearer ${tokens.administrator}` })
  assert.equal(made.status, 201, await made.text())
  const login = await call('/api/session', { email: user.email, password: user.password })
  assert.equal(login.status, 201)
  const cookie = login.headers
    .getSetCookie()
    .map((each) => each.split(';')[0])
    .join('; ')
  return [
    { who: 'anonymous', headers: {} },
    { who: 'API token', headers: { authorization: `Bearer ${tokens.reader}` } },
    { who: 'session', headers: { cookie } },
  ]
}

function residentMb({ process: { pid } }: Cluster['nodes'][number]): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

for (const how of ['refuses connections', 'is silent'] as const) {
  test(
    `the database ${how} for all nodes: cached content is served and marked, the rest refused`,
    { skip: databaseMissing },
    async (t) => {
      await using db = await testDatabase({ migrated: false, connectionsMax: 2 })
      await using network = await startProxy(db.url)
      const environment = {
        STOA_LEASE_MS: String(leaseMs),
        STOA_DATABASE_TIMEOUT_MS: String(databaseTimeoutMs),
      }
      await using cluster = await startCluster({
        urls: [network.url, network.url],
        entries: 16,
        environment,
      })
      const readers = await readersOf(cluster)
      const paths = [
        ...cluster.entries.map(entryPath),
        ...Array.from({ length: groups }, (_, group) => listPath(group)),
      ]
      await using workload = new Workload({
        cluster,
        leaseMs,
        writers: 2,
        readers: 4,
        writePauseMs: 100,
        readPauseMs: 25,
        calm: false,
        repeats: true,
      }).start()
      await sleep(2_000)
      await everything(
        cluster,
        readers,
        paths,
        ({ status }) => status === 200 || `status ${status}`,
      )
      const memoryMb = cluster.nodes.map(residentMb)
      if (how === 'is silent') network.silence()
      else network.refuse()
      const awayAtMs = performance.now()
      await sleep(2 * leaseMs + 500)
      // Writes had gone on until the end: entries that they had dropped are not cached; everything
      // else is, for every caller.
      const known = await everything(cluster, readers, paths, ({ status, headers }) => {
        if (status === 503) return headers['retry-after'] !== undefined || 'no Retry-After'
        return (
          (status === 200 &&
            /ttl=-\d+; detail=stale/.test(headers['cache-status'] ?? '') &&
            Number(headers['age']) >= 1) ||
          `${status} ${headers['cache-status']} age ${headers['age']}`
        )
      })
      t.diagnostic(`${known.served} of ${known.sent} requests were served`)
      assert.ok(known.served > known.sent * 0.5)
      await refusesWhatItDoesNotKnow(cluster, t)
      await sleep(Math.max(0, awayAtMs + outageMs - performance.now()))
      const again = await everything(cluster, readers, paths, () => true)
      assert.equal(
        again.served,
        known.served,
        'what was served is served for as long as the database is away',
      )
      for (const [index, node] of cluster.nodes.entries()) {
        const grownMb = residentMb(node) - memoryMb[index]!
        assert.ok(grownMb < grownMbMax, `${grownMb} MB more`)
        assert.equal(
          (await fetch(`${node.origin}/healthz/ready`)).status,
          200,
          'a node that can response stays in rotation',
        )
      }
      network.heal()
      await sleep(2_000)
      await workload.stop()
      await workload.atRest(await numbersInDatabase(db.url), backWithinMs)
      assert.deepEqual(workload.ledger.violations, [])
      await everything(
        cluster,
        readers,
        paths,
        ({ status }) => status === 200 || `status ${status}`,
      )
      const { took, counts, ledger } = workload
      t.diagnostic(
        `${ledger.checked} responses checked, ${ledger.marked} marked; ` +
          `${counts.writes} writes, ${counts.repeated} repeated; medians of refusals: ` +
          `writes ${Math.round(percentile(took.get('refused write'), 0.5))} ms, ` +
          `reads ${Math.round(percentile(took.get('refused read'), 0.5))} ms`,
      )
    },
  )
}

/** Reads every path on every node by every reader; `check` returns true or a complaint. */
async function everything(
  cluster: Cluster,
  readers: readonly Reader[],
  paths: readonly string[],
  check: (response: LineResponse) => true | string,
): Promise<{ sent: number; served: number }> {
  const count = { sent: 0, served: 0 }
  const wrong: string[] = []
  await Promise.all(
    cluster.nodes.flatMap((node, index) =>
      readers.map(async ({ who, headers }) => {
        await Promise.all(
          paths.map(async (path) => {
            const line = new HttpLine(node.origin)
            const response = await line.send({ method: 'GET', path, headers, timeoutMs: 10_000 })
            line.close()
            count.sent += 1
            if (response.status === 200) count.served += 1
            const verdict = check(response)
            if (verdict !== true)
              wrong.push(
                `node ${index + 1}, ${who}, ${path}: ${verdict} ` +
                  (response.status === 200 ? '' : response.text),
              )
          }),
        )
      }),
    ),
  )
  assert.deepEqual(wrong, [])
  return count
}

/** Sends many requests at once, each the first of its kind. */
async function refusesWhatItDoesNotKnow(
  { nodes }: Cluster,
  t: { diagnostic(text: string): void },
): Promise<void> {
  const responses = await Promise.all(
    Array.from({ length: flood }, async (_, index) => {
      const line = new HttpLine(nodes[index % nodes.length]!.origin)
      const response = await line.send({
        method: 'GET',
        path: `/api/content/probe?limit=1&where[n][gt]=${index}`,
        timeoutMs: 20_000,
      })
      line.close()
      return response
    }),
  )
  assert.deepEqual(
    [
      ...new Set(
        responses.map(({ status, headers }) => `${status} ${headers['retry-after'] !== undefined}`),
      ),
    ],
    ['503 true'],
  )
  const slowestMs = Math.max(...responses.map(({ startMs, endMs }) => endMs - startMs))
  t.diagnostic(`${flood} requests were refused within ${Math.round(slowestMs)} ms`)
  assert.ok(slowestMs < refusedWithinMs, `${slowestMs} ms`)
}
