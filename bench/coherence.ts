import { existsSync } from 'node:fs'
import { setPriority } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { newId } from '#lib/id.ts'
import { numbersInDatabase, startCluster } from '#test/support/coherence/cluster.ts'
import { LagProbe } from '#test/support/coherence/lag-probe.ts'
import type { LagSample } from '#test/support/coherence/lag-probe.ts'
import { percentile, Workload } from '#test/support/coherence/workload.ts'
import { startTestPostgres } from '#test/support/database.ts'
import { round } from './support/benchmark.ts'
import type { Benchmark, Figure } from './support/benchmark.ts'

const nodes = 3
const writers = 8
const readers = 24
const entries = 64
const leaseMs = 1_000
/**
 * STOA_BENCH_SECONDS: shorter to try it, longer to be surer. The goal of 100,000 pairs is for 60
 * seconds.
 */
const seconds = Number(process.env['STOA_BENCH_SECONDS'] ?? 60)
const pairsMin = Math.round((100_000 * seconds) / 60)
/**
 * On a busy machine it goes on until there are as many pairs, for at most so many times as long.
 */
const longerMax = 3
/**
 * A node takes what it is sent at once; clients without any pause would measure the queue for the
 * machine's processors.
 */
const writePauseMs = 75
const readPauseMs = 8
const warmUpMs = 3_000
/** The scheduling priority of the process in which all clients run. */
const clientNice = 10
/**
 * The server's files are kept in memory where there is such a file system, so that a disk that
 * stalls for 100 ms now and then does not enter the figures.
 */
const memoryFolder = '/dev/shm'

export const benchmark: Benchmark = {
  claim:
    `Three nodes on one PostgreSQL, ${writers} writers and ${readers} readers on all of them ` +
    `for ${seconds} s: what each reader is shown, examined by a checker that knows only what ` +
    `was acknowledged when.`,
  async run(say) {
    const postgres = await startTestPostgres({
      durable: true,
      settings: ['track_commit_timestamp=on'],
      ...(existsSync(memoryFolder) ? { folder: memoryFolder } : {}),
    })
    try {
      await using cluster = await startCluster({
        urls: Array.from({ length: nodes }, () => postgres.url),
        entries,
        environment: { STOA_LEASE_MS: String(leaseMs) },
      })
      await using workload = new Workload({
        cluster,
        leaseMs,
        writers,
        readers,
        writePauseMs,
        readPauseMs,
        calm: true,
        repeats: false,
      }).start()
      // The clients would have machines of their own; here they share two processors with the nodes
      // and the database.
      setPriority(clientNice)
      say('warming up …')
      await sleep(warmUpMs)
      workload.took.clear()
      const [pairsBefore, writesBefore] = [workload.counts.pairs, workload.counts.writes]
      say(`measuring for ${seconds} s …`)
      const probe = await LagProbe.start(cluster, newId())
      const startMs = performance.now()
      const elapsedS = (): number => (performance.now() - startMs) / 1_000
      const pairsSoFar = (): number => workload.counts.pairs - pairsBefore
      while (elapsedS() < seconds || (pairsSoFar() < pairsMin && elapsedS() < seconds * longerMax))
        await sleep(500)
      await probe.stop()
      const [pairs, tookS, writes] = [
        pairsSoFar(),
        elapsedS(),
        workload.counts.writes - writesBefore,
      ]
      await workload.stop()
      await workload.atRest(await numbersInDatabase(postgres.url), 0)
      return {
        figures: figuresOf(
          workload,
          { pairs, tookS, writes },
          await lagsOf(postgres.url, probe.applied),
          await lagsOf(postgres.url, probe.shown),
        ),
        notes: notesOf(workload),
      }
    } finally {
      await postgres.stop()
    }
  },
}

