import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm, chmod } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { sql } from '#database/database.ts'
import { startEmbeddedPostgres } from '#embedded-postgres/embedded-postgres.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { silentLogger } from '#lib/logger.ts'
import { compare, round } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

const rounds = 7
const statementsPerRound = 6_000
const connections = 10
const rows = 1_000
const laterStarts = 5
const runRatioMin = 0.9
const firstStartMsMax = 5_000
const laterStartMsMax = 1_000
/**
 * Shared pages are counted once. What PostgreSQL caches grows with use, up to its 128 MB of
 * buffers.
 */
const idleMemoryMbMax = 60

const read = sql<{ id: number; data: string }>(`select id, data from item where id = $1`)

export const benchmark: Benchmark = {
  claim:
    `Database.run costs a read by key at most a tenth against bare pg with the same named ` +
    `statement; the embedded PostgreSQL starts in seconds and is small at rest.`,
  async run(say) {
    const folder = await mkdtemp(join(tmpdir(), 'stoa-bench-database-'))
    await chmod(folder, 0o755)
    try {
      const startsMs: number[] = []
      let figures: Figure[] = []
      for (let start = 0; start <= laterStarts; start += 1) {
        const began = performance.now()
        await using embedded = await startEmbeddedPostgres({
          dataDir: folder,
          logger: silentLogger,
        })
        startsMs.push(performance.now() - began)
        if (start === 0) {
          const idleMb = memoryMb(
            Number(
              readFileSync(join(folder, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0],
            ),
          )
          figures = await compareReads(embedded.url, say)
          if (idleMb !== null)
            figures.push({
              name: 'embedded: memory at rest',
              value: idleMb,
              unit: 'MB',
              atMost: idleMemoryMbMax,
            })
        }
      }
      const [first = 0, ...later] = startsMs
      figures.push(
        {
          name: 'embedded: first start',
          value: round(first, 0),
          unit: 'ms',
          atMost: firstStartMsMax,
        },
        {
          name: `embedded: slowest of ${laterStarts} later starts`,
          value: round(Math.max(...later), 0),
          unit: 'ms',
          atMost: laterStartMsMax,
        },
      )
      return { figures, notes: [] }
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
}

async function compareReads(url: string, say: (line: string) => void): Promise<Figure[]> {
  const database = new PostgresDatabase({
    url,
    connectionsMax: connections,
    statementTimeoutMs: 10_000,
    connectTimeoutMs: 10_000,
    logger: silentLogger,
  })
  const pool = new pg.Pool({
    connectionString: url,
    max: connections,
    types: { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig,
  })
  try {
    await pool.query('create table item (id int primary key, data json not null)')
    await pool.query(
      `insert into item
       select i, json_build_object('body', repeat('x', 4000)) from generate_series(1, ${rows}) i`,
    )
    await pool.query('vacuum analyze item')
    const ours = async (n: number): Promise<unknown> => database.run(read, [(n % rows) + 1])
    const bare = async (n: number): Promise<unknown> =>
      pool.query({ text: read.text, name: 'read', values: [(n % rows) + 1] })
    const figures: Figure[] = []
    for (const width of [1, 2 * connections]) {
      const measured: { ours: number[]; bare: number[] } = { ours: [], bare: [] }
      for (const one of [ours, bare]) await rate(width, one)
      for (let count = 0; count < rounds; count += 1) {
        // The two take turns at going first, so that neither profits from warm caches.
        const order = count % 2 === 0 ? (['bare', 'ours'] as const) : (['ours', 'bare'] as const)
        for (const name of order)
          measured[name].push(await rate(width, name === 'ours' ? ours : bare))
      }
      const { baseline, subject, ratio } = compare(measured.bare, measured.ours)
      say(`${width} at a time: bare pg ${baseline}/s, Database.run ${subject}/s`)
      figures.push({
        name: `read by key, ${width} at a time, against bare pg`,
        value: ratio,
        unit: 'ratio',
        atLeast: runRatioMin,
      })
    }
    return figures
  } finally {
    await Promise.all([database.close(), pool.end()])
  }
}

/** Statements per second, `width` of them under way at any moment. */
async function rate(width: number, one: (n: number) => Promise<unknown>): Promise<number> {
  let next = 0
  const began = performance.now()
  const lane = async (): Promise<void> => {
    while (next < statementsPerRound) {
      next += 1
      await one(next)
    }
  }
  await Promise.all(Array.from({ length: width }, lane))
  return statementsPerRound / ((performance.now() - began) / 1_000)
}

/** The proportional set size of a process and its children; only Linux reports it. */
function memoryMb(parent: number): number | null {
  if (process.platform !== 'linux') return null
  const family = readdirSync('/proc').filter(
    (name) => /^\d+$/.test(name) && (Number(name) === parent || parentOf(name) === parent),
  )
  const kb = family.map((pid) =>
    Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0),
  )
  return round(kb.reduce((sum, each) => sum + each, 0) / 1024, 0)
}

function parentOf(pid: string): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    // It has ended since it was listed.
    return null
  }
}
