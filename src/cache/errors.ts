import { StoaError } from '#lib/stoa-error.ts'

/**
 * Nothing certain could be had before the reader's deadline, and nothing that may be served stale
 * is there.
 */
export class CacheDeadlineError extends StoaError {
  readonly code = 'E_CACHE_DEADLINE'
}

/**
 * The database has not responded for longer than the lease, and nothing that may be served stale is
 * there: turned away without waiting for it.
 */
export class DatabaseAwayError extends StoaError {
  readonly code = 'E_CACHE_AWAY'
}

/**
 * The write that the reader's token names cannot be seen from this node, though it asked the
 * database: try another node, or later.
 */
export class TokenNotSeenError extends StoaError {
  readonly code = 'E_CACHE_TOKEN'
}

/** More is being loaded than the database can take: turned away at once instead of queued. */
export class CacheOverloadError extends StoaError {
  readonly code = 'E_CACHE_OVERLOAD'
}
