import { scheduledAction } from '#content/schedule.ts'
import { jobKind } from '#jobs/job-kind.ts'
import { JobRunner } from '#jobs/job-runner.ts'
import type { JobRunnerOptions } from '#jobs/job-runner.ts'
import type { JobHandler } from '#jobs/running-job.ts'
import { systemClock } from '#lib/clock.ts'
import type { Site } from '#node/site.ts'
import type { Nodes } from '#nodes/nodes.ts'

/** A blob without references is kept this long: an upload may be about to use it. */
const orphanGraceMs = 24 * 3_600_000
const hourMs = 3_600_000
/** For filters and indexes that a crash, or a type saved in a transaction, left undone. */
const upgradeEveryMs = 60_000
/** An index of a large table, or a walk through a large file store, takes its time. */
const longMs = 12 * hourMs
/** Recurring work is shown until well after its next round. */
const keepMs = 7 * 24 * hourMs

const hourly = { everyMs: hourMs, timeoutMs: longMs, concurrency: 1, keepMs }

/** Expired sessions, lost secrets and old entries of the audit log. */
const pruneAccess = jobKind<null>('prune-access', hourly)
const forgetKeys = jobKind<null>('forget-idempotency-keys', hourly)
const collectBlobs = jobKind<null>('collect-blobs', hourly)
const upgradeTypes = jobKind<null>('upgrade-types', {
  everyMs: upgradeEveryMs,
  timeoutMs: longMs,
  concurrency: 1,
})

/** An action that is due together with an earlier one on its entry comes after that one. */
const behindPauseMs = 50

/** The parts that jobs work on. */
export type JobParts = Pick<Site, 'access' | 'content' | 'database' | 'media' | 'logger'> & {
  readonly forgetKeys: () => Promise<unknown>
  /** Called after a commit, so that other nodes poll sooner. */
  readonly committed: () => void
}

/** The jobs of this node. It adds them at once, and claims them from `run` on. */
export function openJobs(
  nodes: Nodes,
  { database, link, logger }: Pick<JobRunnerOptions, 'database' | 'link' | 'logger'>,
): JobRunner {
  const clock = systemClock
  return new JobRunner({ nodes, database, link, clock, logger: logger.child({ part: 'jobs' }) })
}

/** The handlers of this node. Each part that has jobs has its lines here. */
export function jobHandlers(parts: JobParts): readonly JobHandler<unknown>[] {
  const { access, content, database, media, logger } = parts
  return [
    { kind: pruneAccess, run: async () => void (await access.prune()) },
    { kind: forgetKeys, run: async () => void (await parts.forgetKeys()) },
    {
      kind: collectBlobs,
      run: async () => {
        const collected = await media.collect({ olderThanMs: orphanGraceMs, dryRun: false })
        if (collected.blobs + collected.uploads > 0)
          logger.info(collected, 'files without references were collected')
      },
    },
    { kind: upgradeTypes, run: () => content.types.settle(database) },
    scheduleHandler(parts),
  ]
}

function scheduleHandler({
  access,
  content,
  database,
  committed,
}: JobParts): JobHandler<{ readonly schedule: string }> {
  return {
    kind: scheduledAction,
    run: async (job) => {
      const { schedule } = job.payload
      if (await content.schedule.isBehind(database, schedule)) return job.postpone(behindPauseMs)
      await job.commit((tx) => content.schedule.carryOut(tx, schedule, access.authorityOf))
      committed()
    },
  }
}
