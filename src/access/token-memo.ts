import { LRUCache } from 'lru-cache'
import type { RoleCache } from '#access/role-cache.ts'
import type { Clock } from '#lib/clock.ts'

/**
 * What API tokens were found to allow, for a moment, so that a client which sends many requests
 * costs one lookup a second and not one each. Only where there is no cluster cache, which remembers
 * without a term.
 *
 * A token or role that changes on this node holds at once; on other nodes for at most
 * `tokenStaleMs` as it was.
 */
export const tokenStaleMs = 1_000

/** Tokens remembered at a time. */
const tokensMax = 1_000

type Remembered<Found> = { readonly startedMs: number; readonly found: Promise<Found | null> }

export class TokenMemo<Found extends object> {
  readonly #roleCache: RoleCache
  readonly #clock: Clock
  readonly #byHash = new LRUCache<string, Remembered<Found>>({ max: tokensMax })

  /**
   * While `roleCache` is watched, nothing is remembered: a token or role is being saved on this
   * node.
   */
  constructor(roleCache: RoleCache, clock: Clock) {
    this.#roleCache = roleCache
    this.#clock = clock
  }

  /**
   * What `find` finds, now or less than `tokenStaleMs` ago. Only what is there is remembered:
   * neither null nor an error.
   */
  async get(hash: string, find: () => Promise<Found | null>): Promise<Found | null> {
    const nowMs = this.#clock.monotonicMs()
    if (this.#roleCache.isWatched(nowMs)) return find()
    const known = this.#byHash.get(hash)
    if (known !== undefined && nowMs - known.startedMs < tokenStaleMs) return known.found
    const remembered: Remembered<Found> = { startedMs: nowMs, found: find() }
    this.#byHash.set(hash, remembered)
    try {
      const found = await remembered.found
      if (found === null) this.#forget(hash, remembered)
      return found
    } catch (error) {
      this.#forget(hash, remembered)
      throw error
    }
  }

  #forget(hash: string, remembered: Remembered<Found>): void {
    if (this.#byHash.get(hash) === remembered) this.#byHash.delete(hash)
  }
}
