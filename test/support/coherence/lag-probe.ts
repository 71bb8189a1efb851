import { setTimeout as sleep } from 'node:timers/promises'
import { entryPath, numberIn } from '#test/support/coherence/cluster.ts'
import type { Cluster } from '#test/support/coherence/cluster.ts'
import { HttpLine } from '#test/support/coherence/http-line.ts'

/**
 * One write: its transaction, when it was acknowledged, and when the last of the nodes had it, by
 * `performance.now()`.
 */
export type LagSample = {
  readonly xid: string
  readonly acknowledgedMs: number
  readonly arrivedMs: number
}

const pauseMs = 25
const timeoutMs = 10_000
/** Receipts have whole milliseconds, rounded down: the write was applied up to one later. */
const receiptRoundingMs = 1
/** A receipt that is requested at once would not have every node yet. */
const receiptPauseMs = 100

/**
 * Writes an entry of its own on each node in turn. The receipt of every other write says when each
 * node had applied it. After the rest, the probe polls the other nodes, without token and without
 * pause, until they show the write.
 */
export class LagProbe {
  readonly applied: LagSample[] = []
  readonly shown: LagSample[] = []
  readonly #cluster: Cluster
  readonly #key: string
  readonly #lines: readonly HttpLine[]
  readonly #receipts: HttpLine
  #stopping = false
  #running: Promise<void> = Promise.resolve()

  private constructor(cluster: Cluster, key: string) {
    this.#cluster = cluster
    this.#key = key
    this.#lines = cluster.nodes.map(({ origin }) => new HttpLine(origin))
    this.#receipts = new HttpLine(cluster.nodes[0]!.origin)
  }

  /** `key`: the id of the entry that it makes, in no group that others look at. */
  static async start(cluster: Cluster, key: string): Promise<LagProbe> {
    const probe = new LagProbe(cluster, key)
    await probe.#write(0, 'POST', '/api/content/probe', {
      id: key,
      fields: { n: 0, grp: 'lag' },
      publish: true,
    })
    probe.#running = probe.#run()
    return probe
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#running
    for (const line of [...this.#lines, this.#receipts]) line.close()
  }

  async #run(): Promise<void> {
    // One receipt after another, beside the writes.
    let receipts = Promise.resolve()
    for (let n = 1; !this.#stopping; n += 1) {
      const writer = n % this.#lines.length
      const others = this.#lines.filter((_, node) => node !== writer)
      const asking = n % 2 === 0 ? others.map(async (line) => this.#shown(line, n)) : []
      const { token, ...write } = await this.#write(writer, 'PATCH', entryPath(this.#key), {
        fields: { n },
        publish: true,
      })
      if (n % 2 === 0)
        this.shown.push({ ...write, arrivedMs: Math.max(...(await Promise.all(asking))) })
      else
        receipts = Promise.all([receipts, sleep(receiptPauseMs)]).then(
          async () => void this.applied.push({ ...write, arrivedMs: await this.#applied(token) }),
        )
      await sleep(pauseMs * (0.5 + Math.random()))
    }
    await receipts
  }

  async #applied(token: string): Promise<number> {
    const headers = { authorization: `Bearer ${this.#cluster.tokens.administrator}` }
    const response = await this.#receipts.send({
      method: 'GET',
      path: `/api/receipts/${token}`,
      headers,
      timeoutMs,
    })
    const { data } = JSON.parse(response.text) as {
      data: { everywhere: boolean; nodes: { appliedAt: string | null }[] }
    }
    const times = data.nodes.map(({ appliedAt }) => Date.parse(appliedAt ?? ''))
    if (!data.everywhere || times.length !== this.#lines.length || times.some(Number.isNaN))
      throw new Error(
        `a write was not applied everywhere after ${receiptPauseMs} ms: ${response.text}`,
      )
    return Math.max(...times) + receiptRoundingMs - performance.timeOrigin
  }

  async #shown(line: HttpLine, n: number): Promise<number> {
    const end = performance.now() + timeoutMs
    for (;;) {
      const response = await line.send({ method: 'GET', path: entryPath(this.#key), timeoutMs })
      if (response.status === 200 && numberIn(response.text) >= n) return response.endMs
      if (performance.now() > end)
        throw new Error(
          `a write was not shown within ${timeoutMs} ms: ${response.status} ${response.text}`,
        )
    }
  }

  async #write(
    node: number,
    method: string,
    path: string,
    content: object,
  ): Promise<{ acknowledgedMs: number; xid: string; token: string }> {
    const headers = { authorization: `Bearer ${this.#cluster.tokens.administrator}` }
    const response = await this.#lines[node]!.send({
      method,
      path,
      headers,
      body: JSON.stringify(content),
      timeoutMs,
    })
    const token = response.headers['stoa-token']
    if (response.status >= 300 || token === undefined)
      throw new Error(`${method} ${path}: ${response.status} ${response.text}`)
    return { acknowledgedMs: response.endMs, xid: token.slice(token.lastIndexOf('-') + 1), token }
  }
}
