import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { newId } from '#lib/id.ts'
import { entryPath, numberIn, numbersInDatabase } from '#test/support/coherence/cluster.ts'
import { startCluster } from '#test/support/coherence/cluster.ts'
import type { Cluster } from '#test/support/coherence/cluster.ts'
import { Workload } from '#test/support/coherence/workload.ts'
import { PatroniCluster, patroniMissing, patroniTtlMs } from '#test/support/patroni.ts'

const leaseMs = 1_000
const environment = { STOA_LEASE_MS: String(leaseMs), STOA_DATABASE_TIMEOUT_MS: '5000' }
const restWithinMs = 30_000
/** Beyond Patroni's ttl, so that another server has taken over meanwhile. */
const frozenMs = patroniTtlMs + 8_000
const calledEveryMs = 150

type Status = {
  readonly nodes: readonly { readonly state: string; readonly report: object | null }[]
}
type Receipt = { readonly everywhere: boolean; readonly nodes: readonly object[] }

/**
 * Asks for what takes calls between nodes, on every node in turn: the status of the cluster, and a
 * write that waits for the cluster with its receipt.
 */
class Caller implements AsyncDisposable {
  readonly statuses = new Map<string, number>()
  readonly untrue: string[] = []
  /** The reason why `complete` was false last time. */
  lacking = ''
  readonly #cluster: Cluster
  readonly #key = newId()
  #n = 0
  #stopped = false
  #loop: Promise<void> = Promise.resolve()
  #turn: Promise<unknown> = Promise.resolve()

  constructor(cluster: Cluster) {
    this.#cluster = cluster
  }

  async start(): Promise<void> {
    const created = await this.#send(0, 'POST', '/api/content/probe', {
      id: this.#key,
      fields: { n: 0, grp: 'calls' },
      publish: true,
    })
    assert.ok(created !== null && created.status < 300, 'the entry for receipts was not made')
    this.#loop = this.#run()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#loop
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  /** True when each node sees three nodes that live and reply. */
  async complete(): Promise<boolean> {
    for (const node of this.#cluster.nodes.keys()) {
      const status = await this.#read<Status>(node, '/api/cluster')
      const live = status?.nodes.filter(({ state, report }) => state === 'live' && report !== null)
      if (live?.length !== 3) return this.#lacks(`node ${node} sees ${JSON.stringify(status)}`)
      if (!(await this.writeWithReceipt(node))) return false
    }
    return true
  }

  /**
   * Whether a write on that node arrived everywhere by its receipt, which the next node gives. One
   * after another, so that a later number is a later write.
   */
  async writeWithReceipt(node: number): Promise<boolean> {
    const turn = this.#turn.then(() => this.#writeWithReceipt(node))
    this.#turn = turn
    return turn
  }

  async #writeWithReceipt(node: number): Promise<boolean> {
    const n = (this.#n += 1)
    const path = entryPath(this.#key)
    const written = await this.#send(node, 'PATCH', path, { fields: { n }, publish: true })
    const token = written?.headers.get('stoa-token') ?? null
    if (written?.status !== 200 || token === null)
      return this.#lacks(`the write was ${written?.status} ${written?.text}`)
    const next = (node + 1) % 3
    const receipt = await this.#read<Receipt>(next, `/api/receipts/${token}`)
    if (receipt?.everywhere !== true) return this.#lacks(JSON.stringify(receipt))
    for (const reader of this.#cluster.nodes.keys()) {
      const shown = await this.#send(reader, 'GET', path, null)
      if (shown?.status !== 200 || /stale/.test(shown.headers.get('cache-status') ?? '')) continue
      if (numberIn(shown.text) < n)
        this.untrue.push(`node ${reader} shows ${numberIn(shown.text)} after a receipt for ${n}`)
    }
    return true
  }

  #lacks(what: string): false {
    this.lacking = what
    return false
  }

  async #run(): Promise<void> {
    for (let turn = 0; !this.#stopped; turn += 1) {
      await this.#read(turn % 3, '/api/cluster')
      await this.writeWithReceipt((turn + 1) % 3)
      await sleep(calledEveryMs)
    }
  }

  async #read<T>(node: number, path: string): Promise<T | null> {
    const response = await this.#send(node, 'GET', path, null)
    return response?.status === 200 ? (JSON.parse(response.text) as { data: T }).data : null
  }

  async #send(
    node: number,
    method: string,
    path: string,
    content: object | null,
  ): Promise<{ readonly status: number; readonly headers: Headers; readonly text: string } | null> {
    try {
      const response = await fetch(`${this.#cluster.nodes[node]!.origin}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${this.#cluster.tokens.administrator}`,
          ...(content === null
            ? {}
            : { 'content-type': 'application/json', prefer: 'wait=cluster' }),
        },
        body: content === null ? null : JSON.stringify(content),
        signal: AbortSignal.timeout(20_000),
      })
      const text = await response.text()
      this.#count(`${method} ${response.status}`)
      if (response.status >= 500 && response.status !== 503)
        this.untrue.push(`${method} ${path}: ${response.status} ${text}`)
      return { status: response.status, headers: response.headers, text }
    } catch (error) {
      this.#count(`${method} ${error instanceof Error ? error.name : 'failed'}`)
      return null
    }
  }

  #count(what: string): void {
    this.statuses.set(what, (this.statuses.get(what) ?? 0) + 1)
  }
}

test(
  'three nodes on PostgreSQL under Patroni: the primary killed twice, and once frozen past its ttl',
  { skip: patroniMissing },
  async (t) => {
    await using patroni = await PatroniCluster.start()
    const { url } = patroni
    await using cluster = await startCluster({ urls: [url, url, url], entries: 24, environment })
    await using workload = new Workload({
      cluster,
      leaseMs,
      writers: 4,
      readers: 9,
      writePauseMs: 80,
      readPauseMs: 25,
      calm: false,
      repeats: true,
    }).start()
    const { ledger } = workload
    await using caller = new Caller(cluster)
    await caller.start()
    const survives = async (what: string, fault: () => Promise<unknown>): Promise<void> => {
      const startedMs = performance.now()
      const { writes } = workload.counts
      await fault()
      await until(
        async () => workload.counts.writes > writes + 8,
        () => `${what}: nothing is written`,
      )
      await until(
        () => caller.complete(),
        () => `${what}: calls between nodes do not work again: ${caller.lacking}`,
      )
      await patroni.whole()
      t.diagnostic(`${what}: whole after ${Math.round(performance.now() - startedMs)} ms`)
      assert.deepEqual([...ledger.violations, ...caller.untrue], [], what)
    }
    await survives('at first', async () => sleep(1_000))
    await survives('the primary is killed', () => patroni.killLeader())
    await survives('the next primary is killed', () => patroni.killLeader())
    await survives('the primary is frozen', () => patroni.freezeLeader(frozenMs))
    await caller.stop()
    await workload.stop()
    await workload.atRest(await numbersInDatabase(await patroni.leaderUrl()), restWithinMs)
    t.diagnostic(JSON.stringify({ ...workload.counts, calls: Object.fromEntries(caller.statuses) }))
    assert.deepEqual([...ledger.violations, ...caller.untrue], [])
  },
)

async function until(holds: () => Promise<boolean>, complaint: () => string): Promise<void> {
  const deadline = performance.now() + 90_000
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(complaint())
    await sleep(200)
  }
}
