import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'
import { JobNotFoundError, JobStateError } from '#jobs/errors.ts'
import { afterCommit } from '#jobs/job-queue.ts'
import type { JobQueue } from '#jobs/job-queue.ts'
import { freeNextOf } from '#jobs/outcome.ts'
import type { JobFailure } from '#jobs/outcome.ts'
import { cancelledKept } from '#jobs/retention.ts'

/** The queue as operators see it, and their actions on it. */

export const jobStates = ['waiting', 'blocked', 'running', 'done', 'parked', 'cancelled'] as const
export type JobState = (typeof jobStates)[number]

/** Rows that a count goes through at most. */
const countedMax = 100_000

/** A job without its payload, which may name what the reader may not know of. */
export type JobView = {
  readonly id: string
  readonly kind: string
  readonly state: JobState
  readonly attempt: number
  readonly failures: number
  readonly attemptsMax: number
  readonly createdAt: string
  readonly dueAt: string
  readonly startedAt: string | null
  readonly endedAt: string | null
  /** The name of the node that runs it. */
  readonly node: string | null
  readonly progress: unknown
  readonly failure: JobFailure | null
}

type Row = Omit<JobView, 'progress' | 'failure'> & {
  readonly progress: string | null
  readonly failure: string | null
}

const columns = `
  select j.id, j.kind, j.state, j.attempt, j.failures, j.attempts_max as "attemptsMax",
    j.created_at as "createdAt", j.due_at as "dueAt", j.started_at as "startedAt",
    j.ended_at as "endedAt", coalesce(n.info->>'name', j.node) as node, j.progress, j.failure
  from stoa.job j left join stoa.node n on n.id = j.node`
const one = sql<Row>(`${columns} where j.id = $1`)
const list = sql<Row>(`
  ${columns} where ($1::text is null or j.state = $1) and ($2::text is null or j.kind = $2)
    and ($3::bigint is null or j.id < $3)
  order by j.id desc limit $4`)
const counts = sql<{ kind: string; state: JobState; count: number }>(`
  select kind, state, count(*)::int as count from (
    select kind, state from stoa.job
    where state in ('waiting', 'blocked', 'running', 'parked') limit ${countedMax}) j
  group by kind, state order by kind, state`)
const hasTable = sql<{ there: boolean }>(`select to_regclass('stoa.job') is not null as there`)
const retry = sql<{ kind: string }>(`
  update stoa.job set state = 'waiting', failures = 0, due_at = clock_timestamp(),
    ended_at = null, kept_until = null
  where id = $1 and state in ('parked', 'waiting') returning kind`)
const lock = sql<{ kind: string; state: JobState; order_key: string | null }>(
  `select kind, state, order_key from stoa.job where id = $1 for no key update`,
)
const cancel = sql(`
  update stoa.job set state = 'cancelled', node = null, ended_at = clock_timestamp(),
    kept_until = clock_timestamp() + ${cancelledKept}
  where id = $1`)

/** Ids are numbers; anything else is no job. */
const idPattern = /^[1-9][0-9]{0,17}$/

export type JobFilter = {
  readonly state: JobState | null
  readonly kind: string | null
  /** The last id of the page before. */
  readonly after: string | null
  readonly limit: number
}

/** The newest first. */
export async function listJobs(
  db: Queryable,
  { state, kind, after, limit }: JobFilter,
): Promise<JobView[]> {
  return (await db.run(list, [state, kind, after, limit])).map(viewOf)
}

/** Errors: `JobNotFoundError`. */
export async function readJob(db: Queryable, id: string): Promise<JobView> {
  const [row] = idPattern.test(id) ? await db.run(one, [id]) : []
  if (row === undefined) throw notFound(id)
  return viewOf(row)
}

export type JobCount = { readonly kind: string; readonly state: JobState; readonly count: number }

/** How many of each kind have not ended, or are parked. */
export async function countJobs(db: Queryable): Promise<JobCount[]> {
  return db.run(counts)
}

export type JobTotals = {
  /** Those that wait for an earlier job of their order key are among them. */
  readonly waiting: number
  readonly running: number
  readonly parked: number
}

/** Null: the schema is older than jobs. */
export async function jobTotals(db: Queryable): Promise<JobTotals | null> {
  const [table] = await db.run(hasTable)
  if (table?.there !== true) return null
  const totals = { waiting: 0, running: 0, parked: 0 }
  for (const { state, count } of await countJobs(db)) {
    if (state === 'running' || state === 'parked') totals[state] += count
    else totals.waiting += count
  }
  return totals
}

/** The line among what does not work as it should; none where no job is parked. */
export function parkedProblem({ parked }: JobTotals): string[] {
  if (parked === 0) return []
  const subject = parked === 1 ? 'a job is' : `${parked} jobs are`
  return [`${subject} parked after failing too often: stoa jobs list --state parked says why`]
}

/**
 * Makes a job due now: one that is parked begins anew with its attempts, under its former
 * idempotency key. Errors: `JobNotFoundError`, `JobStateError`.
 */
export async function retryJob(db: Queryable, queue: JobQueue, id: string): Promise<JobView> {
  const { state } = await readJob(db, id)
  try {
    const [row] = await db.run(retry, [id])
    if (row === undefined)
      throw new JobStateError(`A job that is ${state} cannot be retried; parked ones can.`, {
        state,
      })
    afterCommit(db, () => queue.wake(row.kind))
  } catch (error) {
    if (!(error instanceof ConstraintError)) throw error
    throw new JobStateError('A newer job of the same key waits already; cancel this one.', {
      state,
    })
  }
  return readJob(db, id)
}

/**
 * Nothing of the job commits from now on; the node that runs it is asked to end. Errors:
 * `JobNotFoundError`, `JobStateError`.
 */
export async function cancelJob(db: Queryable, queue: JobQueue, id: string): Promise<JobView> {
  await readJob(db, id)
  await db.transaction(async (tx) => {
    const [row] = await tx.run(lock, [id])
    if (row === undefined) throw notFound(id)
    const { kind, state, order_key: orderKey } = row
    if (state === 'done' || state === 'cancelled')
      throw new JobStateError(`The job is ${state} already.`, { state })
    await tx.run(cancel, [id])
    await freeNextOf(tx, { kind, key: null, orderKey })
    afterCommit(tx, () => {
      if (state === 'running') queue.wakeToCancel()
      if (orderKey !== null) queue.wake(kind)
    })
  })
  return readJob(db, id)
}

function notFound(id: string): JobNotFoundError {
  return new JobNotFoundError(
    'There is no job with this id, or it was done and is no longer kept.',
    {
      job: id.slice(0, 40),
    },
  )
}

function viewOf({ progress, failure, ...row }: Row): JobView {
  return {
    ...row,
    progress: progress === null ? null : (JSON.parse(progress) as unknown),
    failure: failure === null ? null : (JSON.parse(failure) as JobFailure),
  }
}
