import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startTestPostgres } from '#test/support/database.ts'
import type { Benchmark } from './benchmark.ts'
import { wrkMissing } from './wrk.ts'

export type Measure = (
  url: string,
  folder: string,
  say: (line: string) => void,
) => ReturnType<Benchmark['run']>

/** A benchmark of a server under load from wrk, on a PostgreSQL and in a folder of its own. */
export function loadBenchmark(claim: string, measure: Measure): Benchmark {
  return {
    claim,
    async run(say) {
      const missing = wrkMissing()
      if (missing !== null) throw new Error(missing)
      const folder = await mkdtemp(join(tmpdir(), 'stoa-bench-'))
      const postgres = await startTestPostgres({ durable: true })
      try {
        return await measure(postgres.url, folder, say)
      } finally {
        await postgres.stop()
        await rm(folder, { recursive: true, force: true })
      }
    },
  }
}
