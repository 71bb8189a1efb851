import { Gauge } from 'prom-client'
import type { Database } from '#database/database.ts'
import { countJobs } from '#jobs/job-admin.ts'
import type { JobCount } from '#jobs/job-admin.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/** Jobs are counted at most this often, however often metrics are asked for. */
const countEveryMs = 10_000
const countTimeoutMs = 1_000

/** The jobs of the whole cluster; without the database, as they were last counted. */
export function jobsGauge(database: Database, nowMs: () => number): Gauge<'kind' | 'state'> {
  let counts: readonly JobCount[] = []
  let countedAtMs = Number.NEGATIVE_INFINITY
  const count = async (): Promise<void> => {
    if (countedAtMs > nowMs() - countEveryMs) return
    countedAtMs = nowMs()
    const counting = countJobs(database.control ?? database).catch(() => timedOut)
    const found = await withTimeout(counting, countTimeoutMs)
    if (found !== timedOut) counts = found as readonly JobCount[]
  }
  return new Gauge({
    name: 'stoa_jobs',
    help: 'Jobs of the cluster that have not ended, or are parked, by kind and state.',
    labelNames: ['kind', 'state'],
    registers: [],
    async collect() {
      await count()
      this.reset()
      for (const { kind, state, count } of counts) this.set({ kind, state }, count)
    },
  })
}
