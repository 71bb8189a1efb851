import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'
import { parkedKept } from '#jobs/retention.ts'

/**
 * How an attempt ends. Each statement finds the job only where this attempt still owns it: the
 * fence of SPEC.md. One whose node was taken for dead finds nothing, however late it comes.
 */
export type Fence = {
  readonly id: string
  readonly attempt: number
  readonly node: string
  /** A transaction that stands still for so long is ended by the server, and its lock with it. */
  readonly leaseMs: number
}

export type JobKeys = {
  readonly kind: string
  readonly key: string | null
  readonly orderKey: string | null
}

/** `superseded`: a newer job of its key waits, so this one is gone. `lost`: not ours any more. */
export type Outcome = 'waiting' | 'parked' | 'superseded' | 'lost'

export type JobFailure = { readonly code: string; readonly message: string }

const supersededMax = 5
const owned = `id = $1 and attempt = $2 and node = $3 and state = 'running'`
const bounded = `set_config('idle_in_transaction_session_timeout', $4, true) as bounded`
type Bounded = { readonly bounded: string }

const hold = sql<Bounded>(`select ${bounded} from stoa.job where ${owned} for no key update`)
const remove = sql<Bounded>(`delete from stoa.job where ${owned} returning ${bounded}`)
const keep = sql<Bounded>(`
  update stoa.job set state = 'done', node = null, failure = null, ended_at = clock_timestamp(),
    kept_until = clock_timestamp() + $5 * interval '1 millisecond'
  where ${owned} returning ${bounded}`)
const saveProgress = sql<{ id: string }>(
  `update stoa.job set progress = $4 where ${owned} returning id`,
)
const dropSuperseded = sql<{ id: string }>(`
  delete from stoa.job j where ${owned} and key is not null and exists (
    select from stoa.job w where w.kind = j.kind and w.key = j.key and w.key is not null
      and w.state in ('waiting', 'blocked'))
  returning id`)
const putBack = sql<{ state: 'waiting' | 'parked' }>(`
  update stoa.job set node = null, failures = failures + $4,
    due_at = clock_timestamp() + $5 * interval '1 millisecond',
    failure = coalesce($6::json, failure),
    state = case when $7 or failures + $4 >= attempts_max then 'parked' else 'waiting' end,
    ended_at = case when $7 or failures + $4 >= attempts_max then clock_timestamp() end,
    kept_until = case when $7 or failures + $4 >= attempts_max
      then clock_timestamp() + ${parkedKept} end
  where ${owned} returning state`)
const freeFirst = sql(`
  update stoa.job set state = 'waiting' where state = 'blocked' and id = (
    select id from stoa.job where kind = $1 and order_key = $2 and order_key is not null
      and state in ('waiting', 'blocked', 'running') order by id limit 1)`)

function identity({ id, attempt, node }: Fence): [string, number, string] {
  return [id, attempt, node]
}

/** Locks the job until the transaction ends. False: it is lost. */
export async function holdJob(tx: Queryable, fence: Fence): Promise<boolean> {
  return (await tx.run(hold, [...identity(fence), String(fence.leaseMs)])).length > 0
}

/** Ends the job as done, and holds it as `holdJob` does. False: it is lost. */
export async function completeJob(tx: Queryable, fence: Fence, keepMs: number): Promise<boolean> {
  const values = [...identity(fence), String(fence.leaseMs)]
  const rows = keepMs > 0 ? tx.run(keep, [...values, keepMs]) : tx.run(remove, values)
  return (await rows).length > 0
}

/** False: the job is lost. `text`: JSON. */
export async function writeProgress(tx: Queryable, fence: Fence, text: string): Promise<boolean> {
  return (await tx.run(saveProgress, [...identity(fence), text])).length > 0
}

/**
 * After a job with an order key has left: the next one may run. In the transaction that ended it,
 * and by a statement of its own, which sees what was set aside until the job was locked.
 */
export async function freeNextOf(tx: Queryable, { kind, orderKey }: JobKeys): Promise<void> {
  if (orderKey !== null) await tx.run(freeFirst, [kind, orderKey])
}

export type PutBack = {
  readonly afterMs: number
  /** Absent: nothing has failed. */
  readonly failure?: JobFailure
  /** No further attempt would help. */
  readonly park: boolean
}

/** Puts a job back, to be attempted again after a while, or parks it. */
export async function putBackJob(
  database: Queryable,
  fence: Fence,
  keys: JobKeys,
  { afterMs, failure, park }: PutBack,
): Promise<Outcome> {
  const values = [
    ...identity(fence),
    failure === undefined ? 0 : 1,
    afterMs,
    failure === undefined ? null : JSON.stringify(failure),
    park,
  ]
  const leave = async (tx: Queryable): Promise<Outcome> => {
    if (keys.key !== null && (await tx.run(dropSuperseded, identity(fence))).length > 0)
      return 'superseded'
    return (await tx.run(putBack, values))[0]?.state ?? 'lost'
  }
  if (keys.key === null && keys.orderKey === null) return leave(database)
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await database.transaction(async (tx) => {
        if (!(await holdJob(tx, fence))) return 'lost'
        const outcome = await leave(tx)
        if (outcome !== 'waiting') await freeNextOf(tx, keys)
        return outcome
      })
    } catch (error) {
      // A newer job of the key was added since: it takes the place of this one.
      if (!(error instanceof ConstraintError) || attempt >= supersededMax) throw error
    }
  }
}
