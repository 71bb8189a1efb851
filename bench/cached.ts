import {
  article,
  createDatabase,
  fillStoa,
  plainServer,
  sender,
  startArticleNode,
} from './support/articles.ts'
import { compare } from './support/benchmark.ts'
import type { Figure } from './support/benchmark.ts'
import { loadBenchmark } from './support/load-benchmark.ts'
import type { Measure } from './support/load-benchmark.ts'
import { requestsPerSecond } from './support/wrk.ts'

const articles = 100
const connections = 32
const seconds = 3
const rounds = 7

const measure: Measure = async (url, folder, say) => {
  const all = Array.from({ length: articles }, (_, index) => article(index))
  await using node = await startArticleNode({
    databaseUrl: await createDatabase(url, 'stoa'),
    folder,
  })
  const { origin, token } = node
  await fillStoa(sender(origin, token), all)
  const paths = all.map(({ id }) => `/api/content/article/${id}`)
  const written = await fetch(`${origin}${paths[0]!}`, {
    method: 'PATCH',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: '{"fields":{"title":"Once more"}}',
  })
  const changeToken = written.headers.get('stoa-token') ?? ''
  await using plain = await plainServer({ origin, paths, folder })
  const subjects = [
    { name: 'anonymous', atLeast: 0.9, headers: {} },
    { name: 'anonymous with Stoa-Token', atLeast: 0.9, headers: { 'Stoa-Token': changeToken } },
    { name: 'API token', headers: { Authorization: `Bearer ${token}` } },
  ]
  const rates = new Map<string, { baseline: number[]; subject: number[] }>(
    subjects.map(({ name }) => [name, { baseline: [], subject: [] }]),
  )
  for (let round = -1; round < rounds; round += 1) {
    for (const { name, headers } of subjects) {
      const load = { paths, headers, connections, seconds }
      const baseline = await requestsPerSecond({ ...load, origin: plain.origin }, folder)
      const subject = await requestsPerSecond({ ...load, origin }, folder)
      // The first round only warms up.
      if (round < 0) continue
      rates.get(name)!.baseline.push(baseline)
      rates.get(name)!.subject.push(subject)
      say(`${name}: ${Math.round(baseline)} and ${Math.round(subject)} requests/s`)
    }
  }
  const figures = subjects.flatMap(({ name, atLeast }): Figure[] => {
    const { baseline, subject, ratio } = compare(
      rates.get(name)!.baseline,
      rates.get(name)!.subject,
    )
    return [
      { name: `${name}, node:http`, value: baseline, unit: 'req/s' },
      { name: `${name}, Stoa`, value: subject, unit: 'req/s' },
      {
        name: `${name}, ratio`,
        value: ratio,
        unit: '',
        ...(atLeast === undefined ? {} : { atLeast }),
      },
    ]
  })
  return {
    figures: [
      ...figures,
      { name: 'resident memory of the node', value: node.process.residentMb(), unit: 'MB' },
    ],
    notes: [],
  }
}

export const benchmark = loadBenchmark(
  `Delivery of an entry of about 5 KB from memory, with permissions, ETag and token handling ` +
    `in place, against plain node:http sending the same bytes: ${connections} connections.`,
  measure,
)
