import type { PasswordCost, PasswordHasher } from '#access/password.ts'
import type { Cache } from '#cache/cache.ts'
import type { RoleCache } from '#access/role-cache.ts'
import type { Clock } from '#lib/clock.ts'
import type { Database } from '#database/database.ts'
import type { Logger } from '#lib/logger.ts'

export type AccessOptions = {
  readonly database: Database
  readonly clock: Clock
  readonly logger: Logger
  /** The key of CSRF tokens and device cookies; the same on every node. */
  readonly secret: string
  /** Default: OWASP's parameters. Hashes made with others are renewed at the next sign-in. */
  readonly passwordCost?: PasswordCost
  /**
   * Keeps sessions, API tokens and roles in memory; the change feed drops them. Without it each
   * request reads the database: for commands and tests.
   */
  readonly cache?: Cache
}

/** The dependencies of every module of this part. */
export type AccessContext = {
  readonly database: Database
  readonly clock: Clock
  readonly logger: Logger
  readonly secret: string
  readonly hasher: PasswordHasher
  readonly roleCache: RoleCache
  readonly cache: Cache | null
}

/**
 * The wall clock as the database takes it. Lifetimes are minutes to days, so skew between nodes
 * does not matter.
 */
export function timestamp(ms: number): string {
  return new Date(ms).toISOString()
}
