import type { ClusterParts } from '#api/api-context.ts'
import { ReceiptNotFoundError } from '#api/problems/errors.ts'
import { formatToken, parseToken } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** The call that nodes answer for receipts: whether, and when, they have applied a write. */
const method = 'applied'
/** For nodes to answer a receipt; one that does not is named. */
const receiptMs = 2_000

/**
 * Where a write has arrived, node by node. `tookMs`: from the write to there, by two machines'
 * clocks.
 */
export type Receipt = {
  readonly token: string
  readonly writtenAt: string | null
  /** Every node that lives has applied it. */
  readonly everywhere: boolean
  readonly nodes: readonly {
    readonly id: string
    readonly name: string
    readonly applied: boolean
    readonly appliedAt: string | null
    readonly tookMs: number | null
    readonly problem: string | null
  }[]
}

type Applied = { readonly applied: boolean; readonly appliedAt: string | null }

const writtenAt = sql<{ at: string | null }>(
  `select min(at) as at from stoa.change where xid = $1::xid8 and (select epoch from stoa.life) = $2`,
)

/** Makes this node answer the others' question. */
export function handleReceiptCalls({ feed, applied, calls }: ClusterParts): Disposable | null {
  if (calls === null) return null
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

/** Asks every node. Errors: `ReceiptNotFoundError`, and the database's. */
export async function receiptOf(
  cluster: ClusterParts,
  database: Queryable,
  text: string,
): Promise<Receipt> {
  const token = parseToken(text)
  if (token === null || cluster.calls === null) throw new ReceiptNotFoundError()
  const [[written], responses] = await Promise.all([
    database.run(writtenAt, [String(token.xid), token.epoch]),
    cluster.calls.onAll(method, { token: text, waitMs: 0 }, { deadlineMs: receiptMs }),
  ])
  const at = written?.at ?? null
  const nodes = responses.map((response) => {
    const { applied, appliedAt } = response.ok
      ? (response.value as Applied)
      : { applied: false, appliedAt: null }
    const tookMs =
      at === null || appliedAt === null ? null : Math.max(0, Date.parse(appliedAt) - Date.parse(at))
    return {
      id: response.node,
      name: response.name,
      applied,
      appliedAt,
      tookMs,
      problem: response.ok ? null : response.error.message,
    }
  })
  return {
    token: formatToken(token),
    writtenAt: at,
    everywhere: nodes.every((node) => node.applied),
    nodes,
  }
}

/**
 * `Prefer: wait=cluster`: resolves when each node that lives has applied the write, or has lost the
 * lease under which it could answer from before. The latter needs no word from it: a node that has
 * not applied the write last heard from the database before the write, so after one lease it trusts
 * nothing that it kept.
 */
export async function waitForAllNodes({ feed, calls }: ClusterParts, token: Token): Promise<void> {
  const { leaseMs } = feed.config
  if (calls === null) return
  const late = Promise.withResolvers<void>()
  const timer = setTimeout(late.resolve, leaseMs)
  const told = calls
    .onAll(method, { token: formatToken(token), waitMs: leaseMs }, { deadlineMs: leaseMs })
    .then(
      (responses) =>
        responses.every((response) => response.ok && (response.value as Applied).applied)
          ? undefined
          : late.promise,
      () => late.promise,
    )
  try {
    await Promise.race([told, late.promise])
  } finally {
    clearTimeout(timer)
    late.resolve()
  }
}