function figuresOf(
  { ledger, took }: Workload,
  {
    pairs,
    tookS,
    writes,
  }: { readonly pairs: number; readonly tookS: number; readonly writes: number },
  applied: Lags,
  shown: Lags,
): Figure[] {
  const ms = (name: string, value: number, bound: Partial<Figure> = {}): Figure => ({
    name,
    value: round(value),
    unit: 'ms',
    ...bound,
  })
  return [
    { name: 'responses checked', value: ledger.checked, unit: '' },
    { name: 'measured for', value: round(tookS, 0), unit: 's' },
    { name: 'writes', value: round(writes / tookS, 0), unit: '1/s' },
    { name: 'stale entries and lists at rest', value: ledger.count('rest'), unit: '', atMost: 0 },
    {
      name: 'pairs of a write and a read with its token',
      value: pairs,
      unit: '',
      atLeast: pairsMin,
    },
    { name: 'of them: write not seen', value: ledger.count('token'), unit: '', atMost: 0 },
    {
      name: 'unmarked responses older than the lease',
      value: ledger.count('stale', 'list', 'invented'),
      unit: '',
      atMost: 0,
    },
    { name: 'requests refused', value: ledger.count('refused'), unit: '', atMost: 0 },
    { name: 'responses marked as stale', value: ledger.marked, unit: '', atMost: 0 },
    ms('read without token, p50', percentile(took.get('plain'), 0.5)),
    ms('read with token, p50', percentile(took.get('token'), 0.5)),
    ms('read without token, p99', percentile(took.get('plain'), 0.99)),
    ms('read with token, p99', percentile(took.get('token'), 0.99)),
    ms(
      'added by the token, p99',
      percentile(took.get('token'), 0.99) - percentile(took.get('plain'), 0.99),
      { atMost: 3 },
    ),
    {
      name: 'writes followed to all nodes',
      value: applied.committed.length + shown.committed.length,
      unit: '',
    },
    ms('commit to applied on all nodes, p50', percentile(applied.committed, 0.5), { atMost: 5 }),
    ms('commit to applied on all nodes, p99', percentile(applied.committed, 0.99), { atMost: 15 }),
    ms('commit to shown by all nodes, p50', percentile(shown.committed, 0.5)),
    ms('commit to shown by all nodes, p99', percentile(shown.committed, 0.99)),
    ms('acknowledged to shown by all nodes, p50', percentile(shown.acknowledged, 0.5)),
    ms('acknowledged to shown by all nodes, p99', percentile(shown.acknowledged, 0.99)),
    ms('write, p50', percentile(took.get('write'), 0.5)),
    ms('write, p99', percentile(took.get('write'), 0.99)),
  ]
}

type Lags = { readonly committed: readonly number[]; readonly acknowledged: readonly number[] }

/**
 * PostgreSQL records when each transaction committed, on the clock of this machine, which the
 * clients read too.
 */
async function lagsOf(url: string, samples: readonly LagSample[]): Promise<Lags> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<{ ms: string | null }>(
      `select extract(epoch from pg_xact_commit_timestamp(xid::xid8::xid)) * 1000 as ms
       from unnest($1::text[]) with ordinality as t(xid, n) order by n`,
      [samples.map(({ xid }) => xid)],
    )
    const committed = samples.map(
      ({ arrivedMs }, index) =>
        arrivedMs + performance.timeOrigin - Number(rows[index]!.ms ?? Number.NaN),
    )
    return {
      committed,
      acknowledged: samples.map(({ arrivedMs, acknowledgedMs }) => arrivedMs - acknowledgedMs),
    }
  } finally {
    await client.end()
  }
}

function notesOf({ ledger }: Workload): string[] {
  const files = existsSync(memoryFolder)
    ? `Its files are in ${memoryFolder}, so that the stalls of a disk are not counted.`
    : 'Its files are on a disk, whose stalls are counted.'
  return [
    `A commit counts from the moment that PostgreSQL records for it, before it is flushed. ` +
      `${files} ` +
      'The clients run at a lower priority than nodes and database.',
    'applied: the last of all nodes has applied the write, by its receipt, rounded up to the ' +
      'millisecond. shown: each of the two other nodes has sent the client a response with the ' +
      'write; the client polls without token and without pause, and the time includes loading ' +
      'the entry.',
    ...ledger.violations.slice(0, 20).map(({ rule, text }) => `${rule}: ${text}`),
  ]
}
