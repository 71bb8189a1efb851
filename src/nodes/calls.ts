import type { StoaError } from '#lib/stoa-error.ts'

/**
 * Calls between nodes: run a method on all of them, on one, on a leader. The database carries call
 * and reply; Cluster Link only hints that there is one. With it a call takes a few milliseconds,
 * without it up to a third of the node lease (a beat) more.
 *
 * A callee runs a call at most once. A caller without a reply does not know whether it was run.
 */
export interface Calls {
  /**
   * Calls every node that the database lists at this moment, this one included: a node that joined
   * a moment ago is called. Resolves with one reply per node, at the deadline at the latest. A node
   * that falls silent in the middle gets `CallDeadlineError`, and after a whole node lease without
   * a beat `CallNodeGoneError`: by then it serves nothing as fresh any more, since the lease of its
   * cache is shorter. Rejects only if no node could be called: with the database's errors or
   * `CallTooLargeError`.
   */
  onAll(method: string, payload: unknown, options: CallOptions): Promise<CallReply[]>

  /**
   * Errors: `CallDeadlineError`, `CallNodeGoneError`, `CallFailedError`, `CallUnknownError`,
   * `CallTooLargeError`, and the database's.
   */
  onOne(nodeId: string, method: string, payload: unknown, options: CallOptions): Promise<unknown>

  /**
   * Calls the leader of the duty, and waits until there is one. Errors: those of `onOne`, and
   * `NoLeaderError`.
   */
  onLeader(duty: string, method: string, payload: unknown, options: CallOptions): Promise<unknown>

  /** Registers the handler of a method; do so before the node serves. */
  handle(method: string, handler: CallHandler): Disposable
}

export type CallOptions = { readonly deadlineMs: number }

/**
 * The payload and the returned value travel as JSON; an error travels as its code and message.
 * `signal` aborts when the caller no longer waits.
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
