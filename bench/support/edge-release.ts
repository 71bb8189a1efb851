import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startTestPostgres } from '#test/support/database.ts'
import { FakeCdn } from '#test/support/fake-cdn.ts'
import { createDatabase, startArticleNode } from './articles.ts'
import type { ArticleNode } from './articles.ts'
import { round } from './benchmark.ts'
import type { Figure } from './benchmark.ts'

/** Entries of the release; the published figure is for 10,000. */
const entries = Number(process.env['STOA_TEST_EDGE_ENTRIES'] ?? 1_000)
const itemsPerRequest = 100
const inFlight = 16
const deadlineMs = 120_000
const budgets = {
  free: { callsPerS: 5 / 60, burst: 25 },
  enterprise: { callsPerS: 50, burst: 500 },
} as const

/** A release of many entries at the limits of a plan of Cloudflare's. */
export async function releaseAtCloudflare(
  plan: keyof typeof budgets,
  say: (line: string) => void,
): Promise<Figure[]> {
  say(`a release of ${entries} entries at Cloudflare ${plan}`)
  const folder = await mkdtemp(join(tmpdir(), 'stoa-release-'))
  const server = await startTestPostgres({ durable: true })
  const databaseUrl = await createDatabase(server.url, 'release')
  await using cdn = await FakeCdn.start({
    vendor: 'cloudflare',
    origin: 'http://127.0.0.1:1',
    ...budgets[plan],
  })
  try {
    const api = encodeURIComponent(cdn.api)
    const url = `cloudflare://:token@zone?plan=${plan}&api=${api}`
    const environment = { STOA_HTTP_CACHE_URL: url }
    await using node = await startArticleNode({ databaseUrl, folder, environment })
    const release = await prepare(node)
    await sleep(1_000)
    const calls = cdn.calls.length
    const done = await ask(node, 'POST', `/api/releases/${release}/publish`, {})
    const publishedMs = Date.now()
    const token = done.headers.get('stoa-token') ?? ''
    const { lateMs, promisedMs } = await followReceipt(node, token, publishedMs)
    return [
      { name: `${plan}: calls refused (429)`, value: cdn.tooMany, unit: '', atMost: 0 },
      { name: `${plan}: calls`, value: cdn.calls.length - calls, unit: '' },
      { name: `${plan}: purged after`, value: round(lateMs, 0), unit: 'ms' },
      {
        name: `${plan}: of the time that the receipt gave`,
        value: promisedMs === null ? 1 : round(lateMs / promisedMs),
        unit: '×',
        atMost: 1.2,
      },
    ]
  } finally {
    await server.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

async function prepare(node: ArticleNode): Promise<string> {
  await ask(node, 'PUT', '/api/types/note', {
    name: 'note',
    label: 'Note',
    fields: [{ name: 'title', kind: 'text' }],
  })
  const ids: string[] = []
  const worker = async (): Promise<void> => {
    while (ids.length < entries) {
      const place = ids.push('') - 1
      const body = { fields: { title: `T${place}` } }
      const made = await ask(node, 'POST', '/api/content/note', body)
      ids[place] = ((await made.json()) as { data: { id: string } }).data.id
    }
  }
  await Promise.all(Array.from({ length: inFlight }, worker))
  const made = await ask(node, 'POST', '/api/releases', { name: 'All' })
  const { id } = ((await made.json()) as { data: { id: string } }).data
  for (let at = 0; at < ids.length; at += itemsPerRequest) {
    const some = ids.slice(at, at + itemsPerRequest)
    const items = some.map((entryId) => ({ entryId, locale: 'en', action: 'publish' }))
    await ask(node, 'POST', `/api/releases/${id}/items`, { items })
  }
  return id
}

type EdgeLine = { readonly state: string; readonly doneBy: string | null }

/** The time that the purge took, and the first that the receipt gave; null: it was purged then. */
async function followReceipt(
  node: ArticleNode,
  token: string,
  publishedMs: number,
): Promise<{ readonly lateMs: number; readonly promisedMs: number | null }> {
  let promisedMs: number | null = null
  for (;;) {
    const response = await ask(node, 'GET', `/api/receipts/${token}`)
    const { data } = (await response.json()) as { data: { httpCache: readonly EdgeLine[] } }
    const edge = data.httpCache[0]!
    const lateMs = Date.now() - publishedMs
    if (edge.state === 'purged') return { lateMs, promisedMs }
    if (lateMs > deadlineMs) throw new Error('the release was not purged')
    if (edge.doneBy !== null) promisedMs ??= Date.parse(edge.doneBy) - publishedMs
    await sleep(20)
  }
}

async function ask(
  node: ArticleNode,
  method: string,
  path: string,
  body?: object,
): Promise<Response> {
  const response = await fetch(`${node.origin}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${node.token}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  if (!response.ok)
    throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
  return response
}
