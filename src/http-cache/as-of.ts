import type { FeedState } from '#change-feed/feed-core.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'

/**
 * How much a snapshot sees, as one number: the transactions that had ended. Those that one snapshot
 * of a server sees are among those that each later one sees, so of two snapshots of one epoch the
 * one with the greater number sees all that the other does. `xmin` would not do: one transaction
 * that stays open holds it back.
 */
export function endedCount({ xmax, xip }: Snapshot): number {
  return xmax - xip.length
}

/**
 * The header by which an edge knows how new a response is: the epoch, the number of transactions
 * that it shows, and the first one that it may lack. The edge compares the number with that of its
 * last purge, and the transaction with that of a reader's token.
 */
export const asOfHeader = 'stoa-as-of'

/** The texts of this header at this moment, made once per cursor. */
export class AsOfText {
  #cursor: Snapshot | null = null
  #epoch: string | null = null
  #text = ''
  #line = ''

  /** Empty: this node has not read the change feed yet. */
  text({ epoch, cursor }: Pick<FeedState, 'epoch' | 'cursor'>): string {
    if (cursor !== this.#cursor || epoch !== this.#epoch) this.#renew(epoch, cursor)
    return this.#text
  }

  /** The same as a line of a head. */
  line(state: Pick<FeedState, 'epoch' | 'cursor'>): string {
    return this.text(state) === '' ? '' : this.#line
  }

  #renew(epoch: string | null, cursor: Snapshot | null): void {
    this.#cursor = cursor
    this.#epoch = epoch
    this.#text =
      epoch === null || cursor === null ? '' : `${epoch} ${endedCount(cursor)} ${cursor.xmin}`
    this.#line = `${asOfHeader}: ${this.#text}\r\n`
  }
}
