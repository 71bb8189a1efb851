import { DatabaseUnavailableError } from '#database/errors.ts'
import { Ticker } from '#lib/ticker.ts'
import type { Site } from '#node/site.ts'
import { FenceLostError } from '#nodes/errors.ts'
import type { Nodes } from '#nodes/nodes.ts'

/**
 * The leader looks for due actions at least this often, and wakes for the next one that it knows
 * of: an action that was scheduled further ahead than this is carried out when it is due.
 */
const scheduleIntervalMs = 1_000
/** An action that is due but locked by another transaction is tried again after this. */
const lockedAgainMs = 200
/** For filters and indexes that a crash, or a type saved in a transaction, left undone. */
const settleIntervalMs = 60_000
const scheduledPerRoundMax = 1_000
/** More failures than this in one round have another cause than the content. */
const failuresPerRoundMax = 20
const collectIntervalMs = 3_600_000
/** How often seldom work checks whether this node leads: a duty that moves must not wait. */
const askIntervalMs = 5_000
/** A blob without references is kept this long: an upload may be about to use it. */
const orphanGraceMs = 24 * 3_600_000

/** Work that one node at a time does for all. */
export const backgroundDuties = ['schedule', 'prune', 'forget-keys', 'settle', 'collect'] as const
type Duty = (typeof backgroundDuties)[number]

/** The parts that the work is done on. */
export type BackgroundParts = Pick<Site, 'access' | 'content' | 'database' | 'media' | 'logger'>

export type BackgroundOptions = {
  readonly nodes: Nodes
  readonly forgetKeys: () => Promise<number>
  /** Called after a commit, so that other nodes poll sooner. */
  readonly committed: () => void
}

/** Recurring work, each kind on the node that leads in its duty. */
export function backgroundWork(
  site: BackgroundParts,
  { nodes, forgetKeys, committed }: BackgroundOptions,
): Ticker[] {
  const { access, content, database, media, logger } = site
  const collect = async (): Promise<void> => {
    const collected = await media.collect({ olderThanMs: orphanGraceMs, dryRun: false })
    if (collected.blobs + collected.uploads > 0)
      logger.info(collected, 'files without references were collected')
  }
  // Bounded per call; the rest waits for the next hour.
  const hourly = (duty: Duty, work: () => Promise<unknown>): Ticker =>
    new Ticker({
      name: duty,
      intervalMs: askIntervalMs,
      logger,
      work: seldom(nodes, duty, collectIntervalMs, work),
    })
  return [
    // Local to this machine, so every node does it.
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
 * Carries out due actions, each in a transaction that commits only under the newest fence: a leader
 * that slept through its lease publishes nothing. Returns when the next one is due.
 */
async function runSchedule(
  { access, content, database }: BackgroundParts,
  nodes: Nodes,
  committed: () => void,
): Promise<number | void> {
  const failures: unknown[] = []
  for (let count = 0; count < scheduledPerRoundMax && nodes.leads('schedule'); count += 1) {
    if (failures.length >= failuresPerRoundMax) break
    try {
      const done = await nodes.fenced(
        'schedule',
        (tx) => content.schedule.runDue(tx, 1, access.authorityOf),
        database,
      )
      if (done === 0) break
      committed()
    } catch (error) {
      if (error instanceof FenceLostError) return
      if (error instanceof DatabaseUnavailableError) throw error
      failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
  if (!nodes.leads('schedule')) return
  const dueInMs = await content.schedule.nextDueInMs(database)
  if (dueInMs === null) return
  return dueInMs > 0 ? Math.ceil(dueInMs) + 1 : lockedAgainMs
}

/**
 * Runs `work` while this node leads, once per interval. Running twice within one, after a change of
 * hands, does no harm.
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
