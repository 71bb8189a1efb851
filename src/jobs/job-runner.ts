import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import type { Database } from '#database/database.ts'
import { claimJobs, freeJobs, setAsideBlocked } from '#jobs/claim.ts'
import type { ClaimedJob } from '#jobs/claim.ts'
import { HintSender, jobsChannel, parseHint } from '#jobs/hints.ts'
import { JobAttempts } from '#jobs/job-attempts.ts'
import type { JobKind } from '#jobs/job-kind.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import { nextJobsTickMs, startJobs, stepJobs } from '#jobs/jobs-core.ts'
import type { JobsEffect, JobsEvent, JobsState } from '#jobs/jobs-core.ts'
import { Ownership } from '#jobs/ownership.ts'
import type { JobHandler } from '#jobs/running-job.ts'
import { ensureRecurring, recurringKey, upkeepHandler } from '#jobs/upkeep.ts'
import type { Clock } from '#lib/clock.ts'
import { FailureLog } from '#lib/failure-log.ts'
import type { Logger } from '#lib/logger.ts'
import { Tasks } from '#lib/tasks.ts'
import type { Nodes } from '#nodes/nodes.ts'

/** A node that knows of no job looks this often, and more often while hints cannot reach it. */
const idleMs = 5_000
const unlinkedIdleMs = 1_000
/** Kinds, each with its handler: more is a mistake. */
const handlersMax = 200

export type JobRunnerOptions = {
  readonly nodes: Nodes
  readonly database: Database
  /** Null: there are no hints, and jobs are found by looking. */
  readonly link: ClusterLink | null
  readonly clock: Clock
  readonly logger: Logger
}

/**
 * The jobs of this node: the machine of jobs-core.ts on a real database. Jobs can be added from the
 * start; `run` begins to claim them.
 */
export class JobRunner implements AsyncDisposable {
  readonly queue: JobQueue
  readonly #options: JobRunnerOptions
  readonly #hints: HintSender
  readonly #attempts: JobAttempts
  readonly #ownership: Ownership
  readonly #handlers = new Map<string, JobHandler<unknown>>()
  /** Claimed, and not started yet. */
  readonly #claimed = new Map<string, ClaimedJob>()
  readonly #tasks = new Tasks()
  readonly #opened = new DisposableStack()
  readonly #failureLog: FailureLog
  #state: JobsState
  #timer: NodeJS.Timeout | null = null
  #isFreeing = false

