import { setTimeout as sleep } from 'node:timers/promises'
import {
  entryPath,
  fieldsOf,
  groups,
  listPath,
  nodeName,
  numberIn,
  numbersIn,
} from '#test/support/coherence/cluster.ts'
import type { Cluster } from '#test/support/coherence/cluster.ts'
import { HttpLine } from '#test/support/coherence/http-line.ts'
import type { LineResponse } from '#test/support/coherence/http-line.ts'
import { Ledger } from '#test/support/coherence/ledger.ts'
import type { Shown } from '#test/support/coherence/ledger.ts'

export type WorkloadOptions = {
  readonly cluster: Cluster
  /** Where each node is reached; absent: at the node itself. */
  readonly origins?: readonly string[]
  readonly leaseMs: number
  readonly writers: number
  readonly readers: number
  /** The pause between two requests of one client. */
  readonly writePauseMs: number
  readonly readPauseMs: number
  /** A refusal (503) or a broken connection counts as a violation. */
  readonly calm: boolean
  /** Every write has an `Idempotency-Key` and is repeated until its outcome is known. */
  readonly repeats: boolean
  /** A workload that has ended, whose entries this one goes on with. */
  readonly from?: Workload
}

/** How long a request took, by what it was, in milliseconds. */
export type Took = 'write' | 'plain' | 'token' | 'list' | 'refused read' | 'refused write'
type Write = {
  readonly key: string
  readonly n: number
  readonly token: string
  readonly node: number
}

const readTimeoutMs = 20_000
const writeTimeoutMs = 20_000
const repeatPauseMs = 50
/** So many of the last writes are read with their tokens. */
const recentMax = 64
const tookMax = 1_000_000

/** Writers and readers on all nodes of a cluster; each response goes to the ledger. */
export class Workload implements AsyncDisposable {
  readonly ledger: Ledger
  readonly took = new Map<Took, number[]>()
  readonly counts = { writes: 0, reads: 0, pairs: 0, refused: 0, broken: 0, repeated: 0 }
  /** Nodes that clients talk to now. */
  active: number[]
  readonly #options: WorkloadOptions
  readonly #origins: readonly string[]
  readonly #recent: Write[] = []
  readonly #clients: Promise<void>[] = []
  readonly #lines: HttpLine[] = []
  #phase: 'running' | 'only reading' | 'over' = 'running'

  constructor(options: WorkloadOptions) {
    this.#options = options
    this.#origins = options.origins ?? options.cluster.nodes.map(({ origin }) => origin)
    this.active = this.#origins.map((_, index) => index)
    const numbers = new Map(
      options.cluster.entries.map((key) => [key, options.from?.ledger.lastAcknowledged(key) ?? 0]),
    )
    this.ledger = new Ledger({ leaseMs: options.leaseMs, groups, numbers })
  }

  start(): this {
    const { writers, readers } = this.#options
    for (let index = 0; index < writers; index += 1) this.#clients.push(this.#write(index))
    for (let index = 0; index < readers; index += 1) this.#clients.push(this.#read(index))
    return this
  }

