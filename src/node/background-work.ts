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
const scheduledPerRoundMax = 1_000
/** More failures than this in one round have another cause than the content. */
const failuresPerRoundMax = 20
const pruneIntervalMs = 3_600_000

/** Work that one node at a time does for all. */
export const backgroundDuties = ['schedule'] as const

/** The parts that the work is done on. */
export type BackgroundParts = Pick<Site, 'access' | 'content' | 'database' | 'media' | 'logger'>

export type BackgroundOptions = {
  readonly nodes: Nodes
  /** Called after a commit, so that other nodes poll sooner. */
  readonly committed: () => void
}

/** Recurring work that is no job: what is local to a node, and what one node leads in. */
export function backgroundWork(
  site: BackgroundParts,
  { nodes, committed }: BackgroundOptions,
): Ticker[] {
  const { media, logger } = site
  return [
    // Local to this machine, so every node does it.
    new Ticker({
      name: 'tidy',
      intervalMs: pruneIntervalMs,
      logger,
      work: () => media.pruneSpool(),
    }),
    new Ticker({
      name: 'schedule',
      intervalMs: scheduleIntervalMs,
      logger,
      work: async () => runSchedule(site, nodes, committed),
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
