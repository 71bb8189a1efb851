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
  /** Key of the CSRF tokens; the same on every node. */
  readonly secret: string
  /** Default: OWASP's parameters. Hashes made with others are renewed at the next login. */
  readonly passwordCost?: PasswordCost
  /**
   * The cluster's cache: who somebody is is answered from memory, and forgotten by the change feed.
   * Without it the database is asked.
   */
  readonly cache?: Cache
}

/** What every module of this part stands on. */
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
