/**
 * Memory that all nodes share, such as Redis: what one node has filled, another need not. Never
 * trusted (R9): it may lose, delay, reorder and bring back what it was given; the reader checks
 * what it finds by its own change feed.
 *
 * Neither method rejects: what cannot be had in time is not there. Keys are short and of ASCII.
 */
export interface SecondLevel {
  /** Null: not there, or not to be had within the driver's deadline. */
  get(key: string): Promise<Buffer | null>

  /** Keeps the bytes for a while, if it can. */
  put(key: string, bytes: Buffer): Promise<void>

  /** True if it can be reached, as far as this node knows. */
  readonly connected: boolean

  close(): Promise<void>
}

/** A value is of use only as long as nodes remember what has changed since: minutes. */
export const secondLevelKeepS = 300
/** A response that takes longer than the database would is of no use. */
export const secondLevelTimeoutMs = 50
