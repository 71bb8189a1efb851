import { setTimeout as sleep } from 'node:timers/promises'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import type { Database } from '#database/database.ts'
import { JobRunner } from '#jobs/job-runner.ts'
import type { JobHandler } from '#jobs/running-job.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { Nodes } from '#nodes/nodes.ts'

export type JobNode = AsyncDisposable & { readonly nodes: Nodes; readonly runner: JobRunner }

export type JobNodeOptions = {
  readonly name?: string
  readonly leaseMs?: number
  /** Default: none, so that only looking finds what other nodes add. */
  readonly link?: ClusterLink
}

/** A node that does nothing but jobs: it has joined, and claims when this resolves. */
export async function jobNode(
  database: Database,
  handlers: readonly JobHandler<unknown>[],
  { name = 'one', leaseMs = 900, link }: JobNodeOptions = {},
): Promise<JobNode> {
  const shared = { database, clock: systemClock, logger: silentLogger }
  const info = { name, address: null, version: '1', fingerprint: 'f' }
  const nodes = new Nodes({ ...shared, info, config: { leaseMs } })
  while (nodes.mode !== 'live') await sleep(5)
  const runner = new JobRunner({ ...shared, nodes, link: link ?? null })
  runner.run(handlers)
  return {
    nodes,
    runner,
    [Symbol.asyncDispose]: async () => {
      await runner.stop()
      await nodes.leave()
    },
  }
}
