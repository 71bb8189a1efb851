import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { JobTooLargeError } from '#jobs/errors.ts'
import type { JobKind } from '#jobs/job-kind.ts'

/** Characters of a payload as JSON: a job names what it is about, and reads that anew. */
const payloadMax = 64 * 1024
const keyMax = 200
/** Jobs added by one statement. */
const addedMax = 10_000

const priorities = { high: 0, normal: 1, low: 2 } as const

export type JobOptions = {
  /**
   * Jobs of a kind with the same order key run one at a time, in the order in which they were
   * added.
   */
  readonly orderKey?: string
  /**
   * At most one job of a kind waits with it: this one replaces the payload of the one that waits,
   * which keeps the earlier of the two due times and begins anew with its attempts. While one runs,
   * one more may wait. It is the order key too, unless another one is given. The row of the job
   * that waits stays locked until the transaction ends.
   */
  readonly key?: string
  /** Within the kind. Default `normal`. */
  readonly priority?: keyof typeof priorities
  /** Not before this time, by the database's clock. Default: at once. */
  readonly dueAt?: string
  /** Or so long from now on, by the same clock. */
  readonly delayMs?: number
}

export type NewJob<Payload> = JobOptions & { readonly payload: Payload }

/**
 * The arrays of one statement, one element per job. A plain insert in the caller's transaction:
 * nothing here sends a notification, which would hold a lock of all writers through the commit.
 */
const add = sql(`
  insert into stoa.job as j (kind, attempts_max, payload, key, order_key, priority, due_at)
  select $1, $2, n.payload, n.key, n.order_key, n.priority,
    coalesce(n.due_at, clock_timestamp() + n.delay_ms * interval '1 millisecond')
  from unnest($3::json[], $4::text[], $5::text[], $6::smallint[], $7::timestamptz[], $8::float8[])
    with ordinality n (payload, key, order_key, priority, due_at, delay_ms, place)
  order by n.place
  on conflict (kind, key) where key is not null and state in ('waiting', 'blocked') do update
  set payload = excluded.payload, priority = least(j.priority, excluded.priority),
    due_at = least(j.due_at, excluded.due_at), idempotency_key = excluded.idempotency_key,
    failures = 0, failure = null, progress = null`)

/** Both are called after a commit. A call that is lost costs some seconds, never a job. */
export type QueueListener = {
  /** Jobs of the kind wait. */
  added(kind: string): void
  /** A job that runs was cancelled. */
  cancelled(): void
}

/** One without a key, as most are. */
const addOne = sql(`
  insert into stoa.job (kind, attempts_max, payload, order_key, priority, due_at)
  values ($1, $2, $3, $4, $5,
    coalesce($6::timestamptz, clock_timestamp() + $7::float8 * interval '1 millisecond'))`)

/** Adds jobs. Without a listener nodes find them by looking. */
export class JobQueue {
  readonly #listener: QueueListener | null

  constructor(listener: QueueListener | null) {
    this.#listener = listener
  }

  /** Adds one job in the transaction of `tx`. Errors: `JobTooLargeError`. */
  async add<Payload>(
    tx: Queryable,
    kind: JobKind<Payload>,
    payload: Payload,
    options: JobOptions = {},
  ): Promise<void> {
    const { key, orderKey, priority = 'normal', dueAt, delayMs = 0 } = options
    if (key !== undefined) return this.addAll(tx, kind, [{ ...options, payload }])
    await tx.run(addOne, [
      kind.name,
      kind.attemptsMax,
      payloadText(kind.name, payload),
      checkedKey(orderKey),
      priorities[priority],
      dueAt ?? null,
      delayMs,
    ])
    afterCommit(tx, () => this.wake(kind.name))
  }

  /** The same with several in one statement. No two of them may have the same `key`. */
  async addAll<Payload>(
    tx: Queryable,
    kind: JobKind<Payload>,
    jobs: readonly NewJob<Payload>[],
  ): Promise<void> {
    if (jobs.length === 0) return
    if (jobs.length > addedMax)
      throw new JobTooLargeError(`At most ${addedMax} jobs are added at once.`, { limit: addedMax })
    // In one order, so that two transactions that replace the same jobs do not wait for each other.
    const keyed = jobs.some(({ key }) => key !== undefined)
    const ordered = keyed ? jobs.toSorted(byKey) : jobs
    await tx.run(add, [
      kind.name,
      kind.attemptsMax,
      ordered.map(({ payload }) => payloadText(kind.name, payload)),
      ordered.map(({ key }) => checkedKey(key)),
      ordered.map(({ key, orderKey }) => checkedKey(orderKey ?? key)),
      ordered.map(({ priority = 'normal' }) => priorities[priority]),
      ordered.map(({ dueAt }) => dueAt ?? null),
      ordered.map(({ delayMs = 0 }) => delayMs),
    ])
    afterCommit(tx, () => this.wake(kind.name))
  }

  /**
   * For jobs that a statement of the caller's own has added: after its commit, asks the nodes to
   * look.
   */
  wake(kind: string): void {
    this.#listener?.added(kind)
  }

  /** After the commit that cancelled a job which runs: asks the nodes to compare theirs. */
  wakeToCancel(): void {
    this.#listener?.cancelled()
  }
}

export function afterCommit(tx: Queryable, callback: () => void): void {
  if (tx.afterCommit === undefined) callback()
  else tx.afterCommit(callback)
}

function byKey<Payload>({ key: one = '' }: NewJob<Payload>, { key: other = '' }: NewJob<Payload>) {
  if (one === other) return 0
  return one < other ? -1 : 1
}

function payloadText(kind: string, payload: unknown): string {
  const text = JSON.stringify(payload ?? null)
  if (text.length <= payloadMax) return text
  throw new JobTooLargeError(
    `The payload of a job has at most ${payloadMax} characters; name what it is about instead.`,
    { kind, limit: payloadMax },
  )
}

function checkedKey(key: string | undefined): string | null {
  if (key === undefined) return null
  if (key.length <= keyMax) return key
  throw new JobTooLargeError(`A key of a job has at most ${keyMax} characters.`, { limit: keyMax })
}
