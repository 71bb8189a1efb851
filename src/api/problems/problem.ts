import { entryJson } from '#api/delivery/entry-json.ts'
import {
  BodyTooLargeError,
  DeadlineError,
  InternalError,
  JsonMalformedError,
  MediaTypeUnsupportedError,
  RequestInvalidError,
  RequestMalformedError,
  UrlTooLongError,
} from '#api/problems/errors.ts'
import type { Fault } from '#api/problems/errors.ts'
import { statuses } from '#api/problems/statuses.ts'
import { VersionConflictError } from '#content/errors.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** Where the reference page of the errors is served; `type` is this and the code as anchor. */
export const errorsPage = '/docs/reference/errors'

/**
 * Seconds that a client is asked to wait before it repeats what got a 503, unless the error's facts
 * name `retryAfterS`.
 */
const retryAfterS = 1

/** RFC 9457. The facts of the error are properties of their own beside these. */
export type Problem = {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly code: string
  readonly requestId: string
  readonly [fact: string]: unknown
}

export type ProblemResponse = {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Problem
  readonly defect: boolean
}

/**
 * The response to an error. `defect`: the log must have the error itself, since the response does
 * not show it.
 */
export function problemResponse(error: unknown, requestId: string): ProblemResponse {
  const known = translate(error)
  const row = known === null ? undefined : statuses[known.code]
  const shown = known === null || row === undefined ? internal() : forClients(known)
  const [status, title] = row ?? statuses['E_INTERNAL']!
  const body: Problem = {
    ...shown.facts,
    ...bothSides(shown),
    type: `${errorsPage}#${shown.code.toLowerCase()}`,
    title,
    status,
    detail: shown.message,
    code: shown.code,
    requestId,
  }
  return { status, headers: headersOf(status, shown), body, defect: shown.code === 'E_INTERNAL' }
}

/**
 * A lost race shows both sides: what there is now, and what the caller wanted. Only content knows
 * whether the caller may read it, and says it.
 */
function bothSides(error: StoaError): object {
  if (!(error instanceof VersionConflictError)) return {}
  return { current: JSON.parse(entryJson(error.current)) as object, yours: error.yours }
}

/** Which hosts the database has, and what they reported, is for the log alone. */
function forClients(error: StoaError): StoaError {
  return error instanceof DatabaseUnavailableError
    ? new DatabaseUnavailableError('The database cannot be reached now; try again.')
    : error
}

function internal(): StoaError {
  return new InternalError(
    'Something failed on this side. The log has the cause under this request id.',
  )
}

function headersOf(status: number, error: StoaError): Record<string, string> {
  const headers: Record<string, string> = { 'cache-control': 'no-store' }
  const wait = error.facts['retryAfterS']
  if (typeof wait === 'number') headers['retry-after'] = String(Math.max(1, Math.ceil(wait)))
  else if (status === 503) headers['retry-after'] = String(retryAfterS)
  // The rest of the request may still come, and it would not be read.
  if (status === 408) headers['connection'] = 'close'
  if (status === 401) headers['www-authenticate'] = 'Bearer realm="stoa"'
  const allow = error.facts['allow']
  if (status === 405 && Array.isArray(allow)) headers['allow'] = allow.join(', ')
  return headers
}

/** An error of ours, or the one of ours that says the same as Fastify's; null: a defect. */
export function translate(error: unknown): StoaError | null {
  if (error instanceof StoaError) return error
  if (!(error instanceof Error)) return null
  const { code, statusCode, validation, validationContext } = error as Partial<FastifyFailure>
  if (validation !== undefined)
    return new RequestInvalidError(
      ...validation.map((violation) => faultOf(violation, validationContext ?? 'body')),
    )
  const make = typeof code === 'string' ? fastifyErrors[code] : undefined
  if (make !== undefined) return make(error)
  if (
    typeof code === 'string' &&
    code.startsWith('FST_') &&
    statusCode !== undefined &&
    statusCode >= 400 &&
    statusCode < 500
  ) {
    return new RequestMalformedError('The request cannot be understood.')
  }
  return null
}

type FastifyFailure = {
  readonly code: string
  readonly statusCode: number
  readonly validation: readonly Violation[]
  readonly validationContext: string
}

/** As ajv reports it. */
type Violation = {
  readonly instancePath?: string
  readonly message?: string
  readonly keyword?: string
  readonly params?: Readonly<Record<string, unknown>>
}

const fastifyErrors: Readonly<Record<string, (error: Error) => StoaError>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: () =>
    new BodyTooLargeError('The body is larger than this route takes.'),
  FST_REQ_FILE_TOO_LARGE: () => new BodyTooLargeError('The file is larger than this route takes.'),
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () =>
    new MediaTypeUnsupportedError(
      'Send application/json, or what the API reference names for this route.',
    ),
  FST_INVALID_MULTIPART_CONTENT_TYPE: () =>
    new MediaTypeUnsupportedError('Send multipart/form-data.'),
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: () =>
    new RequestMalformedError('The body is not as long as Content-Length says.'),
  FST_ERR_CTP_EMPTY_JSON_BODY: () => new JsonMalformedError('it is empty', 0),
  FST_ERR_BAD_URL: () =>
    new RequestMalformedError('The path of the URL is not valid percent-encoding.'),
  FST_ERR_MAX_PARAM_LENGTH: () =>
    new UrlTooLongError('A part of the path is longer than any id or slug.'),
  FST_ERR_HANDLER_TIMEOUT: deadlineError,
}

export function deadlineError(): DeadlineError {
  return new DeadlineError(
    'The response was not ready in time; a write may still have taken effect. Repeat it with ' +
      'the same Idempotency-Key.',
  )
}

const places: Readonly<Record<string, Fault['in']>> = {
  body: 'body',
  querystring: 'query',
  params: 'params',
  headers: 'headers',
}

function faultOf(violation: Violation | undefined, context: string): Fault {
  const place = places[context] ?? 'body'
  const path = violation?.instancePath ?? ''
  const params = violation?.params ?? {}
  const extra = params['additionalProperty'] ?? params['unevaluatedProperty']
  if (typeof extra === 'string')
    return { in: place, path: `${path}/${pointer(extra)}`, message: 'is not known here' }
  const missing = params['missingProperty']
  if (typeof missing === 'string')
    return { in: place, path: `${path}/${pointer(missing)}`, message: 'is missing' }
  const allowed = params['allowedValues']
  if (Array.isArray(allowed))
    return { in: place, path, message: `must be one of ${allowed.join(', ')}` }
  return { in: place, path, message: violation?.message ?? 'is not valid' }
}

function pointer(name: string): string {
  return name.slice(0, 100).replaceAll('~', '~0').replaceAll('/', '~1')
}
