import { StoaError } from '#lib/stoa-error.ts'

/**
 * One thing that is wrong with a request: where (`body`, `query`, `params`, `headers`), a JSON
 * pointer into it, and what.
 */
export type Fault = {
  readonly in: 'body' | 'query' | 'params' | 'headers'
  readonly path: string
  readonly message: string
}

/** A parameter, header or body that does not fit the route's schema. */
export class RequestInvalidError extends StoaError {
  readonly code = 'E_REQUEST_INVALID'

  constructor(...faults: readonly Fault[]) {
    super(`${faults.map(sentenceOf).join('; ')}.`, { faults })
  }
}

function sentenceOf({ in: place, path, message }: Fault): string {
  return `${path === '' ? `The ${place}` : `${place} ${path}`} ${message}`
}

/**
 * A body that is not JSON in UTF-8. `position` counts characters from 0; null where it is not
 * known.
 */
export class JsonMalformedError extends StoaError {
  readonly code = 'E_JSON_MALFORMED'

  constructor(reason: string, position: number | null) {
    super(`The body is not valid JSON: ${reason}.`, position === null ? {} : { position })
  }
}

export class RouteNotFoundError extends StoaError {
  readonly code = 'E_ROUTE_NOT_FOUND'
}

export class MethodNotAllowedError extends StoaError {
  readonly code = 'E_METHOD_NOT_ALLOWED'

  constructor(method: string, allow: readonly string[]) {
    super(`${method} is not possible here; use one of ${allow.join(', ')}.`, { allow })
  }
}

export class MediaTypeUnsupportedError extends StoaError {
  readonly code = 'E_MEDIA_TYPE_UNSUPPORTED'
}

export class BodyTooLargeError extends StoaError {
  readonly code = 'E_BODY_TOO_LARGE'
}

export class UrlTooLongError extends StoaError {
  readonly code = 'E_URL_TOO_LONG'
}

export class HeadersTooLargeError extends StoaError {
  readonly code = 'E_HEADERS_TOO_LARGE'
}

/** The bytes of a connection are not HTTP. */
export class RequestMalformedError extends StoaError {
  readonly code = 'E_REQUEST_MALFORMED'
}

/**
 * No `Host`, or more than one, or one that names no host; or framing that servers read in two ways.
 */
export class HostInvalidError extends StoaError {
  readonly code = 'E_HOST_INVALID'
}

/** The client did not send its request in time. */
export class RequestTimeoutError extends StoaError {
  readonly code = 'E_REQUEST_TIMEOUT'
}

/** More requests in flight than this node takes on; nothing was done. */
export class ServerBusyError extends StoaError {
  readonly code = 'E_SERVER_BUSY'

  constructor() {
    super('This node has all the requests it can take; try again shortly.', { retryAfterS: 1 })
  }
}

/**
 * The response was not ready within the route's deadline. A write may have taken effect: repeat it
 * with the same `Idempotency-Key`.
 */
export class DeadlineError extends StoaError {
  readonly code = 'E_DEADLINE'
}

export class NotReadyError extends StoaError {
  readonly code = 'E_NOT_READY'
}

/** No credentials where some are needed. Wrong ones are refused by `access/`. */
export class SignInNeededError extends StoaError {
  readonly code = 'E_SIGN_IN_NEEDED'
}

/** `If-Match` or `If-None-Match` does not hold any more. */
export class PreconditionError extends StoaError {
  readonly code = 'E_PRECONDITION'
}

/** The same `Idempotency-Key` came before with another request. */
export class IdempotencyKeyReusedError extends StoaError {
  readonly code = 'E_IDEMPOTENCY_KEY_REUSED'
}

/** The first request with this `Idempotency-Key` was still running when the wait for it ended. */
export class IdempotencyKeyBusyError extends StoaError {
  readonly code = 'E_IDEMPOTENCY_KEY_BUSY'
}

/** A range of bytes that begins past the end of the file. */
export class RangeNotSatisfiableError extends StoaError {
  readonly code = 'E_RANGE'

  constructor(bytes: number) {
    super(`The file has ${bytes} bytes; the range begins past its end.`, { bytes })
  }
}

/** A resumable upload by another version of the protocol than the one spoken here. */
export class TusVersionError extends StoaError {
  readonly code = 'E_TUS_VERSION'

  constructor(version: string) {
    super(`Send "Tus-Resumable: ${version}".`, { version })
  }
}

/** A defect. The log has the cause under the request id. */
export class InternalError extends StoaError {
  readonly code = 'E_INTERNAL'
}

export class ReceiptNotFoundError extends StoaError {
  readonly code = 'E_RECEIPT_NOT_FOUND'

  constructor() {
    super('There is no receipt for this: send what a write returned as Stoa-Token.')
  }
}
