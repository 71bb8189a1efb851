import { StoaError } from '#lib/stoa-error.ts'

/**
 * Another node leads now, or may: nothing of the transaction was committed. Stop acting in this
 * duty.
 */
export class FenceLostError extends StoaError {
  readonly code = 'E_NODES_FENCE'
}

/**
 * A node would not fit the others that live: `refusedBy` are their ids. Start it anew when the
 * message was heeded.
 */
export abstract class JoinRefusedError extends StoaError {
  readonly refusedBy: readonly string[]

  constructor(
    message: string,
    refusedBy: readonly string[],
    facts: Readonly<Record<string, unknown>> = {},
  ) {
    super(message, facts)
    this.refusedBy = refusedBy
  }
}

/** The secret of this node is not that of the others. */
export class SecretDiffersError extends JoinRefusedError {
  readonly code = 'E_NODES_SECRET'
}

/** The database lives within one of the nodes and ends with it. */
export class DatabaseNotSharedError extends JoinRefusedError {
  readonly code = 'E_NODES_DATABASE'
}

/** The schema needs a change that nodes of an older version, which still run, cannot work with. */
export class OlderNodesError extends StoaError {
  readonly code = 'E_NODES_OLDER'
}

/** The node did not reply to a call in time. Whether it did what was asked is not known. */
export class CallDeadlineError extends StoaError {
  readonly code = 'E_CALL_DEADLINE'
}

/** The node that was called has left, or has not beaten for longer than its lease. */
export class CallNodeGoneError extends StoaError {
  readonly code = 'E_CALL_NODE_GONE'
}

/** The call failed on the other node; `facts.code` and the message are that node's. */
export class CallFailedError extends StoaError {
  readonly code = 'E_CALL_FAILED'
}

/** The node does not know the method: it runs another version. */
export class CallUnknownError extends StoaError {
  readonly code = 'E_CALL_UNKNOWN'
}

/** The payload or the reply is larger than a call carries. */
export class CallTooLargeError extends StoaError {
  readonly code = 'E_CALL_TOO_LARGE'
}

/** No node leads in the duty, and none took it before the deadline. */
export class NoLeaderError extends StoaError {
  readonly code = 'E_CALL_NO_LEADER'
}

/** No node of the cluster has this name or id. */
export class NodeNotFoundError extends StoaError {
  readonly code = 'E_NODE_NOT_FOUND'
}

/** A node that was asked to drain had not left when the time was over; it goes on draining. */
export class DrainDeadlineError extends StoaError {
  readonly code = 'E_NODE_DRAIN_DEADLINE'
}
