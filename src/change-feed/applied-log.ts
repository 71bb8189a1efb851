import type { ChangeFeed } from '#change-feed/feed.ts'
import type { Epoch } from '#change-feed/epoch.ts'
import type { Snapshot } from '#change-feed/snapshot.ts'
import { tokenSeen } from '#change-feed/token.ts'
import type { Token } from '#change-feed/token.ts'
import type { Clock } from '#lib/clock.ts'

/** Batches remembered: with one every two milliseconds, the last twenty seconds. */
const batchesMax = 10_000

type Batch = { readonly epoch: Epoch; readonly cursor: Snapshot; readonly atMs: number }

/** When this node applied what: for receipts. `atMs` are of the wall clock. */
export class AppliedLog implements Disposable {
  readonly #batches: Batch[] = []
  readonly #subscription: Disposable
  #first = 0

  constructor(feed: ChangeFeed, clock: Clock) {
    this.#subscription = feed.subscribe((news) => {
      if (news.kind !== 'apply' && news.kind !== 'flush') return
      const epoch = news.kind === 'flush' ? news.epoch : feed.state.epoch
      if (epoch !== null) this.#add({ epoch, cursor: news.cursor, atMs: clock.nowMs() })
    })
  }

  /**
   * When the write was applied: the first batch that sees it. `before`: it was when this log began,
   * or longer ago than it reaches.
   */
  when(
    token: Token,
  ):
    | { readonly applied: false }
    | { readonly applied: true; readonly atMs: number; readonly before: boolean } {
    let [low, high] = [this.#first, this.#batches.length]
    // Batches only ever see more, so the first that sees it is found by halves.
    while (low < high) {
      const middle = (low + high) >> 1
      if (seen(token, this.#batches[middle]!)) high = middle
      else low = middle + 1
    }
    const batch = this.#batches[low]
    return batch === undefined
      ? { applied: false }
      : { applied: true, atMs: batch.atMs, before: low === this.#first }
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]()
  }

  #add(batch: Batch): void {
    this.#batches.push(batch)
    if (this.#batches.length - this.#first <= batchesMax) return
    this.#first += 1
    // Cut in large pieces: to shift a long array at each batch would cost more than the batch.
    if (this.#first < batchesMax) return
    this.#batches.splice(0, this.#first)
    this.#first = 0
  }
}

function seen(token: Token, { epoch, cursor }: Batch): boolean {
  const found = tokenSeen(token, epoch, cursor)
  return found === 'seen' || found === 'ended'
}
