import type { Database } from '#database/database.ts'
import { freeJobs, runningOn } from '#jobs/claim.ts'
import { JobLostError } from '#jobs/errors.ts'
import type { RunningJob } from '#jobs/running-job.ts'
import type { Nodes } from '#nodes/nodes.ts'

/** How often a node that runs jobs compares them with the database's. */
const compareMs = 5_000
/** How often the jobs of nodes that were found gone are looked for again. */
const freeAgainMs = 5_000

export type OwnershipOptions = {
  readonly nodes: Nodes
  readonly database: Database
  readonly nowMs: () => number
  readonly running: () => readonly RunningJob[]
}

/**
 * Who owns the jobs that run. A node is gone when this one has watched its counter stand still for
 * a lease, without a gap of its own in the watching: after an outage of the database, in which no
 * node could write, each gets a lease to be seen again.
 */
export class Ownership {
  readonly #options: OwnershipOptions
  #comparedAtMs = Number.NEGATIVE_INFINITY
  #isCompareWanted = true
  #beatenAtMs = Number.NEGATIVE_INFINITY
  #watchingSinceMs = Number.POSITIVE_INFINITY
  #known = ''
  #freedAtMs = Number.NEGATIVE_INFINITY

  constructor(options: OwnershipOptions) {
    this.#options = options
  }

  /** Something may have been cancelled, or claimed without this node's knowledge. */
  wantCompare(): void {
    this.#isCompareWanted = true
  }

  /**
   * Aborts what this node runs and does not own any more, and gives back what it owns and does not
   * run. Not while a claim is on its way.
   */
  async compare(): Promise<void> {
    const { nodes, database, nowMs, running } = this.#options
    const isDue = running().length > 0 && this.#comparedAtMs <= nowMs() - compareMs
    if (!this.#isCompareWanted && !isDue) return
    this.#isCompareWanted = false
    this.#comparedAtMs = nowMs()
    const mine = running()
    const owned = await runningOn(database, nodes.id)
    for (const job of mine) {
      if (owned.get(job.id) === job.attempt || job.isOver) continue
      const reason = new JobLostError('Another attempt owns the job, or it was cancelled.', {
        job: job.id,
      })
      job.abort(reason)
    }
    const except = running().map(({ id }) => id)
    if ([...owned.keys()].some((id) => !except.includes(id)))
      await freeJobs(database, { nodes: [nodes.id], except })
  }

  /** After each beat of this node: frees the jobs of nodes that are gone. Returns their kinds. */
  async freeGone(): Promise<readonly string[]> {
    const { nodes, database, nowMs } = this.#options
    const now = nowMs()
    const { leaseMs } = nodes.config
    if (now - this.#beatenAtMs > leaseMs) {
      this.#watchingSinceMs = now
      this.wantCompare()
    }
    this.#beatenAtMs = now
    if (now - this.#watchingSinceMs < leaseMs) return []
    const gone = nodes.gone()
    const known = JSON.stringify([gone, nodes.live().map(({ id }) => id)])
    const isNews = known !== this.#known
    if (!isNews && (gone.length === 0 || now - this.#freedAtMs < freeAgainMs)) return []
    const freed = await freeJobs(database, {
      nodes: gone,
      alsoUnknown: true,
      failure: { code: 'E_JOB_LOST', message: 'The node that ran it ended, or was cut off.' },
    })
    this.#known = known
    this.#freedAtMs = now
    return freed
  }
}
