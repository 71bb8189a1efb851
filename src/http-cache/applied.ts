import { setTimeout as sleep } from 'node:timers/promises'
import type { ChangeFeed } from '#change-feed/feed.ts'
import { endedCount } from '#http-cache/as-of.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import type { Calls } from '#nodes/calls.ts'

/** The call behind a purge: whether, and how far, a node has applied changes. */
const method = 'http-cache-applied'

export type ApplyingNodes = { readonly feed: ChangeFeed; readonly calls: Calls }

/** Changes that are to be purged. `xids` null: all that a snapshot with this count sees. */
type Changes = {
  readonly epoch: string
  readonly xids: readonly string[] | null
  readonly count: number
}
type Wanted = Changes & { readonly waitMs: number }
/** `count`: how much the node's responses show from now on; null: it has not applied all. */
type Applied = { readonly count: number | null }

/** Makes this node reply. */
export function handleAppliedCalls({ feed, calls }: ApplyingNodes): Disposable {
  return calls.handle(method, async (payload): Promise<Applied> => {
    const { epoch, xids, count, waitMs } = payload as Wanted
    if (xids === null) {
      if (!shows(feed, epoch, count)) await feed.readAnew(waitMs)
      return { count: shows(feed, epoch, count) ? countOf(feed) : null }
    }
    for (const xid of xids)
      if (!(await feed.reached({ epoch, xid: Number(xid) }, waitMs))) return { count: null }
    return { count: feed.state.epoch === epoch ? countOf(feed) : null }
  })
}

/**
 * Resolves when each live node has applied the changes, or has lost the lease under which it could
 * serve the state of before, as fresh. Returns the count that a response must show to be no older
 * than the purge: the least that a node shows, since that snapshot sees all the changes.
 */
export async function appliedEverywhere(
  { feed, calls }: ApplyingNodes,
  { epoch, xids, count }: Changes,
): Promise<number> {
  const { leaseMs } = feed.config
  const startedMs = feed.nowMs()
  const wanted: Wanted = { epoch, xids, count, waitMs: leaseMs }
  const replies = await withTimeout(
    calls.onAll(method, wanted, { deadlineMs: leaseMs }).catch(() => []),
    leaseMs,
  )
  const known = replies === timedOut ? [] : replies
  const counts = known.flatMap((reply) => {
    const shown = reply.ok ? (reply.value as Applied).count : null
    return shown === null ? [] : [shown]
  })
  if (counts.length === 0 || counts.length < known.length)
    await sleep(Math.max(0, startedMs + leaseMs - feed.nowMs()))
  return counts.length === 0 ? count : Math.min(...counts)
}

function shows({ state }: ChangeFeed, epoch: string, count: number): boolean {
  return state.epoch === epoch && state.cursor !== null && endedCount(state.cursor) >= count
}

function countOf({ state }: ChangeFeed): number | null {
  return state.cursor === null ? null : endedCount(state.cursor)
}
