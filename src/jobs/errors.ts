import { StoaError } from '#lib/stoa-error.ts'

/**
 * This attempt does not own the job any more: it was given to another node, cancelled, or has
 * ended. Nothing of the transaction was committed. Stop acting on it.
 */
export class JobLostError extends StoaError {
  readonly code = 'E_JOB_LOST'
}

/** A handler throws it for a job that no further attempt can do: that is parked at once. */
export class JobRefusedError extends StoaError {
  readonly code = 'E_JOB_REFUSED'
}

/** An attempt did not end within the time that its kind allows. */
export class JobTimeoutError extends StoaError {
  readonly code = 'E_JOB_TIMEOUT'
}

/** The payload, a key or the progress of a job is larger than the queue carries. */
export class JobTooLargeError extends StoaError {
  readonly code = 'E_JOB_TOO_LARGE'
}

/** There is no job with this id, or not any more. */
export class JobNotFoundError extends StoaError {
  readonly code = 'E_JOB_NOT_FOUND'
}

/** The state of the job does not allow what was asked; `facts.state` has it. */
export class JobStateError extends StoaError {
  readonly code = 'E_JOB_STATE'
}
