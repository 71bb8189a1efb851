import { setTimeout as sleep } from 'node:timers/promises'
import { Logger, run as runGraphile, runMigrations } from 'graphile-worker'
import pg from 'pg'
import type { Content } from '#content/content.ts'
import { createContent } from '#content/create-content.ts'
import type { Queryable } from '#database/database.ts'
import { migrate } from '#database/migrate.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { jobKind } from '#jobs/job-kind.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { everything } from '#test/support/content.ts'
import { startTestPostgres } from '#test/support/database.ts'
import { jobNode } from '#test/support/job-node.ts'
import { createDatabase } from './support/articles.ts'
import { compare, round } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

const jobsPerRound = Number(process.env['STOA_BENCH_JOBS'] ?? 3_000)
const rounds = 5
const concurrency = 10
const startsMeasured = 400
const startGapMs = 8
const clients = 64
const writeRoundMs = 600
const writeRounds = 15
const entries = 1_000
const deadlineMs = 120_000

const empty = jobKind<null>('empty', { concurrency })
const timed = jobKind<{ readonly at: number }>('timed', { concurrency })
const silent = new JobQueue(null)

function open(url: string, connectionsMax: number): PostgresDatabase {
  return new PostgresDatabase({
    url,
    connectionsMax,
    statementTimeoutMs: 30_000,
    connectTimeoutMs: 30_000,
    logger: silentLogger,
  })
}

async function within(work: Promise<void>, what: string): Promise<void> {
  const late = sleep(deadlineMs, 'late', { ref: false })
  if ((await Promise.race([work, late])) === 'late') throw new Error(`${what} did not end in time`)
}

/** Counts up to a number of jobs, and says when they are all done. */
class Count {
  readonly done: Promise<void>
  readonly #resolve: () => void
  #left: number

  constructor(jobs: number) {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.done = promise
    this.#resolve = resolve
    this.#left = jobs
  }