  /** Ends the writers, each after an acknowledgement, then the readers. */
  async stop(): Promise<void> {
    this.#phase = 'only reading'
    await Promise.all(this.#clients.slice(0, this.#options.writers))
    this.#phase = 'over'
    await Promise.all(this.#clients)
    for (const line of this.#lines) line.close()
  }

  /** Ends all clients at once, whatever they wait for. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#phase = 'over'
    for (const line of this.#lines) line.close()
    await Promise.all(this.#clients)
    for (const line of this.#lines) line.close()
  }

  /**
   * Nothing is written any more: what do the nodes show? Everything must be there, unmarked, within
   * `deadlineMs`.
   */
  async atRest(truth: ReadonlyMap<string, number>, deadlineMs: number): Promise<void> {
    const { ledger } = this
    for (const key of ledger.keys) {
      if (truth.get(key) !== ledger.lastAcknowledged(key))
        ledger.violates(
          'rest',
          `the database has ${key}=${truth.get(key)}, ` +
            `and ${ledger.lastAcknowledged(key)} was acknowledged`,
        )
    }
    const end = performance.now() + deadlineMs
    for (const [node, origin] of this.#origins.entries()) {
      const line = new HttpLine(origin)
      let complaints: string[]
      do complaints = await this.#complaintsAtRest(line, truth)
      while (complaints.length > 0 && performance.now() < end && (await sleep(100, true)))
      line.close()
      for (const text of complaints) ledger.violates('rest', `${nodeName(node)}: ${text}`)
    }
  }

  async #complaintsAtRest(line: HttpLine, truth: ReadonlyMap<string, number>): Promise<string[]> {
    const complaints: string[] = []
    const entries = this.ledger.keys.map((key) => [key, truth.get(key)] as const)
    const ask = async (path: string, check: (text: string) => string | null): Promise<void> => {
      const response = await line.send({ method: 'GET', path, timeoutMs: readTimeoutMs })
      const fresh = (): string | null =>
        staleSOf(response) === null ? check(response.text) : 'still marked stale'
      const complaint = response.status === 200 ? fresh() : `${response.status} ${response.text}`
      if (complaint !== null) complaints.push(`${path}: ${complaint}`)
    }
    for (const [key, n] of entries)
      await ask(entryPath(key), (text) =>
        numberIn(text) === n ? null : `shows ${numberIn(text)}, and ${n} is there`,
      )
    for (let group = 0; group < groups; group += 1) {
      const there = listed(entries.filter(([, n]) => n !== undefined && n % groups === group))
      await ask(listPath(group), (text) =>
        listed(numbersIn(text)) === there
          ? null
          : `shows ${listed(numbersIn(text))}, and there is ${there}`,
      )
    }
    return complaints
  }

  #line(lines: Map<number, HttpLine>, node: number): HttpLine {
    let line = lines.get(node)
    if (line === undefined) {
      lines.set(node, (line = new HttpLine(this.#origins[node]!)))
      this.#lines.push(line)
    }
    return line
  }

  #isOver(): boolean {
    return this.#phase === 'over'
  }

  #anyNode(): number {
    return this.active[Math.floor(Math.random() * this.active.length)]!
  }

  async #write(writer: number): Promise<void> {
    const { cluster, writers, writePauseMs, repeats } = this.#options
    const lines = new Map<number, HttpLine>()
    const mine = cluster.entries.filter((_, index) => index % writers === writer)
    const numbers = new Map(mine.map((key) => [key, this.ledger.lastAcknowledged(key)]))
    for (let turn = 0; this.#phase === 'running'; turn += 1) {
      const key = mine[turn % mine.length]!
      const n = numbers.get(key)! + 1
      numbers.set(key, n)
      this.ledger.attempts(key, n)
      const idempotency: Record<string, string> = repeats
        ? { 'idempotency-key': `${key}-${n}-${process.pid}` }
        : {}
      for (;;) {
        const node = this.#anyNode()
        const headers = { authorization: `Bearer ${cluster.tokens.administrator}`, ...idempotency }
        const response = await this.#line(lines, node).send({
          method: 'PATCH',
          path: entryPath(key),
          headers,
          body: JSON.stringify({ fields: fieldsOf(n), publish: true }),
          timeoutMs: writeTimeoutMs,
        })
        if (response.status === 200) {
          this.#wrote(key, n, node, response)
          break
        }
        this.#note(response.status === 503 ? 'refused write' : null, response, node)
        if (!repeats || this.#isOver()) return
        this.counts.repeated += 1
        await sleep(repeatPauseMs)
      }
      if (writePauseMs > 0) await sleep(writePauseMs * (0.5 + Math.random()))
    }
  }

