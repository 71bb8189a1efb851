import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { JobFailure } from '#jobs/outcome.ts'
import { parkedKept } from '#jobs/retention.ts'

/**
 * How a node comes by jobs, and loses them: each function is one statement, exact by itself, that
 * may run on all nodes at once.
 */

/** Jobs set aside behind an earlier one by one statement. */
const blockedMax = 200

/** A job that this node has claimed. */
export type ClaimedJob = {
  readonly id: string
  readonly kind: string
  readonly attempt: number
  readonly failures: number
  readonly orderKey: string | null
  readonly key: string | null
  readonly payload: string
  readonly progress: string | null
  readonly idempotencyKey: string
}

/** `dueInMs`: of the next job of the kind that was left; 0 or less where it is due already. */
export type NextJob = { readonly kind: string; readonly dueInMs: number }

type ClaimRow =
  | ({ readonly what: 'claimed' } & ClaimedJob)
  | { readonly what: 'next'; readonly kind: string; readonly dueInMs: number }

/**
 * Of each kind so many as are free, the most urgent first. A job with an order key is passed over
 * while an earlier one of the key has not ended or any other runs; where two nodes see different
 * moments, the unique index `job_order_running` refuses the second.
 *
 * One probe of the index per kind and priority, so that jobs that are due later cost nothing.
 *
 * The commit does not wait for the disk: a claim that a crash of the server takes back leaves a job
 * that waits, and an attempt that owns nothing any more.
 */
const claim = sql<ClaimRow>(`
  with wanted as materialized (
    select w.kind, w.free from unnest($2::text[], $3::int[]) w (kind, free),
      set_config('synchronous_commit', 'off', true)
  ), chosen as materialized (
    select c.id from wanted w cross join lateral (
      select d.id from unnest(array[0, 1, 2]::smallint[]) p (priority) cross join lateral (
        select j.id from stoa.job j
        where j.kind = w.kind and j.state = 'waiting' and j.priority = p.priority
          and j.due_at <= statement_timestamp()
          and (j.order_key is null or not exists (
            select from stoa.job b where b.kind = j.kind and b.order_key = j.order_key
              and b.order_key is not null and b.id < j.id
              and b.state in ('waiting', 'blocked', 'running')
          ) and not exists (
            select from stoa.job r where r.kind = j.kind and r.order_key = j.order_key
              and r.order_key is not null and r.state = 'running'
          ))
        order by j.due_at, j.id limit w.free for no key update of j skip locked
      ) d limit w.free
    ) c
  ), claimed as (
    update stoa.job j
    set state = 'running', node = $1, attempt = j.attempt + 1, started_at = clock_timestamp()
    from chosen where j.id = chosen.id
    returning j.id, j.kind, j.attempt, j.failures, j.order_key, j.key, j.payload, j.progress,
      j.idempotency_key
  ), next as (
    select w.kind, min(n.due_at) as due_at from wanted w
    cross join unnest(array[0, 1, 2]::smallint[]) p (priority) cross join lateral (
      select j.due_at from stoa.job j
      where j.kind = w.kind and j.state = 'waiting' and j.priority = p.priority
        and not exists (select from chosen where chosen.id = j.id)
      order by j.due_at, j.id limit 1
    ) n group by w.kind
  )
  select 'claimed' as what, id, kind, attempt, failures, order_key as "orderKey", key, payload,
    progress, idempotency_key as "idempotencyKey", null::float8 as "dueInMs" from claimed
  union all
  select 'next', null, kind, null, null, null, null, null, null, null,
    extract(epoch from due_at - clock_timestamp())::float8 * 1000 from next`)

export async function claimJobs(
  database: Queryable,
  node: string,
  free: ReadonlyMap<string, number>,
): Promise<{ readonly claimed: readonly ClaimedJob[]; readonly next: readonly NextJob[] }> {
  const rows = await database.run(claim, [node, [...free.keys()], [...free.values()]])
  return {
    // In the order in which they were added; the statement returns them in none.
    claimed: rows
      .filter((row) => row.what === 'claimed')
      .sort((one, other) => Number(one.id) - Number(other.id)),
    next: rows.filter((row) => row.what === 'next'),
  }
}

/**
 * Sets due jobs aside that wait for an earlier one of their order key, so that no claim passes over
 * them again. The earlier one is locked for it: the transaction that ends it comes before, and then
 * it is not found here, or after, and then that transaction finds what it has to set free.
 */
