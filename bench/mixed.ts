import { Agent, request } from 'node:http'
import { Random } from '../sim/random.ts'
import {
  article,
  categoryIds,
  createDatabase,
  fillBaseline,
  fillHandmade,
  fillStoa,
  handmadeServer,
  plainServer,
  sender,
  startArticleNode,
} from './support/articles.ts'
import type { Article, ArticleNode } from './support/articles.ts'
import { compare, round } from './support/benchmark.ts'
import { loadBenchmark } from './support/load-benchmark.ts'
import type { Measure } from './support/load-benchmark.ts'
import { requestsPerSecond } from './support/wrk.ts'

const articles = 1_000
const connections = 32
const seconds = 4
const rounds = 5
const writeShare = 0.05
/** Reads of entries and of lists come in this proportion. */
const entriesPerList = 4
const hitRateRequests = 30_000
const handmadeRatioMin = 0.7

const measure: Measure = async (url, folder, say) => {
  const all = Array.from({ length: articles }, (_, index) => article(index))
  const bareUrl = await createDatabase(url, 'bare')
  const handmadeUrl = await createDatabase(url, 'handmade')
  const stoaUrl = await createDatabase(url, 'stoa')
  await using node = await startArticleNode({ databaseUrl: stoaUrl, folder })
  const { origin, token } = node
  await fillBaseline(bareUrl, all)
  await fillHandmade(handmadeUrl, all)
  await fillStoa(sender(origin, token), all)
  const entries = all.map(({ id }) => `/api/content/article/${id}`)
  const lists = categoryIds.map(
    (id) => `/api/content/article?where[category][eq]=${id}&sort=-publishedAt&limit=20`,
  )
  await using plain = await plainServer({
    origin,
    paths: [...entries, ...lists],
    folder,
    databaseUrl: bareUrl,
  })
  await using handmade = await handmadeServer(handmadeUrl, token)
  const paths = shuffled([
    ...entries,
    ...Array.from(
      { length: Math.floor(articles / entriesPerList) },
      (_, at) => lists[at % lists.length]!,
    ),
  ])
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` }
  const writes = {
    share: writeShare,
    paths: entries,
    headers,
    bodyLua: `'{"fields":{"title":"Title ' .. counter .. '"},"publish":true}'`,
  }
  const origins = { bare: plain.origin, handmade: handmade.origin, stoa: origin }
  const rates = { bare: [] as number[], handmade: [] as number[], stoa: [] as number[] }
  for (let at = -1; at < rounds; at += 1) {
    const load = { paths, writes, connections, seconds: at < 0 ? 2 : seconds }
    for (const name of ['bare', 'handmade', 'stoa'] as const) {
      const rate = await requestsPerSecond({ ...load, origin: origins[name] }, folder)
      // The first round only warms up.
      if (at >= 0) rates[name].push(rate)
    }
    const last = Object.entries(rates).map(
      ([name, all]) => `${name} ${Math.round(all.at(-1) ?? 0)}`,
    )
    if (at >= 0) say(`${last.join(', ')} requests/s`)
  }
  say('counting hits …')
  const { hits, possible } = await hitRate(node, all, [entries, lists])
  const rows = await listRows(node)
  const toBare = compare(rates.bare, rates.stoa)
  const toHandmade = compare(rates.handmade, rates.stoa)
  return {
    figures: [
      { name: 'node:http with bare updates', value: toBare.baseline, unit: 'req/s' },
      {
        name: 'a server made by hand that keeps as much of a write',
        value: toHandmade.baseline,
        unit: 'req/s',
      },
      { name: 'Stoa', value: toBare.subject, unit: 'req/s' },
      { name: 'ratio to bare updates', value: toBare.ratio, unit: '' },
      {
        name: 'ratio to the server made by hand',
        value: toHandmade.ratio,
        unit: '',
        atLeast: handmadeRatioMin,
      },
      { name: 'hit rate', value: round(hits / hitRateRequests, 3), unit: '' },
      {
        name: 'hits, of those that were possible',
        value: round(hits / possible, 3),
        unit: '',
        atLeast: 0.95,
      },
      {
        name: 'rows of lists made anew whose text was not sent again',
        value: round(rows.reused / (rows.reused + rows.sent)),
        unit: '',
      },
      { name: 'resident memory of the node', value: node.process.residentMb(), unit: 'MB' },
    ],
    notes: [
      'A hit was possible where the response is the same as the last one to the same request.',
    ],
  }
}

export const benchmark = loadBenchmark(
  `${100 - writeShare * 100} % reads from memory and ${writeShare * 100} % writes that ` +
    `publish, over ${articles} entries and ${categoryIds.length} lists, with ${connections} ` +
    `connections: against plain node:http that sends the same bytes and does one bare UPDATE ` +
    `per write, and against a server made by hand that keeps as much of a write as Stoa and has ` +
    `a perfect cache.`,
  measure,
)

async function listRows({ origin }: ArticleNode): Promise<{ reused: number; sent: number }> {
  const metrics = await (await fetch(`${origin}/metrics`)).text()
  const count = (text: string): number =>
    Number(new RegExp(`^stoa_list_rows_total\\{text="${text}"\\} (\\d+)`, 'm').exec(metrics)?.[1])
  return { reused: count('reused'), sent: count('sent') }
}

function shuffled(paths: string[]): string[] {
  const random = new Random(1)
  for (let at = paths.length - 1; at > 0; at -= 1) {
    const other = random.below(at + 1)
    const [one, two] = [paths[at]!, paths[other]!]
    paths[at] = two
    paths[other] = one
  }
  return paths
}

/**
 * Requests go out one after another, so that each could have been a hit or not for certain: the
 * entity tag says whether the response is still the same.
 */
async function hitRate(
  { origin, token }: ArticleNode,
  all: readonly Article[],
  [entries, lists]: readonly [readonly string[], readonly string[]],
): Promise<{ hits: number; possible: number }> {
  const random = new Random(2)
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const tags = new Map<string, string>()
  const ask = async (
    method: string,
    path: string,
    body?: string,
  ): Promise<{ tag: string; hit: boolean }> =>
    new Promise((resolve, reject) => {
      const headers =
        body === undefined
          ? {}
          : { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
      const sent = request(`${origin}${path}`, { method, agent, headers }, (response) => {
        response.resume().once('end', () =>
          resolve({
            tag: String(response.headers.etag),
            hit: response.headers['cache-status'] === 'stoa; hit',
          }),
        )
      })
      sent.once('error', reject)
      sent.end(body)
    })
  const read = async (): Promise<{ hit: boolean; possible: boolean }> => {
    const path = random.chance(1 / (entriesPerList + 1)) ? random.pick(lists) : random.pick(entries)
    const { tag, hit } = await ask('GET', path)
    const possible = tags.get(path) === tag
    tags.set(path, tag)
    return { hit, possible }
  }
  // Most paths are requested once before the count begins: the first request cannot be a hit.
  for (let count = 0; count < articles * 5; count += 1) await read()
  let [hits, possible] = [0, 0]
  for (let count = 0; count < hitRateRequests; count += 1) {
    if (random.chance(writeShare / (1 - writeShare)))
      await ask(
        'PATCH',
        `/api/content/article/${random.pick(all).id}`,
        JSON.stringify({ fields: { title: `Title ${count}` }, publish: true }),
      )
    const found = await read()
    if (found.hit) hits += 1
    if (found.possible) possible += 1
  }
  agent.destroy()
  return { hits, possible }
}
