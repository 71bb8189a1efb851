export type BackoffOptions = {
  readonly firstMs: number
  readonly maxMs: number
  /**
   * The share of the pause that is random, 0 to 1: so that many callers that failed together do not
   * come back together. Default 0.
   */
  readonly jitter?: number
  /** A number from 0 up to 1. Default `Math.random`. */
  readonly random?: () => number
}

/** 2 ** 30 is far beyond any `maxMs`; the limit keeps the power from overflowing. */
const doublingsMax = 30

/**
 * The pause before the next attempt, in milliseconds: `firstMs` after the first failure (`attempt`
 * 0), doubled with each further one, at most `maxMs`. With `jitter` the pause is shortened by a
 * random part of that share.
 */
export function backoffMs(attempt: number, options: BackoffOptions): number {
  const { firstMs, maxMs, jitter = 0, random = Math.random } = options
  const doublings = Math.min(Math.max(attempt, 0), doublingsMax)
  const pauseMs = Math.min(firstMs * 2 ** doublings, maxMs)
  return jitter === 0 ? pauseMs : pauseMs * (1 - jitter * random())
}
