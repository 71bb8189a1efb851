import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { newId } from '#lib/id.ts'
import { freePort, startTestPostgres } from '#test/support/database.ts'
import { compare } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'
import { Child } from './support/processes.ts'
import { requestsPerSecond, wrkMissing } from './support/wrk.ts'
import type { Load } from './support/wrk.ts'

const articles = 20_000
const categories = 20
const connections = 16
const seconds = 4
const rounds = 5
const inFlightMax = 24

type Article = { readonly id: string; readonly title: string; readonly slug: string; readonly summary: string; readonly body: string; readonly category: string; readonly publishedAt: string }

const stoa = join(import.meta.dirname, '..', 'bin', 'stoa.js')
const words = 'roof column stone light market citizen talk shade morning harbour wind paint story rule choice measure'.split(' ')

function paragraph(seed: number, characters: number): string {
  let text = ''
  for (let at = seed; text.length < characters; at = (at * 1_103_515_245 + 12_345) % 2_147_483_648) text += `${words[at % words.length]!} `
  return text.slice(0, characters).trim()
}

const categoryIds = Array.from({ length: categories }, () => newId())

function article(index: number): Article {
  const publishedAt = new Date(Date.UTC(2026, 0, 1) + index * 60_000).toISOString()
  const id = newId(Date.UTC(2026, 0, 1) + index)
  return { id, title: `Article ${index}`, slug: `article-${index}`, summary: paragraph(index + 1, 200), body: paragraph(index * 7 + 1, 3_700), category: categoryIds[index % categories]!, publishedAt }
}

async function fillBaseline(url: string, all: readonly Article[]): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`create table article (id uuid primary key, title text not null, slug text not null unique, summary text not null,
    body text not null, category_id uuid not null, published_at timestamptz not null, updated_at timestamptz not null default now())`)
  for (let at = 0; at < all.length; at += 500) {
    const rows = all.slice(at, at + 500).map((each) => ({ ...each, category_id: each.category, published_at: each.publishedAt }))
    await client.query(
      `insert into article (id, title, slug, summary, body, category_id, published_at)
       select id, title, slug, summary, body, category_id, published_at from json_populate_recordset(null::article, $1)`,
      [JSON.stringify(rows)],
    )
  }
  await client.query(`create index on article (category_id, published_at desc, id desc)`)
  await client.query(`vacuum analyze article`)
  await client.end()
}

type Send = (method: string, path: string, body?: object) => Promise<void>

function sender(origin: string, token: string): Send {
  return async (method, path, body) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const answer = await fetch(`${origin}${path}`, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    await answer.arrayBuffer()
  }
}

async function fillStoa(send: Send, all: readonly Article[]): Promise<void> {
  await send('PUT', '/api/types/category', { name: 'category', label: 'Category', fields: [{ name: 'name', kind: 'text', required: true }] })
  await send('PUT', '/api/types/article', {
    name: 'article',
    label: 'Article',
    fields: [
      { name: 'title', kind: 'text', required: true },
      { name: 'slug', kind: 'slug', from: 'title' },
      { name: 'summary', kind: 'text' },
      { name: 'body', kind: 'markdown' },
      { name: 'category', kind: 'reference', types: ['category'], filterable: true },
    ],
    indexes: [['category', '-publishedAt']],
  })
  for (const id of categoryIds) await send('POST', '/api/content/category', { id, fields: { name: id }, publish: true })
  const queue = [...all]
  const worker = async (): Promise<void> => {
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      const { id, publishedAt: _, ...fields } = next
      await send('POST', '/api/content/article', { id, fields, publish: true })
    }
  }
  await Promise.all(Array.from({ length: inFlightMax }, worker))
}

export const benchmark: Benchmark = {
  claim: `Without any cache, Stoa against a hand-written Fastify + pg server on the same PostgreSQL: ${articles} articles of 4 KB in ${categories} categories, ${connections} connections.`,
  async run(say) {
    const missing = wrkMissing()
    if (missing !== null) throw new Error(missing)
    const folder = await mkdtemp(join(tmpdir(), 'stoa-bench-'))
    const postgres = await startTestPostgres({ durable: true })
    try {
      return await measure(postgres.url, folder, say)
    } finally {
      await postgres.stop()
      await rm(folder, { recursive: true, force: true })
    }
  },
}

async function createDatabase(url: string, name: string): Promise<string> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`create database ${name}`)
  await client.end()
  return url.replace(/\/postgres$/, `/${name}`)
}

