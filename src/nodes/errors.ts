import { StoaError } from '#lib/stoa-error.ts'

/** Another node leads now, or may: nothing of the transaction was committed. Stop acting in this role. */
export class FenceLostError extends StoaError {
  readonly code = 'E_NODES_FENCE'
}

/** The node did not answer a call in time. Whether it did what was asked is not known. */
export class CallDeadlineError extends StoaError {
  readonly code = 'E_CALL_DEADLINE'
}

/** The node that was called has left, or has not been heard of for longer than its lease. */
export class CallNodeGoneError extends StoaError {
  readonly code = 'E_CALL_NODE_GONE'
}

/** The node answered that what was asked failed there; `facts.code` and the message are its own. */
export class CallFailedError extends StoaError {
  readonly code = 'E_CALL_FAILED'
}

/** The node does not know the method: it runs another version. */
export class CallUnknownError extends StoaError {
  readonly code = 'E_CALL_UNKNOWN'
}

/** What is sent is larger than a call carries. */
export class CallTooLargeError extends StoaError {
  readonly code = 'E_CALL_TOO_LARGE'
}

/** No node leads in the role, and none took it before the deadline. */
export class NoLeaderError extends StoaError {
  readonly code = 'E_CALL_NO_LEADER'
}
