import { Agent } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import sharp from 'sharp'
import { newId } from '#lib/id.ts'
import { createDatabase, sender, startArticleNode } from './support/articles.ts'
import type { ArticleNode } from './support/articles.ts'
import { round } from './support/benchmark.ts'
import type { Figure } from './support/benchmark.ts'
import { exchange } from './support/exchange.ts'
import type { Sent } from './support/exchange.ts'
import { loadBenchmark } from './support/load-benchmark.ts'
import { Child } from './support/processes.ts'
import { attacks } from './support/siege-attacker.ts'
import type { World } from './support/siege-attacker.ts'

const heapMb = 512
const entries = 400
/** STOA_BENCH_SECONDS: the length of each attack. */
const seconds = Number(process.env['STOA_BENCH_SECONDS'] ?? 10)
// The node would take it for one of its settings.
delete process.env['STOA_BENCH_SECONDS']
/** STOA_BENCH_ONLY: the attacks to try, separated by semicolons. */
const only = process.env['STOA_BENCH_ONLY']?.split(';') ?? Object.keys(attacks)
delete process.env['STOA_BENCH_ONLY']
for (const name of only)
  if (attacks[name] === undefined)
    throw new Error(`there is no attack "${name}"; there are: ${Object.keys(attacks).join('; ')}`)
/** Not the address of the attacker. */
const client = '127.0.0.3'
const cachedClients = 4
const otherClients = 4

export const benchmark = loadBenchmark(
  `A node with a heap of ${heapMb} MB, and an anonymous attacker with 100 ` +
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
    for (const name of only) {
      const seen = await observeUnder(name, world)
      say(`${name}: ${describe(seen)}`)
      figures.push(...figuresOf(name, quiet, seen))
      await sleep(1_000)
    }
    return { figures, notes: [`resident memory at the end: ${node.process.residentMb()} MB`] }
  },
)

async function observeUnder(attack: string, world: World): Promise<Seen> {
  const file = join(import.meta.dirname, 'support', 'siege-attacker.ts')
  await using attacker = new Child(process.execPath, [file, attack, JSON.stringify(world)], {})
  await attacker.printed(/ready/)
  await sleep(500)
  return observe(world, seconds)
}

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
  return {
    port: Number(new URL(origin).port),
    token,
    ids,
    asset: await uploadPicture(origin, token),
  }
}

async function uploadPicture(origin: string, token: string): Promise<string> {
  const create = { width: 2_000, height: 1_500, channels: 3 as const, background: '#48c' }
  const bytes = new Uint8Array(await sharp({ create }).png().toBuffer())
  const form = new FormData()
  form.append('file', new Blob([bytes], { type: 'image/png' }), 'picture.png')
  const response = await fetch(`${origin}/api/assets`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: form,
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`the upload failed: ${text}`)
  return (JSON.parse(text) as { readonly data: readonly { readonly id: string }[] }).data[0]!.id
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
