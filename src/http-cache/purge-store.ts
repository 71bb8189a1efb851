import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { Bucket, Pending } from '#http-cache/budget.ts'
import type { Edge } from '#http-cache/http-cache.ts'
import { parseSnapshot, visible } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'

/** The purges that wait, and the state of each edge, in the database. */

/** Purges of one edge that are looked at together; older ones go first. */
export const waitingMax = 1_000

export type Position = { readonly epoch: string; readonly snapshot: Snapshot }

/** One reading of changes has to purge this on every edge. */
export type NewPurge = Pick<Pending, 'fine' | 'wide' | 'coarse' | 'hard' | 'epoch'> & {
  readonly after: string
  readonly upTo: string
  readonly xids: readonly string[] | null
}

export type WaitingPurge = NewPurge & { readonly id: string; readonly round: number }

type WaitingRow = {
  readonly id: string
  readonly epoch: string
  readonly after_position: string
  readonly up_to_position: string
  readonly xids: readonly string[] | null
  readonly fine: readonly string[]
  readonly wide: readonly string[]
  readonly coarse: readonly string[]
  readonly hard: boolean
  readonly round: number
}
type EdgeRow = {
  readonly id: string
  readonly calls: number
  readonly calls_ms: number
  readonly failing_since: string | null
  readonly problem: string | null
}

const readPosition = sql<{ epoch: string; position: string }>(
  `select epoch, position from stoa.http_cache`,
)
const writePosition = sql(`
  insert into stoa.http_cache (epoch, position) values ($1, $2)
  on conflict (one) do update set epoch = excluded.epoch, position = excluded.position`)
const insert = sql(`
  insert into stoa.http_cache_purge
    (edge, epoch, after_position, up_to_position, xids, fine, wide, coarse, hard)
  select edge, $2, $3, $4, $5, $6, $7, $8, $9 from unnest($1::text[]) edge`)
const addEdge = sql<{ id: string }>(`
  insert into stoa.http_cache_edge (id, calls) values ($1, $2) on conflict do nothing returning id`)
const deleteAll = sql(`delete from stoa.http_cache_purge where edge = any($1::text[])`)
const deleteUnknown = sql(`delete from stoa.http_cache_purge where not edge = any($1::text[])`)
const due = sql<WaitingRow>(`
  select id, epoch, after_position, up_to_position, xids, fine, wide, coarse, hard, round
  from stoa.http_cache_purge where edge = $1 and due_at <= clock_timestamp()
  order by id limit ${waitingMax}`)
const nextDue = sql<{ ms: number | null }>(`
  select extract(epoch from min(due_at) - clock_timestamp())::float8 * 1000 as ms
  from stoa.http_cache_purge where edge = $1`)
const again = sql(`
  update stoa.http_cache_purge p set round = p.round + 1,
    purged_at = coalesce(p.purged_at, clock_timestamp()),
    due_at = coalesce(p.purged_at, clock_timestamp()) + repeats.ms * interval '1 ms'
  from unnest($2::int[], $3::float8[]) repeats (round, ms)
  where p.id = any($1::bigint[]) and p.round = repeats.round`)
const finish = sql(`delete from stoa.http_cache_purge where id = any($1::bigint[]) and round >= $2`)
const merge = sql(`
  update stoa.http_cache_purge set after_position = $2, up_to_position = $3, xids = null,
    fine = $4, wide = '{}', coarse = $5, hard = $6 where id = $1`)
const remove = sql(`delete from stoa.http_cache_purge where id = any($1::bigint[])`)
const edges = sql<EdgeRow>(`
  select id, calls, extract(epoch from calls_at)::float8 * 1000 as calls_ms, failing_since, problem
  from stoa.http_cache_edge where id = any($1::text[])`)
const writeBucket = sql(`
  update stoa.http_cache_edge set calls = $2, calls_at = to_timestamp($3::float8 / 1000)
  where id = $1`)
const writeSuccess = sql(`
  update stoa.http_cache_edge set failing_since = null, problem = null
  where id = $1 and failing_since is not null`)
const writeFailure = sql(`
  update stoa.http_cache_edge set problem = $2,
    failing_since = coalesce(failing_since, clock_timestamp()) where id = $1`)
const purgesOf = sql<{
  edge: string
  epoch: string
  after_position: string
  up_to_position: string
  round: number
  purged_at: string | null
}>(`
  select edge, epoch, after_position, up_to_position, round, purged_at from stoa.http_cache_purge
  where edge = any($1::text[]) order by id limit ${waitingMax * 10}`)

/** Null: no change was ever read for the HTTP cache. */
export async function positionIn(tx: Queryable): Promise<Position | null> {
  const [row] = await tx.run(readPosition)
  return row === undefined ? null : { epoch: row.epoch, snapshot: parseSnapshot(row.position) }
}

