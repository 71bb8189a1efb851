import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { startTestPostgres } from '#test/support/database.ts'
import { Nodes, joinCluster } from 'stoa/cluster'
import type { Cluster } from 'stoa/cluster'
import { round } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

const sizes = [1, 2, 4, 8]
const writesPerSecond = 1_000
const measuredMs = 6_000
/** This setting is measured beside the default, with the most nodes. */
const longGapMs = 25
/** Writes go out in bursts of this length. */
const burstMs = 10
const rows = 10_000
const writers = 4
/** An idle node may take at most this much of one of the primary's cores. */
const idleShareMax = 0.01

type Sample = { readonly cpuMs: number; readonly statements: number; readonly writes: number }

/**
 * Processor time of the server's processes that serve nodes, by what the kernel counted, and
 * transactions of all.
 */
async function sample(
  observer: pg.Client,
  known: Map<number, number>,
): Promise<{ readonly cpuMs: number; readonly transactions: number }> {
  const { rows: backends } = await observer.query<{ pid: number }>(
    `select pid from pg_stat_activity
     where backend_type = 'client backend'
       and application_name not in ('bench writer', 'bench observer')`,
  )
  for (const { pid } of backends)
    known.set(pid, Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6)
  const { rows: counts } = await observer.query<{ done: string }>(
    `select sum(xact_commit + xact_rollback) as done from pg_stat_database`,
  )
  return {
    cpuMs: [...known.values()].reduce((sum, each) => sum + each, 0),
    transactions: Number(counts[0]!.done),
  }
}

async function write(
  pool: pg.Pool,
  clusters: readonly Cluster[],
  untilMs: number,
): Promise<number> {
  let count = 0
  const start = performance.now()
  while (performance.now() < untilMs) {
    const due = Math.floor(((performance.now() - start) / 1_000) * writesPerSecond)
    const burst = Array.from({ length: Math.max(0, due - count) }, (_, at) => count + at)
    await Promise.all(
      burst.map(async (n) => {
        await pool.query({
          name: 'write',
          text: `update cost_item set n = n + 1 where id = $1`,
          values: [1 + ((n * 7_919) % rows)],
        })
        clusters[n % clusters.length]!.feed.committed()
      }),
    )
    count += burst.length
    await sleep(burstMs)
  }
  return count
}

async function measure(
  observer: pg.Client,
  work: (untilMs: number) => Promise<number>,
): Promise<Sample> {
  const known = new Map<number, number>()
  const before = await sample(observer, known)
  const began = performance.now()
  const writes = await work(began + measuredMs)
  const after = await sample(observer, known)
  const seconds = (performance.now() - began) / 1_000
  return {
    cpuMs: (after.cpuMs - before.cpuMs) / seconds,
    statements: (after.transactions - before.transactions - writes) / seconds,
    writes: writes / seconds,
  }
}

/** One cluster of `size` nodes, at rest and under writes. */
async function cost(
  url: string,
  size: number,
  {
    observer,
    pool,
    pollGapMs,
  }: { readonly observer: pg.Client; readonly pool: pg.Pool; readonly pollGapMs?: number },
): Promise<{ readonly rest: Sample; readonly busy: Sample }> {
  const clusters: Cluster[] = []
  const nodes: Nodes[] = []
  for (let at = 0; at < size; at += 1) {
    const cluster = await joinCluster({
      url,
      connectionsMax: 6,
      ...(pollGapMs === undefined ? {} : { pollGapMs }),
    })
    await cluster.attach('cost_item', {
      collection: 'cost_item',
      key: ['id'],
      filterColumns: ['n', 'grp'],
    })
    clusters.push(cluster)
    nodes.push(
      new Nodes({
        database: cluster.database,
        info: { name: `node ${at}`, address: null, version: '1', fingerprint: '' },
        clock: systemClock,
        logger: silentLogger,
      }),
    )
  }
  try {
    await sleep(2_000)
    const rest = await measure(observer, async (untilMs) => {
      await sleep(untilMs - performance.now())
      return 0
    })
    const busy = await measure(observer, async (untilMs) => write(pool, clusters, untilMs))
    return { rest, busy }
  } finally {
    for (const node of nodes) await node.leave()
    for (const cluster of clusters) await cluster[Symbol.asyncDispose]()
  }
}

