import { setTimeout as sleep } from 'node:timers/promises'
import type { ApiContext, ClusterParts } from '#api/api-context.ts'
import { ReceiptNotFoundError } from '#api/problems/errors.ts'
import { formatToken, parseToken } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import { sql } from '#database/database.ts'
import { edgeReceipts } from '#http-cache/receipts.ts'
import type { EdgeReceipt } from '#http-cache/receipts.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/** The call behind receipts: whether, and when, a node has applied a write. */
const method = 'applied'
/** The time that nodes have to reply; a receipt names those that do not. */
const receiptMs = 2_000

/**
 * Where a write has arrived, node by node. `tookMs` is the time from the write to there, by the
 * clocks of two machines.
 */
export type Receipt = {
  readonly token: string
  readonly writtenAt: string | null
  /** Every node that lives has applied it, and every edge was purged. */
  readonly everywhere: boolean
  readonly nodes: readonly {
    readonly id: string
    readonly name: string
    readonly applied: boolean
    readonly appliedAt: string | null
    readonly tookMs: number | null
    readonly problem: string | null
  }[]
  /** One for each edge of the HTTP cache; none where there is no HTTP cache. */
  readonly httpCache: readonly EdgeReceipt[]
}

type Applied = { readonly applied: boolean; readonly appliedAt: string | null }

const writtenAt = sql<{ at: string | null }>(
  `select min(at) as at from stoa.change
   where xid = $1::xid8 and (select epoch from stoa.life) = $2`,
)

/** Makes this node reply to the receipts of the others. */
export function handleReceiptCalls({ feed, applied, calls }: ClusterParts): Disposable {
  return calls.handle(method, async (payload): Promise<Applied> => {
    const { token: text, waitMs } = payload as { readonly token: string; readonly waitMs: number }
    const token = parseToken(text)
    if (token === null || !(await feed.reached(token, waitMs)))
      return { applied: false, appliedAt: null }
    const when = applied.when(token)
    return {
      applied: true,
      appliedAt: when.applied && !when.before ? new Date(when.atMs).toISOString() : null,
    }
  })
}

type ReceiptParts = Pick<ApiContext, 'cluster' | 'database' | 'httpCache'>

/** Asks every node. Errors: `ReceiptNotFoundError`, and the database's. */
export async function receiptOf(
  { cluster, database, httpCache: cache }: ReceiptParts,
  text: string,
): Promise<Receipt> {
  const token = parseToken(text)
  if (token === null) throw new ReceiptNotFoundError()
  const [[written], replies, httpCache] = await Promise.all([
    database.run(writtenAt, [String(token.xid), token.epoch]),
    cluster.calls.onAll(method, { token: text, waitMs: 0 }, { deadlineMs: receiptMs }),
    cache === null ? [] : edgeReceipts(database, cache, token),
  ])
  const at = written?.at ?? null
  const nodes = replies.map((reply) => {
    const { applied, appliedAt } = reply.ok
      ? (reply.value as Applied)
      : { applied: false, appliedAt: null }
    const tookMs =
      at === null || appliedAt === null ? null : Math.max(0, Date.parse(appliedAt) - Date.parse(at))
    return {
      id: reply.node,
      name: reply.name,
      applied,
      appliedAt,
      tookMs,
      problem: reply.ok ? null : reply.error.message,
    }
  })
  return {
    token: formatToken(token),
    writtenAt: at,
    everywhere:
      nodes.every((node) => node.applied) && httpCache.every(({ state }) => state === 'purged'),
    nodes,
    httpCache,
  }
}

/**
 * `Prefer: wait=cluster`: resolves when each live node has applied the write, or has lost the lease
 * under which it could serve the state of before. The latter needs no reply of that node: one that
 * has not applied the write last reached the database before it, so after one lease it trusts
 * nothing that it kept.
 */
export async function waitForAllNodes({ feed, calls }: ClusterParts, token: Token): Promise<void> {
  const { leaseMs } = feed.config
  const startedMs = feed.nowMs()
  const payload = { token: formatToken(token), waitMs: leaseMs }
  const replies = await withTimeout(
    calls.onAll(method, payload, { deadlineMs: leaseMs }).catch(() => []),
    leaseMs,
  )
  const isEverywhere =
    replies !== timedOut &&
    replies.length > 0 &&
    replies.every((reply) => reply.ok && (reply.value as Applied).applied)
  if (!isEverywhere) await sleep(Math.max(0, startedMs + leaseMs - feed.nowMs()))
}
