import { compareEpochs, isEpoch } from '#change-feed/epoch.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import { parseXid, visible } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'

/**
 * What a write returns (R7). Untrusted when it comes back: the worst that a forged one does is cost
 * one poll.
 */
export type Token = { readonly epoch: Epoch; readonly xid: number }

export function formatToken(token: Token): string {
  return `${token.epoch}-${token.xid}`
}

/**
 * Null for anything that is not a token: such a reader counts as one without a token.
 */
export function parseToken(text: string): Token | null {
  const dash = text.lastIndexOf('-')
  const epoch = text.slice(0, dash)
  const xid = text.slice(dash + 1)
  if (dash < 0 || !isEpoch(epoch) || !/^\d{1,15}$/.test(xid)) return null
  return { epoch, xid: parseXid(xid) }
}

/** The later of two tokens, for callers that collect what several writes returned. */
export function laterToken(one: Token | null, other: Token | null): Token | null {
  if (one === null || other === null) return one ?? other
  const order = compareEpochs(one.epoch, other.epoch)
  if (order === 'same') return one.xid >= other.xid ? one : other
  return order === 'older' ? other : one
}

/**
 * How far a node at `cursor` in `epoch` sees the write.
 * `ended`: its epoch is over. What survived of it is in everything that this node has read since,
 * so nothing is missing. `unknown`: another epoch that cannot be ordered, or a newer one: only a
 * poll can show.
 */
export function tokenSeen(
  token: Token,
  epoch: Epoch,
  cursor: Snapshot,
): 'seen' | 'unseen' | 'ended' | 'unknown' {
  switch (compareEpochs(token.epoch, epoch)) {
    case 'same':
      return visible(cursor, token.xid) ? 'seen' : 'unseen'
    case 'older':
      return 'ended'
    default:
      return 'unknown'
  }
}
