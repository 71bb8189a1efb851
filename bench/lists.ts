import type { Change } from '#change-feed/change.ts'
import { PredicateIndex } from '#cache/predicate-index.ts'
import { matches, touches } from '#cache/predicate.ts'
import type { PageBound, Predicate } from '#cache/predicate.ts'
import { Random } from '../sim/random.ts'
import { median, round } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

const rowsCount = 5_000
const categories = 200
const authors = 500
const limit = 20
const oracleQueries = 1_000
const oracleChanges = 2_000
const roundMs = 700
const rounds = 5

type Article = {
  readonly id: number
  readonly version: number
  readonly category: number
  readonly author: number
  readonly publishedAt: number
  readonly rating: number
}
type Query = { readonly predicate: Predicate; readonly page: number }

const sort = [
  { field: 'publishedAt', descending: true },
  { field: 'id', descending: true },
] as const

function article(random: Random, id: number, version: number): Article {
  return {
    id,
    version,
    category: random.below(categories),
    author: random.below(authors),
    publishedAt: random.below(1_000_000),
    rating: random.below(100),
  }
}

/**
 * What sites ask for: the newest of a category, of an author, of both, of a rating or a time;
 * mostly the first page.
 */
function query(random: Random): Query {
  const predicate = random.pick<() => Predicate>([
    () => [{ field: 'category', is: 'eq', value: random.below(categories) }],
    () => [{ field: 'author', is: 'eq', value: random.below(authors) }],
    () => [
      { field: 'category', is: 'in', values: [random.below(categories), random.below(categories)] },
      { field: 'rating', is: 'range', min: { value: random.below(100), inclusive: true } },
    ],
    () => [
      { field: 'category', is: 'eq', value: random.below(categories) },
      { field: 'author', is: 'eq', value: random.below(authors) },
    ],
    () => {
      const from = random.below(1_000_000)
      return [
        {
          field: 'publishedAt',
          is: 'range',
          min: { value: from, inclusive: true },
          max: { value: from + 2_000, inclusive: false },
        },
      ]
    },
  ])()
  return { predicate, page: random.chance(0.8) ? 0 : 1 }
}

function order(one: Article, other: Article): number {
  return other.publishedAt - one.publishedAt || other.id - one.id
}

function page(
  table: Iterable<Article>,
  { predicate, page: number }: Query,
): { readonly shown: string; readonly bound: PageBound } {
  const sorted = [...table].filter((row) => matches(predicate, row)).sort(order)
  const shown = sorted.slice(number * limit, number * limit + limit)
  const edge = number === 0 ? undefined : sorted[number * limit - 1]
  const last = shown.length < limit ? undefined : shown.at(-1)
  return {
    shown: shown.map((row) => `${row.id}.${row.version}`).join(),
    bound: {
      sort,
      after: edge === undefined ? null : [edge.publishedAt, edge.id],
      upTo: last === undefined ? null : [last.publishedAt, last.id],
    },
  }
}

/** The page behind the same cursor, run again. */
function again(
  table: Iterable<Article>,
  { predicate }: Query,
  after: PageBound['after'],
): { readonly shown: string; readonly bound: PageBound } {
  const behind = [...table]
    .filter(
      (row) =>
        matches(predicate, row) &&
        (after === null ||
          row.publishedAt < Number(after[0]) ||
          (row.publishedAt === after[0] && row.id < Number(after[1]))),
    )
    .sort(order)
  const shown = behind.slice(0, limit)
  const last = shown.length < limit ? undefined : shown.at(-1)
  return {
    shown: shown.map((row) => `${row.id}.${row.version}`).join(),
    bound: { sort, after, upTo: last === undefined ? null : [last.publishedAt, last.id] },
  }
}

function operationOf(before: Article | null, after: Article | null): Change['operation'] {
  if (after === null) return 'delete'
  return before === null ? 'insert' : 'update'
}

function change(random: Random, table: Map<number, Article>, version: number): Change {
  const id = random.below(rowsCount)
  const before = table.get(id) ?? null
  const kind = random.next()
  const changed = (): Article => {
    if (before === null || kind < 0.3) return article(random, id, version)
    return { ...before, version, ...(kind < 0.6 ? { rating: random.below(100) } : {}) }
  }
  const after = kind < 0.1 && before !== null ? null : changed()
  if (after === null) table.delete(id)
  else table.set(id, after)
  return {
    xid: version,
    collection: 'article',
    key: String(id),
    operation: operationOf(before, after),
    before,
    after,
  }
}

