import type { Actor } from '#lib/actor.ts'
import { MediaBusyError } from '#media/errors.ts'
import type { MediaLimits } from '#media/limits.ts'

const retryAfterS = 5

/**
 * Bounds the files that are received at once, in all and of one caller: each takes a connection, a
 * file handle and room in the store for as long as its client likes.
 */
export class ReceiveGate {
  readonly #limits: MediaLimits
  readonly #byCaller = new Map<string, number>()
  #count = 0

  constructor(limits: MediaLimits) {
    this.#limits = limits
  }

  /** Throws `MediaBusyError`. */
  async run<T>(caller: string, work: () => Promise<T>): Promise<T> {
    const { receivesMax, receivesPerCallerMax } = this.#limits
    const ofCaller = this.#byCaller.get(caller) ?? 0
    if (ofCaller >= receivesPerCallerMax) {
      throw new MediaBusyError(
        `You send ${ofCaller} files at once already; wait for one of them to end.`,
        retryAfterS,
      )
    }
    if (this.#count >= receivesMax)
      throw new MediaBusyError('Too many files are being received; send it again.', retryAfterS)
    this.#count += 1
    this.#byCaller.set(caller, ofCaller + 1)
    try {
      return await work()
    } finally {
      this.#count -= 1
      const left = this.#byCaller.get(caller)! - 1
      if (left === 0) this.#byCaller.delete(caller)
      else this.#byCaller.set(caller, left)
    }
  }
}

/** The actor as the key of shares and bounds. */
export function callerOf(actor: Actor): string {
  return `${actor.kind}:${actor.id ?? ''}`
}
