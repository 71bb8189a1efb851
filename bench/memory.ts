import {
  article,
  categoryIds,
  createDatabase,
  fillStoa,
  sender,
  startArticleNode,
} from './support/articles.ts'
import { round } from './support/benchmark.ts'
import { loadBenchmark } from './support/load-benchmark.ts'
import type { Measure } from './support/load-benchmark.ts'
import { requestsPerSecond } from './support/wrk.ts'

const articles = 1_000
const minutes = Number(process.env['BENCH_MINUTES'] ?? 10)
const cacheMb = 64
const connections = 16
const sliceSeconds = 30
/**
 * Of the process beyond the idle one, for each byte that the cache may hold: what JavaScript's
 * objects take around the bytes, and garbage on its way out.
 */
const overheadMax = 5

const measure: Measure = async (url, folder, say) => {
  const all = Array.from({ length: articles }, (_, index) => article(index))
  await using node = await startArticleNode({
    databaseUrl: await createDatabase(url, 'stoa'),
    folder,
    environment: { STOA_CACHE_BYTES: String(cacheMb * 1024 ** 2) },
  })
  const { origin, token } = node
  await fillStoa(sender(origin, token), all)
  const idleMb = node.process.residentMb()
  // The bounds are future times, hardly ever the same twice: results repeat, queries do not.
  const lists = categoryIds.map(
    (id) => `/api/content/article?where[category][eq]=${id}&limit=5&where[createdAt][lt]=`,
  )
  const createdLua =
    "string.format('2099-01-01T00:00:%02d.%03dZ', math.random(0, 59), math.random(0, 999))"
  const updatedLua =
    "string.format('2098-01-%02dT%02d:%02d:00.000Z', " +
    'math.random(1, 28), math.random(0, 23), math.random(0, 59))'
  const queryLua = `${createdLua} .. '&where[updatedAt][lt]=' .. ${updatedLua}`
  const load = { origin, paths: lists, queryLua, connections, seconds: sliceSeconds }
  let [bytesMb, residentMb, requests] = [0, 0, 0]
  for (let slice = 0; slice < (minutes * 60) / sliceSeconds; slice += 1) {
    requests += (await requestsPerSecond(load, folder)) * sliceSeconds
    const metrics = await (await fetch(`${origin}/metrics`)).text()
    bytesMb = Math.max(bytesMb, Number(/^stoa_cache_bytes (\S+)/m.exec(metrics)?.[1]) / 1024 ** 2)
    residentMb = Math.max(residentMb, node.process.residentMb())
    say(
      `${Math.round(requests)} queries: ${Math.round(bytesMb)} MB in the cache, ` +
        `the process has ${node.process.residentMb()} MB`,
    )
  }
  return {
    figures: [
      { name: 'questions', value: round(requests, 0), unit: '' },
      { name: 'most in the cache', value: round(bytesMb), unit: 'MB', atMost: cacheMb },
      { name: 'resident memory before', value: idleMb, unit: 'MB' },
      {
        name: 'most resident memory',
        value: residentMb,
        unit: 'MB',
        atMost: idleMb + cacheMb * overheadMax,
      },
    ],
    notes: [],
  }
}

export const benchmark = loadBenchmark(
  `A cache of ${cacheMb} MB stays within its bound for ${minutes} minutes in which every ` +
    `query is a new one.`,
  measure,
)
