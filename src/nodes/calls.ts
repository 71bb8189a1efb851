import type { StoaError } from '#lib/stoa-error.ts'

/**
 * Calls between nodes: run a method on all of them, on one, on a leader. The database carries
 * question and answer; Cluster Link only says that there is something to look at, so with it a call
 * takes a few milliseconds, and without it up to a third of the node lease (a beat) more.
 *
 * A callee runs what it is asked at most once. A caller that got no answer does not know whether it
 * was run.
 */
export interface Calls {
  /**
   * Asks every node that lives at this moment by the database's word, this one included: one that
   * joined a moment ago is asked. Resolves with one answer per node, at the deadline at the latest.
   * A node that falls silent in the middle is told apart: `CallNodeGoneError` once nobody has heard
   * of it for a whole node lease (by then it answers nothing as fresh any more, having lost the
   * shorter lease of its cache too), `CallDeadlineError` before. Rejects only if nobody could be
   * asked: with the database's errors or `CallTooLargeError`.
   */
  onAll(method: string, payload: unknown, options: CallOptions): Promise<CallReply[]>

  /**
   * Errors: `CallDeadlineError`, `CallNodeGoneError`, `CallFailedError`, `CallUnknownError`,
   * `CallTooLargeError`, and the database's.
   */
  onOne(nodeId: string, method: string, payload: unknown, options: CallOptions): Promise<unknown>

  /**
   * Asks who leads in that duty, waiting for one to be found. Errors: those of `onOne`, and
   * `NoLeaderError`.
   */
  onLeader(duty: string, method: string, payload: unknown, options: CallOptions): Promise<unknown>

  /** Says what this node does when a method is called. Register before the node serves. */
  handle(method: string, handler: CallHandler): Disposable
}

export type CallOptions = { readonly deadlineMs: number }

/**
 * `payload` is what JSON made of it. What is returned travels as JSON; what is thrown, as its code
 * and message. `signal` aborts when nobody waits any more.
 */
export type CallHandler = (
  payload: unknown,
  call: { readonly caller: string; readonly leftMs: number; readonly signal: AbortSignal },
) => Promise<unknown>

export type CallReply = { readonly node: string; readonly name: string } & (
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: StoaError }
)

/** Characters of JSON. Larger things are for tables and blobs. */
export const callPayloadMax = 65_536
export const callReplyMax = 262_144
export const callChannel = 'calls'
