import { setTimeout as sleep } from 'node:timers/promises'
import { numbersInDatabase, startCluster } from '#test/support/coherence/cluster.ts'
import { percentile, Workload } from '#test/support/coherence/workload.ts'
import { startTestPostgres } from '#test/support/database.ts'
import { startProxy } from '#test/support/proxy.ts'
import { round } from './support/benchmark.ts'
import type { Benchmark } from './support/benchmark.ts'

const nodes = 3
const writers = 8
const readers = 24
const leaseMs = 1_000
/** The outage of the database lasts this long (STOA_BENCH_SECONDS). */
const seconds = Number(process.env['STOA_BENCH_SECONDS'] ?? 60)
/**
 * Goodput is counted for so long before, and for so long at the end of the time in which it has to
 * be back.
 */
const windowMs = 5_000
const backWithinMs = 10_000
const warmUpMs = 4_000
/**
 * Clients with pauses, far from what the machine can take: otherwise its noise would be measured.
 */
const writePauseMs = 200
const readPauseMs = 60

export const benchmark: Benchmark = {
  claim:
    `Three nodes under load, and the network to the database drops everything for ${seconds} s: ` +
    `cached content is served and marked, and goodput (unmarked responses, and writes) is back ` +
    `${backWithinMs / 1_000} s after its return.`,
  async run(say) {
    const postgres = await startTestPostgres({ durable: true })
    await using network = await startProxy(postgres.url)
    try {
      await using cluster = await startCluster({
        urls: Array.from({ length: nodes }, () => network.url),
        entries: 64,
        environment: { STOA_LEASE_MS: String(leaseMs) },
      })
      await using workload = new Workload({
        cluster,
        leaseMs,
        writers,
        readers,
        writePauseMs,
        readPauseMs,
        calm: false,
        repeats: true,
      }).start()
      await sleep(warmUpMs)
      const before = await rateOf(workload)
      say(`away for ${seconds} s …`)
      workload.took.clear()
      const [reads, refused] = [workload.counts.reads, workload.counts.refused]
      network.silence()
      // One lease later, every response is marked.
      await sleep(seconds * 1_000)
      const during = {
        served: workload.counts.reads - reads,
        refused: workload.counts.refused - refused,
        slowestMs: Math.max(0, ...(workload.took.get('refused read') ?? [])),
        p99Ms: percentile(workload.took.get('plain'), 0.99),
      }
      const markedBefore = workload.ledger.marked
      network.heal()
      await sleep(backWithinMs - windowMs)
      const after = await rateOf(workload)
      await workload.stop()
      await workload.atRest(await numbersInDatabase(postgres.url), backWithinMs)
      const { ledger } = workload
      return {
        figures: [
          { name: 'goodput before', value: round(before.reads + before.writes, 0), unit: '1/s' },
          { name: 'reads served while away', value: during.served, unit: '' },
          { name: 'requests refused while away', value: during.refused, unit: '' },
          { name: 'slowest refusal of a read', value: round(during.slowestMs, 0), unit: 'ms' },
          { name: 'reads while away, p99', value: round(during.p99Ms), unit: 'ms' },
          { name: 'goodput after', value: round(after.reads + after.writes, 0), unit: '1/s' },
          {
            name: 'goodput after / before',
            value: round((after.reads + after.writes) / (before.reads + before.writes)),
            unit: '',
            atLeast: 0.95,
          },
          { name: 'writes after / before', value: round(after.writes / before.writes), unit: '' },
          {
            name: 'responses still marked 5 to 10 s after',
            value: after.marked,
            unit: '',
            atMost: 0,
          },
          { name: 'responses marked', value: markedBefore, unit: '', atLeast: 1 },
          {
            name: 'violations: stale, wrong mark, token, lost',
            value: ledger.violations.length,
            unit: '',
            atMost: 0,
          },
        ],
        notes: ledger.violations.slice(0, 20).map(({ rule, text }) => `${rule}: ${text}`),
      }
    } finally {
      await postgres.stop()
    }
  },
}

/** Per second, over a window from now. */
async function rateOf({
  counts,
  ledger,
}: Workload): Promise<{ reads: number; writes: number; marked: number }> {
  const [reads, writes, marked] = [counts.reads, counts.writes, ledger.marked]
  await sleep(windowMs)
  const markedNow = ledger.marked - marked
  const perSecond = 1_000 / windowMs
  return {
    reads: (counts.reads - reads - markedNow) * perSecond,
    writes: (counts.writes - writes) * perSecond,
    marked: markedNow,
  }
}
