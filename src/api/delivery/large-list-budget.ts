import { setTimeout as sleep } from 'node:timers/promises'
import { ServerBusyError } from '#api/problems/errors.ts'
import type { Clock } from '#lib/clock.ts'

export type LargeListLimits = {
  /** Bytes that a caller may have made at once, and how many come back per second. */
  readonly burstBytes: number
  readonly bytesPerS: number
  /** A request that would wait longer for its turn is refused. */
  readonly waitMsMax: number
}

/** Long lists cost the event loop time by their bytes; a caller has this share of it. */
const defaultLimits: LargeListLimits = {
  burstBytes: 8 * 1024 ** 2,
  bytesPerS: 8 * 1024 ** 2,
  waitMsMax: 5_000,
}
/** Callers that are remembered; the one that asked longest ago is forgotten. */
const callersMax = 2_000

type Account = { bytes: number; atMs: number; typicalBytes: number }

/**
 * Spreads the making of long lists over time, for each caller apart: a caller who asks for more
 * than their share waits for it, and the event loop stays free for others. Responses from memory
 * are not counted.
 */
export class LargeListBudget {
  readonly #clock: Clock
  readonly #limits: LargeListLimits
  readonly #accounts = new Map<string, Account>()

  constructor(clock: Clock, limits = defaultLimits) {
    this.#clock = clock
    this.#limits = limits
  }

  /**
   * Runs `work` when it is the caller's turn. `work` reports how many bytes it made; until then the
   * caller is charged what their last list had. Throws `ServerBusyError`.
   */
  async run<T>(caller: string, work: (made: (bytes: number) => void) => Promise<T>): Promise<T> {
    const { burstBytes, bytesPerS, waitMsMax } = this.#limits
    const account = this.#accountOf(caller)
    const waitMs = Math.max(0, ((account.bytes - burstBytes) / bytesPerS) * 1_000)
    if (waitMs > waitMsMax) throw new ServerBusyError()
    const reserved = account.typicalBytes
    account.bytes += reserved
    let madeBytes = 0
    try {
      if (waitMs > 0) await sleep(waitMs)
      return await work((bytes) => {
        madeBytes += bytes
        account.typicalBytes = bytes
      })
    } finally {
      account.bytes = Math.max(0, account.bytes + madeBytes - reserved)
    }
  }

  #accountOf(caller: string): Account {
    const nowMs = this.#clock.monotonicMs()
    const account = this.#accounts.get(caller) ?? { bytes: 0, atMs: nowMs, typicalBytes: 0 }
    const back = ((nowMs - account.atMs) / 1_000) * this.#limits.bytesPerS
    account.bytes = Math.max(0, account.bytes - back)
    account.atMs = nowMs
    this.#accounts.delete(caller)
    this.#accounts.set(caller, account)
    if (this.#accounts.size > callersMax) {
      const [oldest] = this.#accounts.keys()
      this.#accounts.delete(oldest!)
    }
    return account
  }
}
