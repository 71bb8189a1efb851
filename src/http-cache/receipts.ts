import { tokenSeen } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type { Queryable } from '#database/database.ts'
import { fullBucket, planOf, refilled, waitMs } from '#http-cache/budget.ts'
import type { Edge, HttpCache } from '#http-cache/http-cache.ts'
import { duePurges, edgeStates, positionIn, purgesOfTransaction } from '#http-cache/purge-store.ts'

/** For changes to be read and applied, before the first call. */
const readMs = 500

/** Where the purges of a write are, on one edge. */
export type EdgeReceipt = {
  readonly edge: string
  /** `purged`: it has none of the state before, or nothing of what was written is in it. */
  readonly state: 'purged' | 'waiting'
  /** Null where it was too long ago to be known. */
  readonly purgedAt: string | null
  /** When it will be purged, within its budget of calls; null: it is, or the edge is failing. */
  readonly doneBy: string | null
  readonly problem: string | null
}

/** One line for each edge. */
export async function edgeReceipts(
  db: Queryable,
  { edges }: HttpCache,
  token: Token,
): Promise<EdgeReceipt[]> {
  const ids = edges.map(({ id }) => id)
  const position = await positionIn(db)
  const seen = position === null ? 'unseen' : tokenSeen(token, position.epoch, position.snapshot)
  const isRead = position !== null && (seen === 'seen' || seen === 'ended')
  const [purges, states] = await Promise.all([
    purgesOfTransaction(db, ids, token),
    edgeStates(db, ids),
  ])
  return Promise.all(
    edges.map(async (edge): Promise<EdgeReceipt> => {
      const purge = purges.get(edge.id)
      const problem = states.get(edge.id)?.problem ?? null
      if (isRead && purge?.waits !== true)
        return {
          edge: edge.id,
          state: 'purged',
          purgedAt: purge?.purgedAt ?? null,
          doneBy: null,
          problem,
        }
      const doneBy = problem === null ? await doneByOf(db, edge) : null
      return { edge: edge.id, state: 'waiting', purgedAt: null, doneBy, problem }
    }),
  )
}

async function doneByOf(db: Queryable, edge: Edge): Promise<string> {
  const nowMs = Date.now()
  const [purges, states] = await Promise.all([duePurges(db, edge.id), edgeStates(db, [edge.id])])
  const bucket = refilled(
    states.get(edge.id)?.bucket ?? fullBucket(edge.limits, nowMs),
    edge.limits,
    nowMs,
  )
  const pending = purges.map((one) => ({ ...one, count: 0 }))
  const { calls } = planOf(pending, bucket, edge.limits)
  return new Date(nowMs + readMs + waitMs(calls.length, bucket, edge.limits)).toISOString()
}

/** The edges that do not take their purges, each in a sentence. */
export async function failingEdges(db: Queryable, { edges }: HttpCache): Promise<string[]> {
  const states = await edgeStates(
    db,
    edges.map(({ id }) => id),
  )
  return [...states].flatMap(([id, { failingSince, problem }]) =>
    failingSince === null ? [] : [`the HTTP cache ${id} fails since ${failingSince}: ${problem}`],
  )
}
