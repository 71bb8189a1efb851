import type { Site } from '#node/site.ts'
import { Ticker } from '#lib/ticker.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { FenceLostError } from '#nodes/errors.ts'
import type { Nodes } from '#nodes/nodes.ts'

const scheduleIntervalMs = 1_000
/** Filters and indexes that a crash, or a type saved in a transaction, left to do. */
const settleIntervalMs = 60_000
const scheduledPerRoundMax = 1_000
/** With more than so many actions that cannot be carried out, something else is wrong. */
const failuresPerRoundMax = 20
const collectIntervalMs = 3_600_000
/**
 * Whether this node leads now is asked this often where the work itself comes more rarely: a duty
 * that changes hands must not wait for hours.
 */
const askIntervalMs = 5_000
/** A blob that nothing refers to is kept this long: an upload may be about to be used. */
const orphanGraceMs = 24 * 3_600_000

/** What one node at a time does for all. */
export const backgroundDuties = ['schedule', 'prune', 'forget-keys', 'settle', 'collect'] as const
type Duty = (typeof backgroundDuties)[number]

export type BackgroundOptions = {
  readonly nodes: Nodes
  readonly forgetKeys: () => Promise<number>
  /** Called after a commit, so that other nodes hear of it sooner. */
  readonly committed: () => void
}

/** Work that comes round, each kind on the node that leads in its duty. */
export function backgroundWork(
  site: Site,
  { nodes, forgetKeys, committed }: BackgroundOptions,
): Ticker[] {
  const { access, content, database, media, logger } = site
  const collect = async (): Promise<void> => {
    const collected = await media.collect({ olderThanMs: orphanGraceMs, dryRun: false })
    if (collected.blobs + collected.uploads > 0)
      logger.info(collected, 'files that nothing refers to were collected')
  }
  // Bounded per call; what is left over waits for the next hour.
  const hourly = (duty: Duty, work: () => Promise<unknown>): Ticker =>
    new Ticker({
      name: duty,
      intervalMs: askIntervalMs,
      logger,
      work: seldom(nodes, duty, collectIntervalMs, work),
    })
  return [
    // Of this machine, and so for every node itself.
    new Ticker({
      name: 'tidy',
      intervalMs: collectIntervalMs,
      logger,
      work: () => media.pruneSpool(),
    }),
    new Ticker({
      name: 'schedule',
      intervalMs: scheduleIntervalMs,
      logger,
      work: async () => runSchedule(site, nodes, committed),
    }),
    hourly('prune', () => access.prune()),
    hourly('forget-keys', forgetKeys),
    hourly('collect', collect),
    new Ticker({
      name: 'settle',
      intervalMs: askIntervalMs,
      logger,
      work: seldom(nodes, 'settle', settleIntervalMs, () => content.types.settle(database)),
    }),
  ]
}

/**
 * Each action in a transaction that commits only under the newest fence: a leader that slept
 * through its lease publishes nothing. One that fails is put off, and the next has its turn.
 */
async function runSchedule(
  { access, content, database }: Site,
  nodes: Nodes,
  committed: () => void,
): Promise<void> {
  const failures: unknown[] = []
  for (
    let count = 0;
    count < scheduledPerRoundMax &&
    failures.length < failuresPerRoundMax &&
    nodes.leads('schedule');
    count += 1
  ) {
    try {
      if (
        (await nodes.fenced(
          'schedule',
          (tx) => content.schedule.runDue(tx, 1, access.authorityOf),
          database,
        )) === 0
      )
        break
      committed()
    } catch (error) {
      if (error instanceof FenceLostError) break
      if (error instanceof DatabaseUnavailableError) throw error
      failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
}

/**
 * Runs `work` while this node leads, once per interval. Twice within one, after a change of hands,
 * does no harm.
 */
function seldom(
  nodes: Nodes,
  duty: Duty,
  intervalMs: number,
  work: () => Promise<unknown>,
): () => Promise<void> {
  let lastMs = Number.NEGATIVE_INFINITY
  return async () => {
    if (!nodes.leads(duty) || performance.now() - lastMs < intervalMs) return
    await work()
    lastMs = performance.now()
  }
}
