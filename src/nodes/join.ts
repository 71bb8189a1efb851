import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { JoinRefusedError } from '#nodes/errors.ts'
import { parseNodeInfo } from '#nodes/node-info.ts'
import type { NodeInfo } from '#nodes/node-info.ts'

/** "node" in ASCII: of nodes that start together, one after the other is looked at. */
const lockKey = 0x6e6f6465
/**
 * Those who stand in the way may turn out to be dead this often; then whoever else comes between is
 * another matter.
 */
const attemptsMax = 3
/**
 * Beats come every third of a lease: a row that stood still for longer than a lease is nobody's.
 */
const deadAfterLeases = 1.25
const looksPerLease = 6
/**
 * Who hangs while it joins, stopped or before files that do not answer, keeps the others from it
 * for so long.
 */
const pauseMaxMs = 5_000

export type OtherNode = {
  readonly id: string
  readonly info: NodeInfo
  /** Since its last beat, by the database's clock. */
  readonly silentMs: number
}

export type JoinOptions = {
  readonly id: string
  readonly database: Database
  readonly leaseMs: number
  /**
   * What this node tells of itself beside those that are there, or a `JoinRefusedError`. Called
   * with a lock held that all who join take: what the first one leaves behind, the next one finds.
   */
  readonly admit: (others: readonly OtherNode[]) => Promise<NodeInfo>
  /** Whether it is certain that a node which tells this of itself has ended: its row is removed. */
  readonly ended?: (info: NodeInfo) => boolean
}

type Row = {
  readonly id: string
  readonly counter: string
  readonly info: string
  readonly silent_ms: number
}

const limitPause = sql(`select set_config('idle_in_transaction_session_timeout', $1, true)`)
const lock = sql(`select pg_advisory_xact_lock($1)::text`)
const others = sql<Row>(
  `select id, counter, info, extract(epoch from now() - seen_at)::float8 * 1000 as silent_ms from stoa.node where id <> $1 order by started_at, id`,
)
const removeRows = sql(
  `delete from stoa.node n using unnest($1::text[], $2::bigint[]) d (id, counter) where n.id = d.id and n.counter = d.counter`,
)
const enter = sql(`insert into stoa.node (id, counter, info) values ($1, 1, $2)`)

/**
 * Lets a node in beside those that live, or refuses it. A node that was killed a moment ago refuses
 * nobody: who stands in the way is watched for a lease, on this process's own clock, and only one
 * that beats counts. Begin to beat at once after it.
 *
 * Errors: a `JoinRefusedError`, and the database's.
 */
export async function joinNodes(options: JoinOptions): Promise<NodeInfo> {
  let dead: ReadonlyMap<string, string> = new Map()
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await attemptJoin(options, dead)
    } catch (error) {
      if (!(error instanceof JoinRefusedError) || attempt === attemptsMax) throw error
      const still = await standStill(options, new Set(error.refusedBy))
      if (still === null) throw error
      dead = still
    }
  }
}

/**
 * The nodes that live beside `id`, named, after watching them for a lease: those that were killed a
 * moment ago are left out.
 */
export async function livingBeside(
  options: Pick<JoinOptions, 'id' | 'database' | 'leaseMs'>,
): Promise<readonly NodeInfo[]> {
  const rows = await options.database.run(others, [options.id])
  if (rows.length === 0) return []
  const dead = await standStill(options, new Set(rows.map(({ id }) => id)))
  return dead === null ? rows.map(({ id, info }) => parseNodeInfo(id, info)) : []
}

async function attemptJoin(
  { id, database, admit, ended = () => false }: JoinOptions,
  dead: ReadonlyMap<string, string>,
): Promise<NodeInfo> {
  return database.transaction(async (tx) => {
    await tx.run(limitPause, [String(pauseMaxMs)])
    await tx.run(lock, [lockKey])
    if (dead.size > 0) await tx.run(removeRows, [[...dead.keys()], [...dead.values()]])
    const rows = (await tx.run(others, [id])).map((row) => ({
      id: row.id,
      counter: row.counter,
      info: parseNodeInfo(row.id, row.info),
      silentMs: row.silent_ms,
    }))
    const gone = rows.filter(({ info }) => ended(info))
    if (gone.length > 0)
      await tx.run(removeRows, [gone.map((row) => row.id), gone.map((row) => row.counter)])
    const info = await admit(rows.filter((row) => !gone.includes(row)))
    await tx.run(enter, [id, JSON.stringify(info)])
    return info
  })
}

/**
 * The counters of those nodes, if none of them moves for longer than a lease; null as soon as one
 * does.
 */
async function standStill(
  { id, database, leaseMs }: Pick<JoinOptions, 'id' | 'database' | 'leaseMs'>,
  suspects: ReadonlySet<string>,
): Promise<ReadonlyMap<string, string> | null> {
  const read = async (): Promise<Map<string, string>> =>
    new Map(
      (await database.run(others, [id]))
        .filter((row) => suspects.has(row.id))
        .map((row) => [row.id, row.counter]),
    )
  const first = await read()
  const until = performance.now() + leaseMs * deadAfterLeases
  while (performance.now() < until) {
    await sleep(leaseMs / looksPerLease)
    const now = await read()
    // One that has left meanwhile stands in nobody's way.
    for (const [node, counter] of now) if (first.get(node) !== counter) return null
  }
  return first
}
