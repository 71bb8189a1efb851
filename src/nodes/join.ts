import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { JoinRefusedError } from '#nodes/errors.ts'
import { parseNodeInfo } from '#nodes/node-info.ts'
import type { NodeInfo } from '#nodes/node-info.ts'

/** "node" in ASCII. Nodes that start together are admitted one after the other. */
const lockKey = 0x6e6f6465
/** Admission is tried again this often after the nodes that refused turned out to be dead. */
const attemptsMax = 3
/** Beats come every third of a lease: a row that stands still for longer than a lease is dead. */
const deadAfterLeases = 1.25
const looksPerLease = 6
/** A joining node that hangs, stopped or on its files, holds the lock against others this long. */
const pauseMaxMs = 5_000

export type OtherNode = {
  readonly id: string
  readonly info: NodeInfo
  /** The time since its last beat, by the database's clock. */
  readonly silentMs: number
}

export type JoinOptions = {
  readonly id: string
  readonly database: Database
  readonly leaseMs: number
  /**
   * Returns the description of this node after comparing it with the others, or throws a
   * `JoinRefusedError`. It runs under a lock that every joining node takes, so that each sees the
   * rows of those before it.
   */
  readonly admit: (others: readonly OtherNode[]) => Promise<NodeInfo>
  /** True if the node of this description has certainly ended: then its row is removed. */
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
  `select id, counter, info, extract(epoch from now() - seen_at)::float8 * 1000 as silent_ms
   from stoa.node where id <> $1 order by started_at, id`,
)
const removeRows = sql(
  `delete from stoa.node n using unnest($1::text[], $2::bigint[]) d (id, counter)
   where n.id = d.id and n.counter = d.counter`,
)
const enter = sql(`insert into stoa.node (id, counter, info) values ($1, 1, $2)`)

/**
 * Admits a node beside the live ones, or refuses it. A node that was killed a moment ago must not
 * refuse others: the rows that refuse are watched for a lease, on this process's own clock, and
 * only one that beats counts. The admitted node must begin to beat at once.
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
 * Returns the live nodes beside `id` after watching them for a lease: those that were killed a
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
 * Returns the counters of the suspects if none moves for longer than a lease, null once one does.
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
    // A node that has left meanwhile no longer refuses anything.
    for (const [node, counter] of now) if (first.get(node) !== counter) return null
  }
  return first
}
