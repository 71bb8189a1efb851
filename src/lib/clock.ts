/** Time as a port, so that a simulation can own it. */
export interface Clock {
  /** Wall clock, milliseconds since 1970. May jump; never used to measure a duration. */
  nowMs(): number
  /** Monotonic clock, milliseconds from an arbitrary start. Never jumps back. */
  monotonicMs(): number
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
}
