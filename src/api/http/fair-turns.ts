import type { Clock } from '#lib/clock.ts'

/** Requests of one client that begin in one turn of the event loop while others ask as well. */
const perTurnMax = 4
/** A client is alone if no other has asked for this long. */
const aloneMs = 200

/**
 * Begins requests in turns. While several clients ask, each has a few of its requests begun in
 * every turn of the event loop, one client after the other, and what is more waits for the next
 * turn: a client with a hundred connections has no larger share of the loop than one with four. A
 * client that is alone waits for nothing. What waits is bounded by the connections, of which each
 * has one request here.
 */
export class FairTurns {
  readonly #clock: Clock
  readonly #waiting = new Map<string, (() => void)[]>()
  /** Requests that began in this turn, by client. */
  readonly #begun = new Map<string, number>()
  #last = ''
  #changedMs = Number.NEGATIVE_INFINITY
  #isScheduled = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  run(client: string, begin: () => void): void {
    const nowMs = this.#clock.monotonicMs()
    if (client !== this.#last) {
      this.#last = client
      this.#changedMs = nowMs
    }
    const isAlone = nowMs - this.#changedMs > aloneMs && this.#waiting.size === 0
    if (isAlone) {
      begin()
      return
    }
    this.#schedule()
    const begun = this.#begun.get(client) ?? 0
    if (begun < perTurnMax && !this.#waiting.has(client)) {
      this.#begun.set(client, begun + 1)
      begin()
      return
    }
    const waiting = this.#waiting.get(client)
    if (waiting === undefined) this.#waiting.set(client, [begin])
    else waiting.push(begin)
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => this.#nextTurn())
  }

  #nextTurn(): void {
    this.#isScheduled = false
    this.#begun.clear()
    if (this.#waiting.size === 0) return
    this.#schedule()
    for (let place = 0; place < perTurnMax; place += 1)
      for (const [client, waiting] of this.#waiting) {
        const begin = waiting.shift()
        if (waiting.length === 0) this.#waiting.delete(client)
        if (begin === undefined) continue
        this.#begun.set(client, (this.#begun.get(client) ?? 0) + 1)
        begin()
      }
  }
}
