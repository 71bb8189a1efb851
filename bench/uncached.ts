import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import {
  article,
  createDatabase,
  fillBaseline,
  fillStoa,
  sender,
  startArticleNode,
} from './support/articles.ts'
import type { Article, ArticleNode } from './support/articles.ts'
import { newId } from '#lib/id.ts'
import { compare } from './support/benchmark.ts'
import type { Figure } from './support/benchmark.ts'
import { loadBenchmark } from './support/load-benchmark.ts'
import type { Measure } from './support/load-benchmark.ts'
import { Child } from './support/processes.ts'
import { requestsPerSecond } from './support/wrk.ts'
import type { Load } from './support/wrk.ts'

const articles = 20_000
/** Lists of 20 articles of each category: 20 MB in all, so that the least cache keeps none. */
const categories = 250
const connections = 16
const seconds = 4
const rounds = 5
/** A node always has a cache, of 1 MB here; this share of the reads at most may come out of it. */
const keptShareMax = 0.03

const measure: Measure = async (url, folder, say) => {
  const categoryIds = Array.from({ length: categories }, () => newId())
  const all = Array.from({ length: articles }, (_, index) => ({
    ...article(index),
    category: categoryIds[index % categories]!,
  }))
  const [baselineUrl, stoaUrl] = [
    await createDatabase(url, 'baseline'),
    await createDatabase(url, 'stoa'),
  ]
  await using node = await startArticleNode({
    databaseUrl: stoaUrl,
    folder,
    environment: { STOA_CACHE_BYTES: '1048576' },
  })
  const { origin, token } = node
  const idleMb = node.process.residentMb()
  say('filling both databases …')
  await fillBaseline(baselineUrl, all)
  await fillStoa(sender(origin, token), all, categoryIds)
  const maintenance = new pg.Client({ connectionString: stoaUrl })
  await maintenance.connect()
  await maintenance.query('vacuum analyze stoa.version')
  await maintenance.end()
  await using server = new Child(
    process.execPath,
    [join(import.meta.dirname, 'support', 'baseline-server.ts'), baselineUrl],
    {},
  )
  const bare = `http://127.0.0.1:${(await server.printed(/^(\d+)\n/))[1]!}`
  return {
    figures: [
      ...(await compareAll(measurementsOf(bare, node, all), { origin, folder, say })),
      { name: 'resident memory of the idle node', value: idleMb, unit: 'MB', atMost: 200 },
    ],
    notes: [],
  }
}

export const benchmark = loadBenchmark(
  `Without any cache, Stoa against a hand-written Fastify + pg server on the same PostgreSQL: ` +
    `${articles} articles of 4 KB in ${categories} categories, ${connections} ` +
    `connections.`,
  measure,
)

type Measurement = {
  readonly name: string
  readonly atLeast: number
  readonly baseline: Omit<Load, 'connections' | 'seconds'>
  readonly subject: Omit<Load, 'connections' | 'seconds'>
}

function measurementsOf(
  bare: string,
  { origin, token }: ArticleNode,
  all: readonly Article[],
): Measurement[] {
  const ids = all.filter((_, index) => index % 20 === 0).map((each) => each.id)
  const categoryIds = [...new Set(all.map((each) => each.category))]
  const json = { 'Content-Type': 'application/json' }
  return [
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
      subject: {
        origin,
        paths: categoryIds.map(
          (id) => `/api/content/article?where[category][eq]=${id}&sort=-publishedAt&limit=20`,
        ),
      },
    },
    {
      name: 'update of a title',
      atLeast: 0.4,
      baseline: {
        origin: bare,
        method: 'PATCH',
        headers: json,
        paths: ids.map((id) => `/articles/${id}`),
        bodyLua: `'{"title":"Title ' .. counter .. '"}'`,
      },
      subject: {
        origin,
        method: 'PATCH',
        headers: { ...json, Authorization: `Bearer ${token}` },
        paths: ids.map((id) => `/api/content/article/${id}`),
        bodyLua: `'{"fields":{"title":"Title ' .. counter .. '"}}'`,
      },
    },
  ]
}

/** Reads and rows of lists that the node has served out of its memory since it started. */
async function keptReads(origin: string): Promise<number> {
  // The node makes the text of its metrics at most ten times a second.
  await sleep(200)
  const text = await (await fetch(`${origin}/metrics`)).text()
  const value = (pattern: RegExp): number => {
    const found = pattern.exec(text)?.[1]
    if (found === undefined) throw new Error(`/metrics does not have ${pattern.source}`)
    return Number(found)
  }
  return (
    value(/^stoa_http_fast_responses_total (\d+)/m) +
    value(/^stoa_list_rows_total\{text="reused"\} (\d+)/m) / 20
  )
}

type Run = {
  readonly origin: string
  readonly folder: string
  readonly say: (line: string) => void
}

async function compareAll(
  measurements: readonly Measurement[],
  { origin, folder, say }: Run,
): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const { name, atLeast, baseline, subject } of measurements) {
    const rates = { baseline: [] as number[], subject: [] as number[] }
    let [kept, reads] = [0, 0]
    for (let round = -1; round < rounds; round++) {
      const first = await requestsPerSecond(
        { ...baseline, connections, seconds: round < 0 ? 2 : seconds },
        folder,
      )
      const before = await keptReads(origin)
      const second = await requestsPerSecond(
        { ...subject, connections, seconds: round < 0 ? 2 : seconds },
        folder,
      )
      // The first round only warms up: plans, pools, compiled code.
      if (round < 0) continue
      kept += (await keptReads(origin)) - before
      reads += second * seconds
      rates.baseline.push(first)
      rates.subject.push(second)
      say(`${name}: ${Math.round(first)} and ${Math.round(second)} requests/s`)
    }
    const result = compare(rates.baseline, rates.subject)
    figures.push(
      { name: `${name}, bare server`, value: result.baseline, unit: 'req/s' },
      { name: `${name}, Stoa`, value: result.subject, unit: 'req/s' },
      { name: `${name}, ratio`, value: result.ratio, unit: '', atLeast },
      { name: `${name}, out of memory`, value: kept / reads, unit: '', atMost: keptShareMax },
    )
  }
  return figures
}
