import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import type { StoaError } from '#lib/stoa-error.ts'
import type { CallReply } from '#nodes/calls.ts'
import { NodeNotFoundError } from '#nodes/errors.ts'
import { nodeLeaseMsDefault } from '#nodes/nodes.ts'
import { parseNodeInfo } from '#nodes/node-info.ts'
import type { NodeInfo } from '#nodes/node-info.ts'

/** The call by which a node reports its state. */
export const statusMethod = 'status'
/** A node without a beat for this long, a lease and a beat, is shown as silent. */
export const silentAfterMs = (nodeLeaseMsDefault * 4) / 3

/** The services that nodes use, in the order in which people read them. */
export const partNames = ['database', 'standby', 'link', 'secondLevel', 'fileStore'] as const
export type PartName = (typeof partNames)[number]

/** A service as one node sees it. `address` has no account in it; null: not known. */
export type PartReport = {
  readonly state: 'up' | 'down'
  readonly address: string | null
  readonly version: string | null
}

/** Null: the node is not configured to use it. */
export type PartReports = Readonly<Record<PartName, PartReport | null>>

/** The state that only the node itself knows. */
export type NodeReport = {
  /**
   * Time since the start of the last good poll of the change feed: no response that it marks as
   * fresh is older. Null: it keeps nothing.
   */
  readonly feedLagMs: number | null
  /** By how much its clock is ahead of the database's; negative: behind. */
  readonly clockSkewMs: number
  readonly cache: {
    readonly hits: number
    readonly misses: number
    readonly hitRate: number | null
    readonly entries: number
    readonly bytes: number
    readonly bytesMax: number
  } | null
  readonly parts: PartReports
  /** Parts that do not work as they should, in words. */
  readonly degraded: readonly string[]
}

export type NodeStatus = {
  readonly id: string
  readonly name: string
  readonly address: string | null
  readonly version: string
  readonly fingerprint: string
  readonly state: 'starting' | 'live' | 'draining' | 'silent'
  readonly duties: readonly string[]
  readonly startedAt: string
  /** Milliseconds since its last beat, by the database's clock. */
  readonly seenMsAgo: number
  readonly report: NodeReport | null
  /** Why there is no report. */
  readonly problem: string | null
}

export type ClusterStatus = {
  readonly nodes: readonly NodeStatus[]
  readonly degraded: readonly string[]
}

type Row = {
  readonly id: string
  readonly draining: boolean
  readonly info: string
  readonly started_at: string
  readonly seen_ms: number
  readonly duties: readonly string[]
}

const read = sql<Row>(`
  select n.id, n.draining or n.drain_asked as draining, n.info, n.started_at,
    greatest(0, extract(epoch from clock_timestamp() - n.seen_at)::float8 * 1000) as seen_ms,
    array(select r.duty from stoa.leadership r where r.holder = n.id order by r.duty) as duties
  from stoa.node n order by n.info->>'name', n.started_at`)
const askDrain = sql<{ id: string; name: string }>(`
  update stoa.node set drain_asked = true where id = (
    select id from stoa.node where id = $1 or info->>'name' = $1 order by seen_at desc limit 1)
  returning id, info->>'name' as name`)
const seen = sql<{ seen_ms: number }>(
  `select extract(epoch from clock_timestamp() - seen_at)::float8 * 1000 as seen_ms
   from stoa.node where id = $1`,
)

/**
 * Every node with a row, as the database has them, with the reports of those that live. `ask`
 * calls `statusMethod` on all.
 */
export async function clusterStatus(
  database: Queryable,
  ask: () => Promise<readonly CallReply[]>,
): Promise<ClusterStatus> {
  const [rows, replies] = await Promise.all([database.run(read), ask()])
  const byNode = new Map(replies.map((reply) => [reply.node, reply]))
  const nodes = rows.map((row) => statusOf(row, byNode.get(row.id)))
  return { nodes, degraded: degradedOf(nodes) }
}

function statusOf(row: Row, reply: CallReply | undefined): NodeStatus {
  const info = parseNodeInfo(row.id, row.info)
  const state = stateOf(row, info)
  return {
    id: row.id,
    name: info.name,
    address: info.address,
    version: info.version,
    fingerprint: info.fingerprint,
    state,
    duties: row.duties,
    startedAt: row.started_at,
    seenMsAgo: Math.round(row.seen_ms),
    report: reply?.ok === true ? (reply.value as NodeReport) : null,
    problem: reply?.ok === true ? null : problemOf(state, reply?.error),
  }
}

function problemOf(state: NodeStatus['state'], error: StoaError | undefined): string {
  return state === 'silent' ? 'no beat received' : (error?.message ?? 'not called')
}

function stateOf({ seen_ms, draining }: Row, { starting }: NodeInfo): NodeStatus['state'] {
  if (seen_ms > silentAfterMs) return 'silent'
  if (draining) return 'draining'
  return starting === true ? 'starting' : 'live'
}

const silentText = 'no beat received; killed, or cut off from the database'
const respondsText = 'it responds to calls, but the database takes no beats from it'

function degradedOf(nodes: readonly NodeStatus[]): string[] {
  const lines = nodes.flatMap(({ name, state, report, problem }) => [
    ...(report?.degraded ?? []).map((text) => `${name}: ${text}`),
    ...(state !== 'silent' && state !== 'starting' && problem !== null
      ? [`${name}: ${problem}`]
      : []),
    ...(state === 'silent' ? [`${name}: ${report === null ? silentText : respondsText}`] : []),
  ])
  const live = nodes.filter(({ state }) => state !== 'silent')
  if (new Set(live.map(({ fingerprint }) => fingerprint)).size > 1)
    lines.push('the settings of the nodes differ; the log of the node that came last names them')
  return lines
}

/**
 * Writes into a node's row that it is to drain; it finds it at its next beat. Errors:
 * `NodeNotFoundError`.
 */
export async function askToDrain(
  database: Queryable,
  nameOrId: string,
): Promise<{ readonly id: string; readonly name: string }> {
  const [asked] = await database.run(askDrain, [nameOrId])
  if (asked === undefined)
    throw new NodeNotFoundError(`No node is called "${nameOrId}"; stoa status lists them.`, {
      node: nameOrId,
    })
  return asked
}

/** `left`: it removed its row. `silent`: it did not, and beats no more. */
export async function whereabouts(
  database: Queryable,
  id: string,
): Promise<'there' | 'silent' | 'left'> {
  const [row] = await database.run(seen, [id])
  if (row === undefined) return 'left'
  return row.seen_ms > silentAfterMs ? 'silent' : 'there'
}