export async function movePosition(tx: Queryable, epoch: string, to: string): Promise<void> {
  await tx.run(writePosition, [epoch, to])
}

export async function addPurge(
  tx: Queryable,
  edgeIds: readonly string[],
  { epoch, after, upTo, xids, fine, wide, coarse, hard }: NewPurge,
): Promise<void> {
  await tx.run(insert, [edgeIds, epoch, after, upTo, xids, fine, wide, coarse, hard])
}

/** Makes the rows of the edges; returns the ids of those that have never been purged. */
export async function addEdges(tx: Queryable, all: readonly Edge[]): Promise<string[]> {
  const added: string[] = []
  for (const { id, limits } of all)
    added.push(...(await tx.run(addEdge, [id, limits.burst])).map((row) => row.id))
  return added
}

/** Before a purge of everything, which stands for all that wait. */
export async function forgetPurges(tx: Queryable, edgeIds: readonly string[]): Promise<void> {
  await tx.run(deleteAll, [edgeIds])
}

/** The edges of a setting that was changed since. */
export async function forgetOtherEdges(tx: Queryable, edgeIds: readonly string[]): Promise<void> {
  await tx.run(deleteUnknown, [edgeIds])
}

/** The oldest purges that are due, first or again. */
export async function duePurges(db: Queryable, edge: string): Promise<WaitingPurge[]> {
  return (await db.run(due, [edge])).map(({ after_position, up_to_position, ...row }) => ({
    ...row,
    after: after_position,
    upTo: up_to_position,
  }))
}

/** The time until the next one is due, which may be past; null: none waits. */
export async function nextDueMs(db: Queryable, edge: string): Promise<number | null> {
  return (await db.run(nextDue, [edge]))[0]?.ms ?? null
}

/** The edge has had these: they come again after `repeatsMs`, or are done. */
export async function purged(
  tx: Queryable,
  { id, limits: { repeatsMs } }: Edge,
  ids: readonly string[],
): Promise<void> {
  await tx.run(finish, [ids, repeatsMs.length])
  await tx.run(again, [ids, repeatsMs.map((_, round) => round), repeatsMs])
  await tx.run(writeSuccess, [id])
}

/** The calls that the edge still accepts. */
export async function spent(tx: Queryable, edge: string, { calls, atMs }: Bucket): Promise<void> {
  await tx.run(writeBucket, [edge, calls, atMs])
}

export async function failed(tx: Queryable, edge: string, problem: string): Promise<void> {
  await tx.run(writeFailure, [edge, problem])
}

/** Many purges of an edge that was away for long become one of their coarse tags. */
export async function mergePurges(
  tx: Queryable,
  purges: readonly WaitingPurge[],
  coarse: readonly string[],
): Promise<void> {
  const [first, last] = [purges[0]!, purges.at(-1)!]
  const hard = purges.some((one) => one.hard)
  await tx.run(merge, [last.id, first.after, last.upTo, coarse, coarse, hard])
  await tx.run(remove, [purges.slice(0, -1).map((one) => one.id)])
}

export type EdgeState = {
  readonly bucket: Bucket
  readonly failingSince: string | null
  readonly problem: string | null
}

export async function edgeStates(
  db: Queryable,
  ids: readonly string[],
): Promise<ReadonlyMap<string, EdgeState>> {
  const rows = await db.run(edges, [ids])
  return new Map(
    rows.map(({ id, calls, calls_ms, failing_since, problem }) => [
      id,
      { bucket: { calls, atMs: calls_ms }, failingSince: failing_since, problem },
    ]),
  )
}

/** Where the purges of one transaction are, on one edge. */
export type PurgeState = { readonly waits: boolean; readonly purgedAt: string | null }

/** By edge. The position must see the transaction. */
export async function purgesOfTransaction(
  db: Queryable,
  ids: readonly string[],
  { epoch, xid }: { readonly epoch: string; readonly xid: number },
): Promise<ReadonlyMap<string, PurgeState>> {
  const states = new Map<string, { waits: boolean; purgedAt: string | null }>()
  for (const row of await db.run(purgesOf, [ids])) {
    if (row.epoch === epoch && !concerns(row, xid)) continue
    // A purge of everything at the beginning of an epoch concerns all before it.
    if (row.epoch !== epoch && row.after_position !== nothing) continue
    const state = states.get(row.edge) ?? { waits: false, purgedAt: null }
    states.set(row.edge, {
      waits: state.waits || row.round === 0,
      purgedAt: row.purged_at ?? state.purgedAt,
    })
  }
  return states
}

/** A snapshot that sees nothing. */
export const nothing = '0:0:'

function concerns(
  row: { readonly after_position: string; readonly up_to_position: string },
  xid: number,
): boolean {
  return (
    visible(parseSnapshot(row.up_to_position), xid) &&
    !visible(parseSnapshot(row.after_position), xid)
  )
}