  one(): void {
    this.#left -= 1
    if (this.#left === 0) this.#resolve()
  }
}

/** Fenced completions per second of jobs that wait already; one commit each. */
async function ourRate(url: string): Promise<number> {
  const database = open(url, concurrency + 4)
  try {
    for (let at = 0; at < jobsPerRound; at += 1_000)
      await silent.addAll(
        database,
        empty,
        Array.from({ length: Math.min(1_000, jobsPerRound - at) }, () => ({ payload: null })),
      )
    const count = new Count(jobsPerRound)
    const run = async (): Promise<void> => count.one()
    const startedMs = performance.now()
    await using node = await jobNode(database, [{ kind: empty, run }], { leaseMs: 3_000 })
    await within(count.done, 'our queue')
    await node.runner.drain(deadlineMs)
    return (jobsPerRound / (performance.now() - startedMs)) * 1_000
  } finally {
    await database.close()
  }
}

async function graphileRate(url: string): Promise<number> {
  const pool = new pg.Pool({ connectionString: url, max: concurrency + 4 })
  pool.on('error', () => undefined)
  pool.on('connect', (client) => client.on('error', () => undefined))
  try {
    await pool.query(
      `select graphile_worker.add_job('empty') from generate_series(1, ${jobsPerRound})`,
    )
    const count = new Count(jobsPerRound)
    const startedMs = performance.now()
    const runner = await runGraphile({
      pgPool: pool,
      concurrency,
      noHandleSignals: true,
      logger: new Logger(() => () => undefined),
      taskList: { empty: async () => count.one() },
    })
    await within(count.done, 'graphile-worker')
    await runner.stop()
    return (jobsPerRound / (performance.now() - startedMs)) * 1_000
  } finally {
    await pool.end()
  }
}

/** Milliseconds from the commit that adds a job to the start of its handler. */
async function startTimes(url: string): Promise<number[]> {
  const database = open(url, concurrency + 4)
  const waits: number[] = []
  try {
    const count = new Count(startsMeasured)
    await using node = await jobNode(
      database,
      [
        {
          kind: timed,
          run: async ({ payload }) => {
            waits.push(performance.now() - (payload as { readonly at: number }).at)
            count.one()
          },
        },
      ],
      { leaseMs: 3_000 },
    )
    for (let at = 0; at < startsMeasured; at += 1) {
      await node.runner.queue.add(database, timed, { at: performance.now() })
      await sleep(startGapMs)
    }
    await within(count.done, 'the starts')
  } finally {
    await database.close()
  }
  return waits.sort((one, other) => one - other)
}

type EntryWriter = (turn: number, tx: Queryable) => Promise<unknown>

/** Saves and publishes one entry per call, with the same code that serves PATCH. */
async function entryWriter(database: PostgresDatabase, content: Content): Promise<EntryWriter> {
  const call = { db: database, authority: everything }
  await content.types.save(
    database,
    { name: 'article', label: 'Article', fields: [{ name: 'title', kind: 'text' }] },
    { expected: null, allowLoss: false },
  )
  const ids: string[] = []
  for (let at = 0; at < entries; at += 1) {
    const fields = { title: `Article ${at}` }
    const input = { locale: null, fields, publish: true }
    ids.push((await content.entries.create(call, 'article', input)).id)
  }
  return async (turn, tx) => {
    const of = { type: 'article', id: ids[turn % entries]! }
    const fields = { title: `Title ${turn}` }
    const input = { locale: null, fields, merge: true, publish: true }
    return content.entries.save({ ...call, db: tx }, of, input, null)
  }
}

let turn = 0

/** Writes per second of `clients`, each write in a transaction, with or without a job in it. */
async function writeRate(
  database: PostgresDatabase,
  write: EntryWriter,
  withJob: boolean,
): Promise<number> {
  const startedMs = performance.now()
  let count = 0
  const client = async (): Promise<void> => {
    while (performance.now() - startedMs < writeRoundMs) {
      turn += 1
      const mine = turn
      await database.transaction(async (tx) => {
        await write(mine, tx)
        if (withJob) await silent.add(tx, empty, null)
      })
      count += 1
    }
  }
  await Promise.all(Array.from({ length: clients }, client))
  return (count / (performance.now() - startedMs)) * 1_000
}

async function writes(url: string): Promise<Figure[]> {
  const database = open(url, clients)
  const content = createContent({ clock: systemClock, logger: silentLogger })
  try {
    const write = await entryWriter(database, content)
    const alone: number[] = []
    const withJob: number[] = []
    for (let round = 0; round <= writeRounds; round += 1) {
      // Each is first in every other round.
      const first = round % 2 === 1
      const one = await writeRate(database, write, first)
      const other = await writeRate(database, write, !first)
      // The first round only warms up.
      if (round === 0) continue
      alone.push(first ? other : one)
      withJob.push(first ? one : other)
    }
    const { baseline, ratio } = compare(alone, withJob)
    return [
      { name: `entry published, ${clients} clients`, value: baseline, unit: '/s' },
      { name: 'the same with a job in its transaction', value: ratio, unit: '×', atLeast: 0.95 },
    ]
  } finally {
    await content.stop()
    await database.close()
  }
}

export const benchmark: Benchmark = {
  claim:
    'Fenced completions, one per commit, reach ≥ 1.3 × graphile-worker on the same durable ' +
    'server; a job starts within 5 ms of its commit in the median and 25 ms at p99; a write with ' +
    'a job keeps ≥ 0.95 of the rate of the write alone.',
  run: async (say) => {
    const server = await startTestPostgres({ durable: true })
    try {
      const ours = await createDatabase(server.url, 'ours')
      const theirs = await createDatabase(server.url, 'theirs')
      const migrating = open(ours, 2)
      await migrate(migrating)
      await migrating.close()
      await runMigrations({ connectionString: theirs, logger: new Logger(() => () => undefined) })
      const rates: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] }
      for (let turn = 0; turn < rounds; turn += 1) {
        say(`round ${turn + 1} of ${rounds}`)
        rates.theirs.push(await graphileRate(theirs))
        rates.ours.push(await ourRate(ours))
      }
      const { baseline, subject, ratio } = compare(rates.theirs, rates.ours)
      say('from commit to start')
      const waits = await startTimes(ours)
      const at = (share: number): number => round(waits[Math.floor(waits.length * share)]!)
      say('writes')
      const figures: Figure[] = [
        { name: 'graphile-worker, completions', value: baseline, unit: '/s' },
        { name: 'jobs, fenced completions', value: subject, unit: '/s' },
        { name: 'jobs against graphile-worker', value: ratio, unit: '×', atLeast: 1.3 },
        { name: 'add → start, median', value: at(0.5), unit: 'ms', atMost: 5 },
        { name: 'add → start, p99', value: at(0.99), unit: 'ms', atMost: 25 },
        ...(await writes(ours)),
      ]
      return {
        figures,
        notes: [
          `${jobsPerRound} jobs a round with ${concurrency} at a time, by one process; a server ` +
            'with its durable defaults on the same machine.',
        ],
      }
    } finally {
      await server.stop()
    }
  },
}
