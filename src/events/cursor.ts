import { isEpoch } from '#change-feed/epoch.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import { formatSnapshot, parseSnapshot } from '#change-feed/snapshot.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'

/** How far a stream has sent what happened. Any node of the cluster goes on from there. */
export type Cursor = { readonly epoch: Epoch; readonly snapshot: Snapshot }

/** A snapshot names the transactions that ran; thousands of them fit into a header. */
const lengthMax = 12_000

export function formatCursor({ epoch, snapshot }: Cursor): string {
  return `${epoch}/${formatSnapshot(snapshot)}`
}

/** Null for anything that is no cursor. */
export function parseCursor(text: string): Cursor | null {
  const at = text.indexOf('/')
  const epoch = text.slice(0, at)
  if (at < 0 || text.length > lengthMax || !isEpoch(epoch)) return null
  try {
    return { epoch, snapshot: parseSnapshot(text.slice(at + 1)) }
  } catch (error) {
    if (error instanceof RangeError) return null
    throw error
  }
}