/**
 * What each further node adds: the slope of the straight line through the points, by least squares.
 */
function slope(points: readonly (readonly [number, number])[]): number {
  const [meanX, meanY] = [0, 1].map(
    (at) => points.reduce((sum, point) => sum + point[at]!, 0) / points.length,
  ) as [number, number]
  return (
    points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) /
    points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0)
  )
}

export const benchmark: Benchmark = {
  claim:
    `What one more node costs the primary, in processor time of the server, at rest and at ` +
    `${writesPerSecond} writes/s. At rest it is next to nothing.`,
  run: async (say) => {
    const server = await startTestPostgres({ durable: true })
    const observer = new pg.Client({
      connectionString: server.url,
      application_name: 'bench observer',
    })
    const pool = new pg.Pool({
      connectionString: server.url,
      max: writers,
      application_name: 'bench writer',
    })
    const ended = (error: Error): void => say(`a connection ended: ${error.message}`)
    observer.on('error', ended)
    pool.on('error', ended)
    await observer.connect()
    await observer.query(
      `create table cost_item (id int primary key, n int not null, grp int not null);
       insert into cost_item select i, 0, i % 20 from generate_series(1, ${rows}) i`,
    )
    const figures: Figure[] = []
    const points: { readonly size: number; readonly rest: Sample; readonly busy: Sample }[] = []
    for (const size of sizes) {
      say(`${size} nodes`)
      const { rest, busy } = await cost(server.url, size, { observer, pool })
      points.push({ size, rest, busy })
      figures.push(
        { name: `${size} nodes at rest, processor`, value: round(rest.cpuMs), unit: 'ms/s' },
        {
          name: `${size} nodes at rest, transactions`,
          value: round(rest.statements, 1),
          unit: '/s',
        },
      )
      figures.push(
        {
          name: `${size} nodes at ${Math.round(busy.writes)} writes/s, processor`,
          value: round(busy.cpuMs),
          unit: 'ms/s',
        },
        {
          name: `${size} nodes, transactions beside the writes`,
          value: round(busy.statements, 0),
          unit: '/s',
        },
      )
    }
    say(`8 nodes that poll at most every ${longGapMs} ms`)
    const { busy: spaced } = await cost(server.url, sizes.at(-1)!, {
      observer,
      pool,
      pollGapMs: longGapMs,
    })
    figures.push(
      {
        name: `8 nodes, ${longGapMs} ms apart, at ${Math.round(spaced.writes)} writes/s`,
        value: round(spaced.cpuMs),
        unit: 'ms/s',
      },
      {
        name: `8 nodes, ${longGapMs} ms apart, transactions`,
        value: round(spaced.statements, 0),
        unit: '/s',
      },
    )
    const rest = slope(points.map((point) => [point.size, point.rest.cpuMs]))
    const busy = slope(points.map((point) => [point.size, point.busy.cpuMs]))
    figures.push({
      name: 'one more node at rest, of a core',
      value: round(rest / 1_000, 4),
      unit: '×',
      atMost: idleShareMax,
    })
    figures.push({
      name: `one more node at ${writesPerSecond} writes/s, of a core`,
      value: round(busy / 1_000, 4),
      unit: '×',
    })
    for (const nodes of [100, 1_000]) {
      figures.push({
        name: `${nodes} nodes at rest, if that holds`,
        value: round((nodes * rest) / 1_000),
        unit: 'cores',
      })
      figures.push({
        name: `${nodes} nodes at ${writesPerSecond} writes/s, if that holds`,
        value: round((nodes * busy) / 1_000),
        unit: 'cores',
      })
    }
    figures.push({
      name: `100 nodes, ${longGapMs} ms apart, under writes`,
      value: round((100 * spaced.cpuMs) / sizes.at(-1)! / 1_000),
      unit: 'cores',
    })
    await observer.end()
    await pool.end()
    await server.stop()
    return {
      figures,
      notes: [
        'Processor time of the server processes that serve nodes, without those of the ' +
          'writers; nodes, writers and server share this machine.',
      ],
    }
  },
}