  #wrote(key: string, n: number, node: number, response: LineResponse): void {
    this.ledger.acknowledged(key, n, response.endMs)
    this.counts.writes += 1
    this.#time('write', response)
    const token = response.headers['stoa-token']
    if (token === undefined) {
      if (this.#options.calm)
        this.ledger.violates('refused', `${nodeName(node)}: a write came without a token`)
      return
    }
    if (this.#recent.push({ key, n, token, node }) > recentMax) this.#recent.shift()
  }

  async #read(reader: number): Promise<void> {
    const { readPauseMs, cluster } = this.#options
    const lines = new Map<number, HttpLine>()
    // Half of them are known by an API token, the others are anonymous.
    const headers: Record<string, string> =
      reader % 2 === 0 ? {} : { authorization: `Bearer ${cluster.tokens.reader}` }
    for (let turn = reader; this.#phase !== 'over'; turn += 1) {
      if (turn % 16 === 0) await this.#readList(lines, headers)
      else await this.#readEntry(lines, headers, turn % 4 !== 3)
      if (readPauseMs > 0) await sleep(readPauseMs * (0.5 + Math.random()))
    }
  }

  /** Reads a recent write on another node: with the token, or without, to compare. */
  async #readEntry(
    lines: Map<number, HttpLine>,
    headers: Record<string, string>,
    withToken: boolean,
  ): Promise<void> {
    const write = this.#recent[Math.floor(Math.random() * this.#recent.length)]
    if (write === undefined) {
      await sleep(5)
      return
    }
    const others = this.active.filter((each) => each !== write.node)
    const node = others[Math.floor(Math.random() * others.length)] ?? this.#anyNode()
    const response = await this.#line(lines, node).send({
      method: 'GET',
      path: entryPath(write.key),
      headers: withToken ? { ...headers, 'stoa-token': write.token } : headers,
      timeoutMs: readTimeoutMs,
    })
    if (response.status !== 200) return this.#note('refused read', response, node)
    this.#time(withToken ? 'token' : 'plain', response)
    if (withToken) this.counts.pairs += 1
    this.counts.reads += 1
    this.ledger.read(
      write.key,
      numberIn(response.text),
      shownBy(response, node),
      withToken ? write.n : null,
    )
  }

  async #readList(lines: Map<number, HttpLine>, headers: Record<string, string>): Promise<void> {
    const group = Math.floor(Math.random() * groups)
    const node = this.#anyNode()
    const response = await this.#line(lines, node).send({
      method: 'GET',
      path: listPath(group),
      headers,
      timeoutMs: readTimeoutMs,
    })
    if (response.status !== 200) return this.#note('refused read', response, node)
    this.#time('list', response)
    this.counts.reads += 1
    this.ledger.list(group, numbersIn(response.text), shownBy(response, node))
  }

  /**
   * Counts a request that failed. Any failure but 503 or a broken connection is always a violation;
   * those two are one while nothing of the cluster is broken.
   */
  #note(what: Took | null, response: LineResponse, node: number): void {
    const { status, text } = response
    if (status === 0) this.counts.broken += 1
    else if (status === 503) this.counts.refused += 1
    if (status === 503 && what !== null) this.#time(what, response)
    const allowed =
      !this.#options.calm &&
      (status === 0 ||
        (status === 503 && response.headers['retry-after'] !== undefined) ||
        (status === 409 && text.includes('E_IDEMPOTENCY_KEY_BUSY')))
    if (!allowed && this.#phase !== 'over')
      this.ledger.violates('refused', `${nodeName(node)}: ${status} ${text.slice(0, 300)}`)
  }

  #time(what: Took, response: LineResponse): void {
    let list = this.took.get(what)
    if (list === undefined) this.took.set(what, (list = []))
    if (list.length < tookMax) list.push(response.endMs - response.startMs)
  }
}

function listed(entries: Iterable<readonly [string, number | undefined]>): string {
  return [...entries]
    .map(([key, n]) => `${key}=${n}`)
    .sort()
    .join()
}

function shownBy(response: LineResponse, node: number): Shown {
  return {
    startMs: response.startMs,
    endMs: response.endMs,
    staleS: staleSOf(response),
    node: nodeName(node),
  }
}

/** Seconds since the response was last known to be true, by its mark; null without a mark. */
function staleSOf({ headers }: LineResponse): number | null {
  const ttl = /\bttl=-(\d+)/.exec(headers['cache-status'] ?? '')?.[1]
  return ttl === undefined ? null : Number(ttl)
}

/** The value below which `share` of all lie. */
export function percentile(values: readonly number[] | undefined, share: number): number {
  const sorted = [...(values ?? [])].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
