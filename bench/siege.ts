import { Agent, request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { newId } from '#lib/id.ts'
import { createDatabase, sender, startArticleNode } from './support/articles.ts'
import type { ArticleNode } from './support/articles.ts'
import { round } from './support/benchmark.ts'
import type { Figure } from './support/benchmark.ts'
import { loadBenchmark } from './support/load-benchmark.ts'

const connections = 100
const heapMb = 512
const entries = 400
/** STOA_BENCH_SECONDS: the length of each attack. */
const seconds = Number(process.env['STOA_BENCH_SECONDS'] ?? 10)
// The node would take it for one of its settings.
delete process.env['STOA_BENCH_SECONDS']
/** Attacker and clients have addresses of their own on loopback. */
const attacker = '127.0.0.2'
const client = '127.0.0.3'
const cachedClients = 4
const otherClients = 4

export const benchmark = loadBenchmark(
  `A node with a heap of ${heapMb} MB, and an anonymous attacker with ${connections} ` +
    `connections from one address: clients of other addresses keep their service.`,
  async (url, folder, say) => {
    await using node = await startArticleNode({
      databaseUrl: await createDatabase(url, 'siege'),
      folder,
      environment: {
        STOA_HOST: '0.0.0.0',
        NODE_OPTIONS: `--max-old-space-size=${heapMb}`,
      },
    })
    const world = await fill(node)
    const quiet = await observe(world, seconds)
    say(`undisturbed: ${describe(quiet)}`)
    const figures: Figure[] = [
      { name: 'cached reads undisturbed, p99', value: round(quiet.p99Ms), unit: 'ms' },
    ]
    for (const [name, attack] of Object.entries(attacks)) {
      const stop = new AbortController()
      const under = attack(world, stop.signal)
      await sleep(500)
      const seen = await observe(world, seconds)
      stop.abort()
      await under
      say(`${name}: ${describe(seen)}`)
      figures.push(...figuresOf(name, quiet, seen))
      await sleep(1_000)
    }
    return { figures, notes: [`resident memory at the end: ${node.process.residentMb()} MB`] }
  },
)

type World = { readonly port: number; readonly token: string; readonly ids: readonly string[] }

async function fill({ origin, token }: ArticleNode): Promise<World> {
  const send = sender(origin, token)
  await send('PUT', '/api/types/page', {
    name: 'page',
    label: 'Page',
    fields: [
      { name: 'title', kind: 'text', filterable: true },
      { name: 'body', kind: 'markdown' },
    ],
  })
  const rows = Array.from({ length: 40 }, () => `|${' a |'.repeat(20)}`)
  const body = `# Title\n\n|${' h |'.repeat(20)}\n|${' - |'.repeat(20)}\n${rows.join('\n')}`
  const ids = Array.from({ length: entries }, () => newId())
  for (const [at, id] of ids.entries())
    await send('POST', '/api/content/page', {
      id,
      fields: { title: `Title ${at}`, body: `${body}\n\n${'text '.repeat(1_000)}` },
      publish: true,
    })
  return { port: Number(new URL(origin).port), token, ids }
}

type Seen = {
  readonly p99Ms: number
  readonly reads: number
  readonly writes: number
  readonly refused: number
  readonly lateLeases: number
}

function describe({ p99Ms, reads, writes, refused, lateLeases }: Seen): string {
  const rates = `${round(reads, 0)} reads/s, ${round(writes, 0)} writes/s`
  return `p99 ${round(p99Ms)} ms, ${rates}, ${refused} refused, ${lateLeases} late`
}

function figuresOf(name: string, quiet: Seen, seen: Seen): Figure[] {
  return [
    { name: `${name}: cached p99`, value: round(seen.p99Ms / quiet.p99Ms), unit: '×', atMost: 3 },
    { name: `${name}: uncached`, value: round(seen.reads / quiet.reads), unit: '×', atLeast: 0.5 },
    { name: `${name}: writes`, value: round(seen.writes / quiet.writes), unit: '×', atLeast: 0.5 },
    { name: `${name}: refused`, value: seen.refused, unit: '', atMost: 0 },
    { name: `${name}: lease late`, value: seen.lateLeases, unit: '', atMost: 0 },
  ]
}

type Sent = { readonly method?: string; readonly body?: object; readonly token?: string }

/** The other clients: cached reads at a steady pace, uncached reads and writes as they can. */
async function observe({ port, token, ids }: World, lengthS: number): Promise<Seen> {
  const agent = new Agent({ keepAlive: true, localAddress: client })
  const until = performance.now() + lengthS * 1_000
  const took: number[] = []
  const counts = { reads: 0, writes: 0, refused: 0, lateLeases: 0 }
  const send = async (path: string, sent: Sent = {}): Promise<string> => {
    const { status, text } = await exchange({ port, agent, path }, sent)
    if (status >= 400) counts.refused += 1
    return text
  }
  const loop = async (work: () => Promise<unknown>, pauseMs = 0): Promise<void> => {
    while (performance.now() < until) {
      await work()
      if (pauseMs > 0) await sleep(pauseMs)
    }
  }
  const pick = (): string => ids[Math.floor(Math.random() * ids.length)]!
  let counter = 0
  await Promise.all([
    ...Array.from({ length: cachedClients }, async () =>
      loop(async () => {
        const fromMs = performance.now()
        await send('/api/content/page?limit=5')
        took.push(performance.now() - fromMs)
      }, 5),
    ),
    ...Array.from({ length: otherClients }, async () =>
      loop(async () => {
        counter += 1
        await send(`/api/content/page?where[title][eq]=none${counter}-${Math.random()}`)
        counts.reads += 1
      }),
    ),
    ...Array.from({ length: otherClients }, async () =>
      loop(async () => {
        counter += 1
        const body = { fields: { title: `Title ${counter}` } }
        await send(`/api/content/page/${pick()}`, { method: 'PATCH', body, token })
        counts.writes += 1
      }),
    ),
    loop(async () => {
      if (/^stoa_lease_held 0$/m.test(await send('/metrics'))) counts.lateLeases += 1
    }, 250),
  ])
  agent.destroy()
  took.sort((a, b) => a - b)
  return {
    p99Ms: took[Math.floor(took.length * 0.99)] ?? Number.POSITIVE_INFINITY,
    reads: counts.reads / lengthS,
    writes: counts.writes / lengthS,
    refused: counts.refused,
    lateLeases: counts.lateLeases,
  }
}

type Target = { readonly port: number; readonly agent: Agent; readonly path: string }

function exchange(
  { port, agent, path }: Target,
  { method = 'GET', body, token }: Sent,
): Promise<{ readonly status: number; readonly text: string }> {
  const headers = {
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
  }
  return new Promise((resolve) => {
    const sent = httpRequest(
      { host: '127.0.0.1', port, path, method, agent, headers },
      (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => (text += chunk))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
        response.on('error', () => resolve({ status: 599, text: '' }))
      },
    )
    sent.on('error', () => resolve({ status: 599, text: '' }))
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

type Attack = (world: World, signal: AbortSignal) => Promise<void>

/** Connections that write a text again whenever they are cut, and read nothing. */
function holding(text: (world: World) => string, trickle?: string): Attack {
  return async (world, signal) => {
    const sockets = new Set<Socket>()
    const open = (): void => {
      const socket = connect({ host: '127.0.0.1', port: world.port, localAddress: attacker })
      sockets.add(socket)
      socket.pause()
      socket.on('error', () => undefined)
      socket.on('connect', () => socket.write(text(world)))
      socket.on('close', () => {
        sockets.delete(socket)
        if (!signal.aborted) setTimeout(open, 50)
      })
    }
    for (let count = 0; count < connections; count += 1) open()
    while (!signal.aborted) {
      await sleep(500)
      if (trickle !== undefined) for (const socket of sockets) socket.write(trickle)
    }
    for (const socket of sockets) socket.destroy()
  }
}

/** Loops that send a request, wait for the response and send the next. */
function asking(path: (world: World, counter: number) => string, sent: Sent = {}): Attack {
  return async (world, signal) => {
    const agent = new Agent({ keepAlive: true, localAddress: attacker })
    let counter = 0
    const loop = async (): Promise<void> => {
      while (!signal.aborted) {
        counter += 1
        await exchange({ port: world.port, agent, path: path(world, counter) }, sent)
      }
    }
    await Promise.all(Array.from({ length: connections }, loop))
    agent.destroy()
  }
}

const locales = 'GET /api/locales HTTP/1.1\r\nHost: x\r\n\r\n'
const postHead =
  'POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ' +
  '5000\r\n\r\n'
const contains = Array.from(
  { length: 30 },
  (_, at) => `where[or][${at}][title][contains]=x${at}`,
).join('&')

const attacks: Readonly<Record<string, Attack>> = {
  'pipelined, unread': holding(
    () => `GET /api/content/page?limit=200 HTTP/1.1\r\nHost: x\r\n\r\n${locales.repeat(1_100)}`,
  ),
  'heads without bodies': holding(() => postHead),
  'slow bodies': holding(() => postHead, 'x'),
  'pages of Markdown': asking(({ ids }, at) => `/read/page/${ids[at % ids.length]}`),
  'large lists': asking((_world, at) => `/api/content/page?limit=200&where[title][ne]=${at}`),
  'costly filters': asking(
    (_world, at) => `/api/content/page?${contains}&count=true&limit=${(at % 50) + 1}`,
  ),
  'many predicates': asking((_world, at) => `/api/content/page?where[title][contains]=${at}`),
  'failed sign-ins': asking(() => '/api/session', {
    method: 'POST',
    body: { email: 'ada@example.com', password: 'wrong' },
  }),
  'documents and metrics': asking(
    (_world, at) => ['/openapi.json', '/metrics', '/healthz/ready'][at % 3]!,
  ),
}
