import { StoaError } from '#lib/stoa-error.ts'

/** The hint could not be sent. Nothing is lost but time: the others find the change by polling. */
export class LinkUnavailableError extends StoaError {
  readonly code = 'E_LINK_UNAVAILABLE'
}

/** A message was longer than the link carries, or not ASCII: a defect of the sender. */
export class LinkMessageError extends StoaError {
  readonly code = 'E_LINK_MESSAGE'
}
