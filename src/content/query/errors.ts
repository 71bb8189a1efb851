import { StoaError } from '#lib/stoa-error.ts'

/**
 * A query names a field that the type does not have, that the reader may not see, or that cannot be
 * used that way.
 */
export class QueryFieldError extends StoaError {
  readonly code = 'E_QUERY_FIELD'
}

/** The comparison does not exist for this kind of field. */
export class QueryOperatorError extends StoaError {
  readonly code = 'E_QUERY_OPERATOR'
}

/** The value does not fit the field that it is compared with. */
export class QueryValueError extends StoaError {
  readonly code = 'E_QUERY_VALUE'
}

/**
 * The query is larger than what one request may ask. Facts: `limit`, the largest number allowed.
 */
export class QueryLimitError extends StoaError {
  readonly code = 'E_QUERY_LIMIT'
}

/** The caller has more costly queries than their share. Facts: `retryAfterS`. */
export class QueryBusyError extends StoaError {
  readonly code = 'E_QUERY_BUSY'
}

/** A query that no index serves took too long. Facts: `limitMs`. */
export class QueryTooSlowError extends StoaError {
  readonly code = 'E_QUERY_TOO_SLOW'
}

/** `after` is not a cursor of this type and sort. Begin again without it. */
export class QueryCursorError extends StoaError {
  readonly code = 'E_QUERY_CURSOR'
}

/** The query string has a parameter that is unknown, repeated or malformed. */
export class QueryParameterError extends StoaError {
  readonly code = 'E_QUERY_PARAMETER'
}

/** A value of a filterable field is too long to be kept in an index. */
export class FilterValueTooLongError extends StoaError {
  readonly code = 'E_FILTER_VALUE_TOO_LONG'
}
