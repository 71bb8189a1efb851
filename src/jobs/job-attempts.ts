import type { Database, Queryable } from '#database/database.ts'
import type { ClaimedJob } from '#jobs/claim.ts'
import { JobLostError, JobRefusedError, JobTimeoutError } from '#jobs/errors.ts'
import { putBackJob } from '#jobs/outcome.ts'
import type { JobFailure } from '#jobs/outcome.ts'
import { RunningJob } from '#jobs/running-job.ts'
import type { JobHandler } from '#jobs/running-job.ts'
import { backoffMs } from '#lib/backoff.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { Tasks } from '#lib/tasks.ts'
import { withTimeout } from '#lib/timeout.ts'

/** A handler that does not end when its signal aborts keeps its place for so long. */
const abortGraceMs = 5_000
/** Half of each pause is random: jobs that failed together do not come back together. */
const jitter = 0.5

export type JobAttemptsOptions = {
  readonly node: string
  readonly leaseMs: number
  readonly database: Database
  readonly logger: Logger
  /** In the transaction that ends a job of a recurring kind: adds the next one. */
  readonly addNext: (tx: Queryable, kind: string) => Promise<void>
  readonly onEnded: (job: RunningJob, end: AttemptEnd) => void
}

export type AttemptEnd = {
  /** The database has the outcome. */
  readonly isCertain: boolean
  /** It was put back, and is due again after so long. */
  readonly dueInMs: number | null
}

/** The jobs that run on this node. Each ends in the database as it ended here. */
export class JobAttempts {
  readonly #options: JobAttemptsOptions
  readonly #jobs = new Map<string, RunningJob>()
  readonly #tasks = new Tasks()
  #isStopping = false

  constructor(options: JobAttemptsOptions) {
    this.#options = options
  }

  get all(): readonly RunningJob[] {
    return [...this.#jobs.values()]
  }

  start(claimed: ClaimedJob, handler: JobHandler<unknown>): void {
    const { node, leaseMs, database, addNext } = this.#options
    const { kind } = handler
    // A crash of the database took back the claim of an attempt that still runs here.
    this.#jobs.get(claimed.id)?.abort(lost(claimed.id))
    const job = new RunningJob({
      claimed,
      kind,
      node,
      leaseMs,
      database,
      addNext: (tx) => addNext(tx, kind.name),
    })
    this.#jobs.set(job.id, job)
    this.#tasks.add(
      this.#run(job, handler).then((end) => {
        if (this.#jobs.get(job.id) === job) this.#jobs.delete(job.id)
        this.#options.onEnded(job, end)
      }),
    )
  }

  /** Resolves when all have ended, at the latest after so long. */
  async ended(timeoutMs: number): Promise<void> {
    await withTimeout(this.#tasks.ended(), timeoutMs)
  }

  /** Aborts all; those that end go back to the queue, without counting as failed. */
  async stop(): Promise<void> {
    this.#isStopping = true
    for (const job of this.all) job.abort(new Error('The node stops.'))
    await this.ended(abortGraceMs)
  }

  async #run(job: RunningJob, handler: JobHandler<unknown>): Promise<AttemptEnd> {
    const { kind } = handler
    const timeout = new JobTimeoutError(
      `The attempt took longer than the ${kind.timeoutMs} ms that jobs of this kind may take.`,
      { job: job.id, kind: kind.name },
    )
    const timer = setTimeout(() => job.abort(timeout), kind.timeoutMs)
    try {
      await this.#handle(job, handler)
      if (!job.isOver) await job.complete()
      return { isCertain: true, dueInMs: job.dueInMs }
    } catch (error) {
      return await this.#failed(job, handler, error)
    } finally {
      clearTimeout(timer)
    }
  }

  /** Rejects with the reason of the signal where the handler does not end a while after it. */
  async #handle(job: RunningJob, handler: JobHandler<unknown>): Promise<void> {
    const tooLate = new AbortController()
    let grace: NodeJS.Timeout | null = null
    const aborted = (): void => {
      grace = setTimeout(() => tooLate.abort(), abortGraceMs)
    }
    job.signal.addEventListener('abort', aborted, { once: true })
    const { promise: late, reject } = Promise.withResolvers<never>()
    tooLate.signal.addEventListener('abort', () => reject(job.signal.reason as Error), {
      once: true,
    })
    try {
      await Promise.race([handler.run(job), late])
    } finally {
      job.signal.removeEventListener('abort', aborted)
      if (grace !== null) clearTimeout(grace)
    }
  }

  async #failed(
    job: RunningJob,
    { kind }: JobHandler<unknown>,
    error: unknown,
  ): Promise<AttemptEnd> {
    const { logger, database } = this.#options
    // A handler throws because its signal aborted: the reason for that says more.
    const cause: unknown = job.signal.aborted ? job.signal.reason : error
    const facts = { err: cause, job: job.id, kind: kind.name, attempt: job.attempt }
    if (job.isOver) {
      logger.warn(facts, 'a handler failed after it had ended its job')
      return { isCertain: true, dueInMs: job.dueInMs }
    }
    if (error instanceof JobLostError || cause instanceof JobLostError) {
      logger.info(facts, 'a job was lost to another attempt, or cancelled')
      return { isCertain: true, dueInMs: null }
    }
    const afterMs = this.#isStopping ? 0 : backoffMs(job.failures, { ...kind.backoff, jitter })
    try {
      const outcome = await putBackJob(database, job.fence, job.keys, {
        afterMs,
        ...(this.#isStopping ? {} : { failure: failureOf(cause) }),
        park: cause instanceof JobRefusedError,
      })
      if (outcome === 'parked') logger.error(facts, 'a job was parked: stoa jobs retry')
      else logger.warn({ ...facts, outcome, afterMs }, 'an attempt at a job failed')
      return { isCertain: true, dueInMs: outcome === 'waiting' ? afterMs : null }
    } catch (unrecorded) {
      logger.warn(
        { ...facts, unrecorded },
        'the end of a job could not be recorded; it is given back',
      )
      return { isCertain: false, dueInMs: null }
    }
  }
}

function lost(job: string): JobLostError {
  return new JobLostError('Another attempt owns the job.', { job })
}

/** The reason that the queue shows. An error that is not ours may name content: see the log. */
function failureOf(error: unknown): JobFailure {
  return error instanceof StoaError
    ? { code: error.code, message: error.message }
    : { code: 'E_INTERNAL', message: 'It failed unexpectedly; the log of the node says why.' }
}
