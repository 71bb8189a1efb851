/**
 * A node that does nothing but lead, as a process of its own, so that a test can stop and kill it:
 * `node leader-process.ts URL MODE`. `slow`: one fenced effect with a pause in its middle. `ticks`:
 * the ticks of a cluster-wide schedule, one after the other.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { Nodes } from '#nodes/nodes.ts'

export const leaderLeaseMs = 900

const duty = 'ticker'
const middlePauseMs = 500
const tickPauseMs = 8
const [, , url = '', mode = ''] = process.argv

const insert = sql(`insert into effect (tick, who) values ($1, $2)`)
// Nothing here keeps two leaders apart but the fence: no lock, no constraint.
const next = sql<{ tick: number }>(`select coalesce(max(tick), 0) + 1 as tick from effect`)

if (import.meta.main) {
  const database = new PostgresDatabase({
    url,
    connectionsMax: 4,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 5_000,
    logger: silentLogger,
  })
  const nodes = new Nodes({
    database,
    info: { name: String(process.pid), address: null, version: '1', fingerprint: 'f' },
    clock: systemClock,
    logger: silentLogger,
    config: { leaseMs: leaderLeaseMs },
    duties: [duty],
  })
  const who = String(process.pid)
  if (mode === 'slow') {
    while (!nodes.leads(duty)) await sleep(5)
    try {
      await nodes.fenced(duty, async (tx) => {
        await tx.run(insert, [1, who])
        process.stdout.write('middle\n')
        await sleep(middlePauseMs)
        await tx.run(insert, [2, who])
      })
      process.stdout.write('committed\n')
    } catch (error) {
      process.stdout.write(`refused ${(error as { code?: string }).code ?? String(error)}\n`)
    }
    await nodes.leave()
    await database.close()
  } else {
    for (;;) {
      await sleep(tickPauseMs)
      if (!nodes.leads(duty)) continue
      try {
        await nodes.fenced(duty, async (tx) => {
          const [row] = await tx.run(next)
          await sleep(Math.random() * tickPauseMs)
          await tx.run(insert, [row!.tick, who])
        })
      } catch {
        // The fence held, or the connection was ended: another process leads.
      }
    }
  }
}