  constructor(options: JobRunnerOptions) {
    const { link, logger, nodes, database } = options
    this.#options = options
    this.queue = new JobQueue({
      added: (job) => this.#step({ kind: 'added', job }),
      cancelled: () => {
        this.#compareSoon()
        this.#hints.compare()
      },
    })
    this.#hints = new HintSender(link, logger)
    this.#failureLog = new FailureLog(logger, {
      failing: 'jobs could not be claimed; it is tried again',
      recovered: 'jobs are claimed again',
    })
    this.#attempts = new JobAttempts({
      node: nodes.id,
      leaseMs: nodes.config.leaseMs,
      database,
      logger,
      addNext: (tx, kind) => this.#addNext(tx, kind),
      onEnded: ({ id, keys }, { isCertain, dueInMs }) => {
        if (!isCertain) this.#ownership.wantCompare()
        // One that is not in order is looked for at once, and so compared first.
        const ordered = keys.orderKey !== null || !isCertain
        this.#step({ kind: 'ended', id, ordered, dueInMs })
        if (this.#state.mode !== 'running' && dueInMs !== null) this.#hints.wake(keys.kind)
      },
    })
    this.#ownership = new Ownership({
      nodes,
      database,
      nowMs: () => this.#nowMs(),
      running: () => this.#attempts.all,
    })
    this.#state = startJobs(new Map(), this.#nowMs())
  }

  /** The kinds that this node runs: how many at most, and how many at the moment. */
  usage(): readonly { readonly kind: string; readonly running: number; readonly most: number }[] {
    const running = [...this.#state.running.values()]
    return [...this.#state.kinds].map(([kind, most]) => ({
      kind,
      running: running.filter((one) => one === kind).length,
      most,
    }))
  }

  /** Begins to claim jobs of these kinds, each of which has one handler. */
  run(handlers: readonly JobHandler<unknown>[]): void {
    const { database, nodes, link } = this.#options
    const upkeep = upkeepHandler(database, () => this.#kinds())
    for (const handler of [...handlers, upkeep]) {
      const { name } = handler.kind
      if (this.#handlers.has(name) || this.#handlers.size >= handlersMax)
        throw new Error(`The kind ${name} has two handlers, or there are too many kinds.`)
      this.#handlers.set(name, handler)
    }
    this.#opened.use(nodes.subscribe(({ kind }) => kind === 'beaten' && this.#freeGone()))
    if (link !== null) this.#opened.use(link.listen(jobsChannel, (text) => this.#receive(text)))
    const kinds = new Map(this.#kinds().map(({ name, concurrency }) => [name, concurrency]))
    this.#state = startJobs(kinds, this.#nowMs())
    this.#inBackground(async () => {
      await ensureRecurring(database, this.#kinds())
      this.#step({ kind: 'freed' })
    })
    this.#step({ kind: 'tick' })
  }

  /** Claims nothing more. Resolves when what runs has ended, at the latest after `timeoutMs`. */
  async drain(timeoutMs: number): Promise<void> {
    this.#step({ kind: 'drain' })
    await this.#attempts.ended(timeoutMs)
  }

  /** Aborts what runs, and gives back what does not end, so that other nodes take it at once. */
  async stop(): Promise<void> {
    const { database, nodes } = this.#options
    const hasRun = this.#handlers.size > 0 && this.#state.mode !== 'stopped'
    this.#opened.dispose()
    this.#step({ kind: 'stop' })
    await this.#attempts.stop()
    await this.#tasks.ended()
    if (hasRun) {
      try {
        this.#hintAll(await freeJobs(database, { nodes: [nodes.id] }))
      } catch (error) {
        this.#failureLog.failure(error)
      }
    }
    await this.#hints.stop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  #nowMs(): number {
    return this.#options.clock.monotonicMs()
  }

  #kinds(): readonly JobKind<unknown>[] {
    return [...this.#handlers.values()].map(({ kind }) => kind)
  }

  #step(event: JobsEvent): void {
    const { state, effects } = stepJobs(this.#state, event, this.#nowMs())
    this.#state = state
    for (const effect of effects) this.#perform(effect)
    if (this.#timer !== null) clearTimeout(this.#timer)
    const at = nextJobsTickMs(this.#state)
    this.#timer =
      at === Number.POSITIVE_INFINITY
        ? null
        : setTimeout(() => this.#step({ kind: 'tick' }), Math.max(0, at - this.#nowMs()))
  }

  #perform(effect: JobsEffect): void {
    const { database, nodes } = this.#options
    switch (effect.kind) {
      case 'look':
        this.#tasks.add(this.#look(effect))
        break
      case 'start':
        for (const id of effect.ids) this.#start(id)
        break
      case 'giveBack':
        for (const id of effect.ids) this.#claimed.delete(id)
        this.#inBackground(async () => {
          const except = this.#attempts.all.map(({ id }) => id)
          this.#hintAll(await freeJobs(database, { nodes: [nodes.id], except }))
        })
        break
      case 'setAside':
        this.#inBackground(() => setAsideBlocked(database, effect.kinds))
        break
      case 'hint':
        this.#hints.wake(effect.job)
    }
  }

  async #look({ id, free }: Extract<JobsEffect, { kind: 'look' }>): Promise<void> {
    const { database, nodes } = this.#options
    try {
      await this.#ownership.compare()
      const { claimed, next } = await claimJobs(database, nodes.id, free)
      for (const job of claimed) this.#claimed.set(job.id, job)
      const rest = this.#hints.connected ? idleMs : unlinkedIdleMs
      this.#step({ kind: 'looked', id, claimed, next, idleMs: rest })
      this.#failureLog.success()
    } catch (error) {
      // The claim may have been committed though its response was lost.
      this.#ownership.wantCompare()
      this.#failureLog.failure(error)
      this.#step({ kind: 'lookFailed', id })
    }
  }

  #start(id: string): void {
    const claimed = this.#claimed.get(id)
    this.#claimed.delete(id)
    const handler = claimed === undefined ? undefined : this.#handlers.get(claimed.kind)
    if (claimed === undefined || handler === undefined)
      throw new Error('A job was started that was not claimed, or of a kind without handler.')
    this.#attempts.start(claimed, handler)
  }

  #receive(text: string): void {
    const hint = parseHint(text)
    if (hint?.kind === 'wake') for (const job of hint.jobs) this.#step({ kind: 'hint', job })
    if (hint?.kind === 'compare') this.#compareSoon()
  }

  #compareSoon(): void {
    if (this.#attempts.all.length === 0) return
    this.#ownership.wantCompare()
    this.#step({ kind: 'freed' })
  }

  #freeGone(): void {
    if (this.#isFreeing) return
    this.#isFreeing = true
    this.#inBackground(async () => {
      try {
        const kinds = await this.#ownership.freeGone()
        if (kinds.length > 0) this.#step({ kind: 'freed' })
        this.#hintAll(kinds)
      } finally {
        this.#isFreeing = false
      }
    })
  }

  #hintAll(kinds: readonly string[]): void {
    for (const kind of kinds) this.#hints.wake(kind)
  }

  async #addNext(tx: Parameters<JobQueue['add']>[0], name: string): Promise<void> {
    const kind = this.#handlers.get(name)?.kind
    const everyMs = kind?.everyMs ?? null
    if (kind === undefined || everyMs === null) return
    await this.queue.add(tx, kind, null, { key: recurringKey, delayMs: everyMs })
  }

  /** For what is done again anyhow: a failure is logged. */
  #inBackground(work: () => Promise<unknown>): void {
    this.#tasks.add(
      work().then(
        () => undefined,
        (error: unknown) => this.#failureLog.failure(error),
      ),
    )
  }
}
