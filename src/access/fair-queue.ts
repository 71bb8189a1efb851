import type { Clock } from '#lib/clock.ts'

/** Waiting at once: for each client, and in all for those that are known and those that are not. */
const waitingPerClientMax = 8
const waitingMax = 64
const waitMs = 5_000

/** `known`: a device or network from which the account has signed in before, or a session. */
export type QueueClient = { readonly key: string; readonly known: boolean }

type Waiter = {
  readonly start: () => void
  readonly reject: () => void
  readonly deadlineMs: number
}

/**
 * Gives out a few places in turn: known and unknown clients alternate, and each client has its turn
 * among its like, so that a flood from one client, or from many unknown ones, delays the others by
 * a turn. `busy` makes the error for clients that find no room.
 */
export class FairQueue {
  readonly #clock: Clock
  readonly #placesMax: number
  readonly #busy: () => Error
  readonly #known = new Map<string, Waiter[]>()
  readonly #unknown = new Map<string, Waiter[]>()
  #taken = 0
  #knownNext = true

  constructor(options: {
    readonly clock: Clock
    readonly placesMax: number
    readonly busy: () => Error
  }) {
    this.#clock = options.clock
    this.#placesMax = options.placesMax
    this.#busy = options.busy
  }

  /** Runs `work` when this client has a place. */
  async run<T>(client: QueueClient, work: () => Promise<T>): Promise<T> {
    await this.#take(client)
    try {
      return await work()
    } finally {
      this.#taken -= 1
      this.#startNext()
    }
  }

  #take({ key, known }: QueueClient): Promise<void> {
    if (this.#taken < this.#placesMax) {
      this.#taken += 1
      return Promise.resolve()
    }
    const line = known ? this.#known : this.#unknown
    const waiters = line.get(key) ?? []
    if (waiters.length >= waitingPerClientMax || sizeOf(line) >= waitingMax)
      return Promise.reject(this.#busy())
    return new Promise((start, reject) => {
      waiters.push({
        start,
        reject: () => reject(this.#busy()),
        deadlineMs: this.#clock.monotonicMs() + waitMs,
      })
      line.set(key, waiters)
    })
  }

  /** Deadlines need no timer: work ends every few dozen milliseconds, and then they are checked. */
  #startNext(): void {
    for (let waiter = this.#next(); waiter !== null; waiter = this.#next()) {
      if (waiter.deadlineMs < this.#clock.monotonicMs()) {
        waiter.reject()
        continue
      }
      this.#taken += 1
      waiter.start()
      return
    }
  }

  #next(): Waiter | null {
    const [first, second] = this.#knownNext
      ? [this.#known, this.#unknown]
      : [this.#unknown, this.#known]
    this.#knownNext = !this.#knownNext
    return nextOf(first) ?? nextOf(second)
  }
}

function sizeOf(line: ReadonlyMap<string, readonly Waiter[]>): number {
  let size = 0
  for (const waiters of line.values()) size += waiters.length
  return size
}

/** The first waiter of the client whose turn it is; the client then goes to the end of the line. */
function nextOf(line: Map<string, Waiter[]>): Waiter | null {
  for (const [key, waiters] of line) {
    line.delete(key)
    const waiter = waiters.shift()
    if (waiters.length > 0) line.set(key, waiters)
    if (waiter !== undefined) return waiter
  }
  return null
}
