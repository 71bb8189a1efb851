import { setTimeout as sleep } from 'node:timers/promises'
import { entryPath, numberIn } from '#test/support/coherence/cluster.ts'
import type { Cluster } from '#test/support/coherence/cluster.ts'
import { HttpLine } from '#test/support/coherence/http-line.ts'

/** One write: its transaction, when it was acknowledged, and when the last of the other nodes showed it, by `performance.now()`. */
export type LagSample = { readonly xid: string; readonly acknowledgedMs: number; readonly shownMs: number }

const pauseMs = 40
const timeoutMs = 10_000

/** Writes an entry of its own on each node in turn, and asks the other nodes for it, without token and without pause, until they show it. */
export class LagProbe {
  readonly samples: LagSample[] = []
  readonly #cluster: Cluster
  readonly #key: string
  readonly #lines: readonly HttpLine[]
  #stopping = false
  #running: Promise<void> = Promise.resolve()

  private constructor(cluster: Cluster, key: string) {
    this.#cluster = cluster
    this.#key = key
    this.#lines = cluster.nodes.map(({ origin }) => new HttpLine(origin))
  }

  /** `key`: the id of the entry that it makes, in no group that others look at. */
  static async start(cluster: Cluster, key: string): Promise<LagProbe> {
    const probe = new LagProbe(cluster, key)
    await probe.#write(0, 'POST', '/api/content/probe', { id: key, fields: { n: 0, grp: 'lag' }, publish: true })
    probe.#running = probe.#run()
    return probe
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#running
    for (const line of this.#lines) line.close()
  }

  async #run(): Promise<void> {
    for (let n = 1; !this.#stopping; n += 1) {
      const writer = n % this.#lines.length
      const others = this.#lines.filter((_, node) => node !== writer)
      const shown = others.map(async (line) => this.#shown(line, n))
      const { acknowledgedMs, xid } = await this.#write(writer, 'PATCH', entryPath(this.#key), { fields: { n }, publish: true })
      this.samples.push({ xid, acknowledgedMs, shownMs: Math.max(...(await Promise.all(shown))) })
      await sleep(pauseMs * (0.5 + Math.random()))
    }
  }

  async #shown(line: HttpLine, n: number): Promise<number> {
    const end = performance.now() + timeoutMs
    for (;;) {
      const answer = await line.send({ method: 'GET', path: entryPath(this.#key), timeoutMs })
      if (answer.status === 200 && numberIn(answer.text) >= n) return answer.endMs
      if (performance.now() > end) throw new Error(`a write was not shown within ${timeoutMs} ms: ${answer.status} ${answer.text}`)
    }
  }

  async #write(node: number, method: string, path: string, content: object): Promise<{ acknowledgedMs: number; xid: string }> {
    const headers = { authorization: `Bearer ${this.#cluster.tokens.administrator}` }
    const answer = await this.#lines[node]!.send({ method, path, headers, body: JSON.stringify(content), timeoutMs })
    const token = answer.headers['stoa-token']
    if (answer.status >= 300 || token === undefined) throw new Error(`${method} ${path}: ${answer.status} ${answer.text}`)
    return { acknowledgedMs: answer.endMs, xid: token.slice(token.lastIndexOf('-') + 1) }
  }
}
