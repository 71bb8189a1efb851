import type { Database, Queryable } from '#database/database.ts'
import type { ClaimedJob } from '#jobs/claim.ts'
import { JobLostError, JobTooLargeError } from '#jobs/errors.ts'
import type { JobKind } from '#jobs/job-kind.ts'
import { completeJob, freeNextOf, holdJob, putBackJob, writeProgress } from '#jobs/outcome.ts'
import type { Fence, JobKeys } from '#jobs/outcome.ts'

/** Characters of progress as JSON. */
const progressMax = 4 * 1024

/** One attempt at a job, as its handler sees it. */
export type Job<Payload> = {
  readonly id: string
  readonly payload: Payload
  /** Claims so far, this one included: it grows with each, and is the fence. */
  readonly attempt: number
  /** Failed attempts before this one. */
  readonly failures: number
  /** The same at each attempt: a receiver outside the database knows a repeat by it. */
  readonly idempotencyKey: string
  /** As the last `step` or `report` left it; null at first. */
  readonly progress: unknown
  /** Aborts when the attempt is to end: it took too long, lost the job, or the node stops. */
  readonly signal: AbortSignal

  /**
   * Runs `work` in a transaction that completes the job as well: both or neither. Nothing may
   * follow but the end of the handler. Errors: `JobLostError`, and those of `work`.
   */
  commit<T>(work: (tx: Queryable) => Promise<T>): Promise<T>

  /**
   * The same, and the job goes on: for work in several transactions. `progress` is kept with it, so
   * that a further attempt can go on from there.
   */
  step<T>(work: (tx: Queryable) => Promise<T>, progress?: unknown): Promise<T>

  /** Shows how far it is. Errors: `JobLostError`, `JobTooLargeError`. */
  report(progress: unknown): Promise<void>

  /**
   * Puts the job back for so long, without counting a failure. Nothing may follow but the end of
   * the handler.
   */
  postpone(delayMs: number): Promise<void>
}

/** Does the jobs of one kind: an attempt is over when `run` has ended, and done if it returned. */
export type JobHandler<Payload> = {
  readonly kind: JobKind<Payload>
  run(job: Job<Payload>): Promise<void>
}

export type RunningJobOptions = {
  readonly claimed: ClaimedJob
  readonly kind: JobKind<unknown>
  readonly node: string
  readonly leaseMs: number
  readonly database: Database
  /** In the transaction that ends a job of a recurring kind: adds the next one. */
  readonly addNext: (tx: Queryable) => Promise<void>
}

/** An attempt of this node. */
export class RunningJob implements Job<unknown> {
  readonly id: string
  readonly payload: unknown
  readonly attempt: number
  readonly failures: number
  readonly idempotencyKey: string
  readonly signal: AbortSignal
  readonly fence: Fence
  readonly keys: JobKeys
  readonly #options: RunningJobOptions
  readonly #aborting = new AbortController()
  #progress: unknown
  #over = false
  #dueInMs: number | null = null

  constructor(options: RunningJobOptions) {
    const { claimed, node, leaseMs } = options
    this.#options = options
    this.id = claimed.id
    this.attempt = claimed.attempt
    this.failures = claimed.failures
    this.idempotencyKey = claimed.idempotencyKey
    this.payload = JSON.parse(claimed.payload) as unknown
    this.#progress = claimed.progress === null ? null : (JSON.parse(claimed.progress) as unknown)
    this.signal = this.#aborting.signal
    this.fence = { id: claimed.id, attempt: claimed.attempt, node, leaseMs }
    this.keys = { kind: claimed.kind, key: claimed.key, orderKey: claimed.orderKey }
  }

  get progress(): unknown {
    return this.#progress
  }

  /** The handler has completed it or put it back. */
  get isOver(): boolean {
    return this.#over
  }

  /** Set after `postpone`. */
  get dueInMs(): number | null {
    return this.#dueInMs
  }

  abort(reason: Error): void {
    this.#aborting.abort(reason)
  }

  async commit<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    this.#requireOpen()
    const { database, kind } = this.#options
    const result = await database.transaction(async (tx) => {
      if (!(await completeJob(tx, this.fence, kind.keepMs))) throw this.#lost()
      const result = await work(tx)
      await this.#free(tx)
      return result
    })
    this.#over = true
    return result
  }

  /** Completes a job whose handler has returned. */
  async complete(): Promise<void> {
    const { database, kind } = this.#options
    if (this.keys.orderKey !== null || kind.everyMs !== null)
      return this.commit(async () => undefined)
    if (!(await completeJob(database, this.fence, kind.keepMs))) throw this.#lost()
    this.#over = true
  }

  async step<T>(work: (tx: Queryable) => Promise<T>, progress?: unknown): Promise<T> {
    this.#requireOpen()
    const text = progress === undefined ? null : progressText(progress)
    const result = await this.#options.database.transaction(async (tx) => {
      const held = text === null ? await holdJob(tx, this.fence) : await this.#holdWith(tx, text)
      if (!held) throw this.#lost()
      return work(tx)
    })
    if (progress !== undefined) this.#progress = progress
    return result
  }

  async report(progress: unknown): Promise<void> {
    this.#requireOpen()
    const text = progressText(progress)
    if (!(await writeProgress(this.#options.database, this.fence, text))) throw this.#lost()
    this.#progress = progress
  }

  async postpone(delayMs: number): Promise<void> {
    this.#requireOpen()
    const { database } = this.#options
    const how = { afterMs: delayMs, park: false }
    if ((await putBackJob(database, this.fence, this.keys, how)) === 'lost') throw this.#lost()
    this.#over = true
    this.#dueInMs = delayMs
  }

  async #holdWith(tx: Queryable, text: string): Promise<boolean> {
    return (await holdJob(tx, this.fence)) && writeProgress(tx, this.fence, text)
  }

  async #free(tx: Queryable): Promise<void> {
    await freeNextOf(tx, this.keys)
    if (this.#options.kind.everyMs !== null) await this.#options.addNext(tx)
  }

  #requireOpen(): void {
    if (this.#over) throw new Error('The job has ended; nothing may follow in its handler.')
  }

  #lost(): JobLostError {
    const error = new JobLostError(
      'Another attempt owns the job, or it has ended or was cancelled.',
      {
        job: this.id,
        attempt: this.attempt,
      },
    )
    this.abort(error)
    return error
  }
}

function progressText(progress: unknown): string {
  const text = JSON.stringify(progress ?? null)
  if (text.length <= progressMax) return text
  throw new JobTooLargeError(`The progress of a job has at most ${progressMax} characters.`, {
    limit: progressMax,
  })
}