async function measure(url: string, folder: string, say: (line: string) => void): Promise<{ figures: Figure[]; notes: string[] }> {
  const all = Array.from({ length: articles }, (_, index) => article(index))
  const [baselineUrl, stoaUrl] = [await createDatabase(url, 'baseline'), await createDatabase(url, 'stoa')]
  const port = await freePort()
  const environment = { STOA_DATABASE_URL: stoaUrl, STOA_PORT: String(port), STOA_DATA: join(folder, 'data'), STOA_STARTER: 'false', STOA_LOG_LEVEL: 'warn' }
  await using node = new Child(process.execPath, [stoa, 'start'], environment)
  const origin = `http://127.0.0.1:${port}`
  await ready(origin, node)
  const idleMb = node.residentMb()
  const { token } = JSON.parse(
    execFileSync(process.execPath, [stoa, '--json', 'token', 'create', 'bench', '--role', 'administrator'], { env: { ...process.env, ...environment }, encoding: 'utf8' }),
  ) as { token: string }
  say('filling both databases …')
  await fillBaseline(baselineUrl, all)
  await fillStoa(sender(origin, token), all)
  const maintenance = new pg.Client({ connectionString: stoaUrl })
  await maintenance.connect()
  await maintenance.query('vacuum analyze stoa.version')
  await maintenance.end()
  await using server = new Child(process.execPath, [join(import.meta.dirname, 'support', 'baseline-server.ts'), baselineUrl], {})
  const bare = `http://127.0.0.1:${(await server.printed(/^(\d+)\n/))[1]!}`
  return { figures: [...(await compareAll(bare, origin, token, all, folder, say)), { name: 'resident memory of the idle node', value: idleMb, unit: 'MB', atMost: 200 }], notes: [] }
}

async function ready(origin: string, node: Child): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const answer = await fetch(`${origin}/healthz/ready`).catch(() => null)
    if (answer?.status === 200) return
    if (node.process.exitCode !== null) break
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`the node did not become ready:\n${node.output}`)
}

async function compareAll(bare: string, origin: string, token: string, all: readonly Article[], folder: string, say: (line: string) => void): Promise<Figure[]> {
  const ids = all.filter((_, index) => index % 20 === 0).map((each) => each.id)
  const json = { 'Content-Type': 'application/json' }
  const measurements: readonly { readonly name: string; readonly atLeast: number; readonly baseline: Omit<Load, 'connections' | 'seconds'>; readonly subject: Omit<Load, 'connections' | 'seconds'> }[] = [
    {
      name: 'get by id',
      atLeast: 0.7,
      baseline: { origin: bare, paths: ids.map((id) => `/articles/${id}`) },
      subject: { origin, paths: ids.map((id) => `/api/content/article/${id}`) },
    },
    {
      name: 'list of 20 in a category',
      atLeast: 0.7,
      baseline: { origin: bare, paths: categoryIds.map((id) => `/articles?category=${id}`) },
      subject: { origin, paths: categoryIds.map((id) => `/api/content/article?where[category][eq]=${id}&sort=-publishedAt&limit=20`) },
    },
    {
      name: 'update of a title',
      atLeast: 0.4,
      baseline: { origin: bare, method: 'PATCH', headers: json, paths: ids.map((id) => `/articles/${id}`), bodyLua: `'{"title":"Title ' .. counter .. '"}'` },
      subject: {
        origin,
        method: 'PATCH',
        headers: { ...json, Authorization: `Bearer ${token}` },
        paths: ids.map((id) => `/api/content/article/${id}`),
        bodyLua: `'{"fields":{"title":"Title ' .. counter .. '"}}'`,
      },
    },
  ]
  const figures: Figure[] = []
  for (const { name, atLeast, baseline, subject } of measurements) {
    const rates = { baseline: [] as number[], subject: [] as number[] }
    for (let round = -1; round < rounds; round++) {
      const first = await requestsPerSecond({ ...baseline, connections, seconds: round < 0 ? 2 : seconds }, folder)
      const second = await requestsPerSecond({ ...subject, connections, seconds: round < 0 ? 2 : seconds }, folder)
      // The first round only warms up: plans, pools, compiled code.
      if (round < 0) continue
      rates.baseline.push(first)
      rates.subject.push(second)
      say(`${name}: ${Math.round(first)} and ${Math.round(second)} requests/s`)
    }
    const result = compare(rates.baseline, rates.subject)
    figures.push({ name: `${name}, bare server`, value: result.baseline, unit: 'req/s' }, { name: `${name}, Stoa`, value: result.subject, unit: 'req/s' }, { name: `${name}, ratio`, value: result.ratio, unit: '', atLeast })
  }
  return figures
}
