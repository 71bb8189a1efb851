import type { Clock } from '#lib/clock.ts'

export type FairQueueLimits = {
  /** Claims that hold a place at once. */
  readonly runningMax: number
  readonly waitingMax: number
  readonly waitingPerCallerMax: number
  /** How long a claim may wait before it is refused. */
  readonly waitMs: number
}

export type Claim = {
  /** The one who asks: an actor or an address. */
  readonly caller: string
  /** The thing that the work is about, such as an asset. */
  readonly group: string
  /** Costly work takes at most half of the places, so that short work always finds one. */
  readonly isCostly?: boolean
}

/** The queue is full, or a claim has waited for its whole time. */
export class QueueBusyError extends Error {
  readonly retryAfterS: number

  constructor(retryAfterS: number) {
    super('More work is asked for than can be done in time; ask again later.')
    this.retryAfterS = retryAfterS
  }
}

/** Used time counts half after so long. */
const halfLifeMs = 10_000
/** Callers and groups whose used time is remembered; the least recent are forgotten. */
const keysMax = 2_000
const retryAfterSMax = 60

type Waiter = {
  readonly claim: Claim
  readonly start: () => void
  readonly refuse: () => void
}

/**
 * Places for work that strangers ask for, shared fairly. One caller, and one group, hold at most
 * half of the places. A free place goes to the waiting claim whose caller and group have used the
 * least time of late, and a full queue drops the claim that has used the most. So a caller who asks
 * without end, or many who ask for one thing, slow down themselves and not the others.
 */
export class FairQueue {
  readonly #limits: FairQueueLimits
  readonly #clock: Clock
  readonly #waiting = new Set<Waiter>()
  readonly #running = new Map<string, number>()
  readonly #used = new Map<string, { readonly ms: number; readonly atMs: number }>()
  readonly #shareMax: number
  #runningCount = 0
  /** Moving average of the time that a place is held, for an honest Retry-After. */
  #typicalMs = 1_000

  constructor(limits: FairQueueLimits, clock: Clock) {
    this.#limits = limits
    this.#clock = clock
    this.#shareMax = Math.max(1, Math.ceil(limits.runningMax / 2))
  }

  get waiting(): number {
    return this.#waiting.size
  }

  /** Runs `work` when a place is free. Throws `QueueBusyError`. */
  async run<T>(claim: Claim, work: () => Promise<T>): Promise<T> {
    await this.#enter(claim)
    const startedMs = this.#clock.monotonicMs()
    try {
      return await work()
    } finally {
      const ms = this.#clock.monotonicMs() - startedMs
      this.#typicalMs = this.#typicalMs * 0.8 + ms * 0.2
      for (const key of keysOf(claim)) this.#charge(key, ms)
      this.#leave(claim)
    }
  }

  async #enter(claim: Claim): Promise<void> {
    if (this.#hasPlaceFor(claim)) {
      this.#take(claim)
      return
    }
    this.#makeRoom(claim)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter: Waiter = {
      claim,
      start: () => {
        this.#waiting.delete(waiter)
        clearTimeout(timer)
        this.#take(claim)
        resolve()
      },
      refuse: () => {
        this.#waiting.delete(waiter)
        clearTimeout(timer)
        reject(this.#busy())
      },
    }
    const timer = setTimeout(waiter.refuse, this.#limits.waitMs)
    this.#waiting.add(waiter)
    await promise
  }

  /** Throws when this claim may not wait; otherwise the queue has room for it afterwards. */
  #makeRoom(claim: Claim): void {
    const { waitingMax, waitingPerCallerMax } = this.#limits
    let ofCaller = 0
    for (const each of this.#waiting) if (each.claim.caller === claim.caller) ofCaller += 1
    if (ofCaller >= waitingPerCallerMax) throw this.#busy()
    if (this.#waiting.size < waitingMax) return
    let most: Waiter | null = null
    const nowMs = this.#clock.monotonicMs()
    let mostMs = this.#usedBy(claim, nowMs)
    for (const each of this.#waiting) {
      const ms = this.#usedBy(each.claim, nowMs)
      if (ms <= mostMs) continue
      most = each
      mostMs = ms
    }
    if (most === null) throw this.#busy()
    most.refuse()
  }

  #hasPlaceFor(claim: Claim): boolean {
    if (this.#runningCount >= this.#limits.runningMax) return false
    return keysOf(claim).every((key) => (this.#running.get(key) ?? 0) < this.#shareMax)
  }

  #take(claim: Claim): void {
    this.#runningCount += 1
    for (const key of keysOf(claim)) this.#running.set(key, (this.#running.get(key) ?? 0) + 1)
  }

  #leave(claim: Claim): void {
    this.#runningCount -= 1
    for (const key of keysOf(claim)) {
      const left = (this.#running.get(key) ?? 1) - 1
      if (left === 0) this.#running.delete(key)
      else this.#running.set(key, left)
    }
    for (let next = this.#next(); next !== null; next = this.#next()) next.start()
  }

  /** The claim that has used the least; of equals, the one that has waited longest. */
  #next(): Waiter | null {
    let next: Waiter | null = null
    let leastMs = Number.POSITIVE_INFINITY
    const nowMs = this.#clock.monotonicMs()
    for (const each of this.#waiting) {
      if (!this.#hasPlaceFor(each.claim)) continue
      const ms = this.#usedBy(each.claim, nowMs)
      if (ms >= leastMs) continue
      next = each
      leastMs = ms
    }
    return next
  }

  #usedBy(claim: Claim, nowMs: number): number {
    return this.#usedMs(callerKey(claim), nowMs) + this.#usedMs(groupKey(claim), nowMs)
  }

  #usedMs(key: string, nowMs: number): number {
    const used = this.#used.get(key)
    return used === undefined ? 0 : used.ms * 0.5 ** ((nowMs - used.atMs) / halfLifeMs)
  }

  #charge(key: string, ms: number): void {
    const atMs = this.#clock.monotonicMs()
    const total = this.#usedMs(key, atMs) + ms
    this.#used.delete(key)
    this.#used.set(key, { ms: total, atMs })
    if (this.#used.size <= keysMax) return
    const [oldest] = this.#used.keys()
    this.#used.delete(oldest!)
  }

  #busy(): QueueBusyError {
    const ms = (this.#typicalMs * (this.#waiting.size + 1)) / this.#limits.runningMax
    return new QueueBusyError(Math.min(retryAfterSMax, Math.max(1, Math.ceil(ms / 1_000))))
  }
}

function callerKey({ caller }: Claim): string {
  return `caller ${caller}`
}

function groupKey({ group }: Claim): string {
  return `group ${group}`
}

function keysOf(claim: Claim): readonly string[] {
  const keys = [callerKey(claim), groupKey(claim)]
  return claim.isCostly === true ? [...keys, 'costly'] : keys
}