function exactness(random: Random): {
  readonly missed: number
  readonly ratio: number
  readonly perChange: number
} {
  const table = new Map(Array.from({ length: rowsCount }, (_, id) => [id, article(random, id, 0)]))
  const index = new PredicateIndex<number>()
  const live = Array.from({ length: oracleQueries }, (_, id) => {
    const asked = query(random)
    const first = page(table.values(), asked)
    index.add(id, asked.predicate, first.bound)
    return { asked, ...first }
  })
  let [missed, needed, dropped] = [0, 0, 0]
  for (let version = 1; version <= oracleChanges; version += 1) {
    const one = change(random, table, version)
    const found = index.touched(one)
    dropped += found.size
    // Only a list that the changed row satisfies, before or after, can look different: the others
    // need not be run again.
    for (const [id, list] of live.entries()) {
      if (!touches(one, list.asked.predicate, null)) continue
      const now = again(table.values(), list.asked, list.bound.after)
      if (now.shown !== list.shown) {
        needed += 1
        if (!found.has(id)) missed += 1
      }
      index.remove(id)
      index.add(id, list.asked.predicate, now.bound)
      live[id] = { asked: list.asked, ...now }
    }
  }
  return { missed, ratio: dropped / needed, perChange: dropped / oracleChanges / oracleQueries }
}

function speed(
  random: Random,
  queries: number,
): { readonly indexed: number; readonly scanned: number } {
  const table = new Map(Array.from({ length: rowsCount }, (_, id) => [id, article(random, id, 0)]))
  const index = new PredicateIndex<number>()
  const lists = Array.from({ length: queries }, (_, id) => {
    const asked = query(random)
    const { bound } = page(table.values(), asked)
    index.add(id, asked.predicate, bound)
    return { id, predicate: asked.predicate, bound }
  })
  const changes = Array.from({ length: 10_000 }, (_, version) => change(random, table, version + 1))
  const measure = (find: (one: Change) => unknown): number => {
    const [start, startCpu] = [performance.now(), process.cpuUsage()]
    let count = 0
    for (; count % 16 !== 0 || performance.now() - start < roundMs; count += 1)
      find(changes[count % changes.length]!)
    const { user, system } = process.cpuUsage(startCpu)
    return (count / (user + system)) * 1_000_000
  }
  const indexed = median(Array.from({ length: rounds }, () => measure((one) => index.touched(one))))
  const scanned = measure((one) =>
    lists.filter((list) => touches(one, list.predicate, list.bound)).map((list) => list.id),
  )
  return { indexed, scanned }
}

export const benchmark: Benchmark = {
  claim:
    'Cached lists are dropped exactly when they may have changed, without a scan of all live ' +
    'queries; the baselines are a re-query after every change, and a scan.',
  run: async (say) => {
    const random = new Random(1)
    say(`${oracleChanges} changes against ${oracleQueries} live queries and the oracle`)
    const { missed, ratio, perChange } = exactness(random)
    const figures: Figure[] = [
      { name: 'missed invalidations', value: missed, unit: '', atMost: 0 },
      { name: 'invalidations, of those needed', value: round(ratio), unit: '×', atMost: 1.3 },
      { name: 'queries invalidated per change', value: round(perChange * 100, 3), unit: '%' },
    ]
    for (const queries of [1_000, 10_000, 100_000]) {
      say(`matching against ${queries} live queries`)
      const { indexed, scanned } = speed(random, queries)
      figures.push({
        name: `matching, ${queries} live queries`,
        value: round(indexed, 0),
        unit: '/cpu s',
        ...(queries === 10_000 ? { atLeast: 50_000 } : {}),
      })
      figures.push({
        name: `a scan, ${queries} live queries`,
        value: round(scanned, 0),
        unit: '/cpu s',
      })
    }
    return {
      figures,
      notes: [
        'Per second of processor time, one thread. A first page without a cursor is open at ' +
          'its top, and a page that is not full at its end.',
      ],
    }
  },
}
