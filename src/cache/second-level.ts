import type { ServerFacts } from '#lib/server-facts.ts'

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

  /** The server in use now; null: there is none. */
  readonly server: ServerFacts | null

  /**
   * How the server is set up, for findings. Rejects when it cannot be reached or refuses to say.
   * Absent: there is nothing to examine.
   */
  examine?(): Promise<SecondLevelExamination>

  close(): Promise<void>
}

export type SecondLevelExamination = {
  /** Each process of a server has another. */
  readonly serverId: string
  /** 0: as much as the machine has. */
  readonly memoryBytesMax: number
  readonly refusesWhenFull: boolean
  /** Other clusters that have used the same server within the last hour. */
  readonly otherClusters: readonly string[]
}

/** A value is of use only as long as nodes remember what has changed since: minutes. */
export const secondLevelKeepS = 300
/** A response that takes longer than the database would is of no use. */
export const secondLevelTimeoutMs = 50