const setAside = sql<{ id: string }>(`
  with behind as materialized (
    select j.id, b.id as before from stoa.job j cross join lateral (
      select b.id from stoa.job b where b.kind = j.kind and b.order_key = j.order_key
        and b.order_key is not null and b.state in ('waiting', 'blocked', 'running') and b.id < j.id
      order by b.id desc limit 1
    ) b
    where j.kind = any($1::text[]) and j.state = 'waiting' and j.order_key is not null
      and j.due_at <= statement_timestamp()
    order by j.due_at, j.id limit ${blockedMax} for no key update of j skip locked
  ), held as materialized (
    select behind.id from behind join stoa.job b on b.id = behind.before
    where b.state in ('waiting', 'blocked', 'running') for share of b skip locked
  )
  update stoa.job j set state = 'blocked' from held where j.id = held.id and j.state = 'waiting'
  returning j.id`)

/** Returns how many there were. */
export async function setAsideBlocked(
  database: Queryable,
  kinds: readonly string[],
): Promise<number> {
  return (await database.run(setAside, [kinds])).length
}

/**
 * Frees the first job of each order key that is blocked behind nothing. The transaction that ends a
 * job frees the next one; this is for rows that were deleted by hand, or ended by
 * `free`.
 */
const unblock = sql<{ id: string }>(`
  update stoa.job j set state = 'waiting'
  where j.state = 'blocked' and not exists (
    select from stoa.job b where b.kind = j.kind and b.order_key = j.order_key
      and b.order_key is not null and b.state in ('waiting', 'blocked', 'running') and b.id < j.id)
  returning j.id`)

export async function unblockFirst(database: Queryable): Promise<number> {
  return (await database.run(unblock)).length
}

/**
 * Gives back what nodes run: one with a key is dropped where a newer one waits. A row that is
 * locked belongs to an attempt that is about to commit, and is left alone.
 */
const free = sql<{ kind: string; state: string }>(`
  with mine as materialized (
    select j.id, j.kind, j.key from stoa.job j
    where j.state = 'running' and not j.id = any($2::bigint[])
      and (j.node = any($1::text[])
        or ($3 and not exists (select from stoa.node n where n.id = j.node)))
    for no key update of j skip locked
  ), superseded as (
    delete from stoa.job j using mine m
    where j.id = m.id and m.key is not null and exists (
      select from stoa.job w where w.kind = m.kind and w.key = m.key and w.key is not null
        and w.state in ('waiting', 'blocked'))
    returning j.id
  )
  update stoa.job j set node = null, failures = j.failures + $4,
    state = case when j.failures + $4 >= j.attempts_max then 'parked' else 'waiting' end,
    failure = coalesce($5::json, j.failure),
    ended_at = case when j.failures + $4 >= j.attempts_max then clock_timestamp() end,
    kept_until = case when j.failures + $4 >= j.attempts_max
      then clock_timestamp() + ${parkedKept} end
  from mine m where j.id = m.id and not exists (select from superseded s where s.id = j.id)
  returning j.kind, j.state`)

export type FreeOptions = {
  readonly nodes: readonly string[]
  /** Ids of jobs that stay with their node. */
  readonly except?: readonly string[]
  /** Those of nodes that have no row any more, too. */
  readonly alsoUnknown?: boolean
  /** Counts as a failed attempt, with this reason: what ends its node is parked in the end. */
  readonly failure?: JobFailure
}

/** Returns the kinds of the jobs that are free now. */
export async function freeJobs(
  database: Queryable,
  { nodes, except = [], alsoUnknown = false, failure }: FreeOptions,
): Promise<readonly string[]> {
  const rows = await database.run(free, [
    nodes,
    except,
    alsoUnknown,
    failure === undefined ? 0 : 1,
    failure === undefined ? null : JSON.stringify(failure),
  ])
  if (rows.length > 0) await unblockFirst(database)
  return [...new Set(rows.map(({ kind }) => kind))]
}

const running = sql<{ id: string; attempt: number }>(
  `select id, attempt from stoa.job where state = 'running' and node = $1`,
)

/** The jobs that the database knows this node to run, with their attempts. */
export async function runningOn(
  database: Queryable,
  node: string,
): Promise<ReadonlyMap<string, number>> {
  return new Map((await database.run(running, [node])).map(({ id, attempt }) => [id, attempt]))
}
