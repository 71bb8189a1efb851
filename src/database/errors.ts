import { StoaError } from '#lib/stoa-error.ts'

/**
 * No connection could be had, or it broke under a statement. A write may or may not have taken
 * effect.
 */
export class DatabaseUnavailableError extends StoaError {
  readonly code = 'E_DATABASE_UNAVAILABLE'
  /** Trying again cannot help: a wrong password, a database that is missing. */
  readonly permanent: boolean

  constructor(
    message: string,
    facts: Readonly<Record<string, unknown>> & { readonly permanent?: boolean } = {},
    options?: { cause?: unknown },
  ) {
    super(message, facts, options)
    this.permanent = facts.permanent === true
  }
}

/** A statement or the wait for a connection passed its deadline. */
export class DatabaseTimeoutError extends StoaError {
  readonly code = 'E_DATABASE_TIMEOUT'
}

/**
 * Deadlock or serialization failure: nothing was written, and the whole transaction can be run
 * again.
 */
export class SerializationError extends StoaError {
  readonly code = 'E_DATABASE_SERIALIZATION'
}

/**
 * The database itself refused a row. Parts catch it by `constraint` and say what it means in their
 * own words.
 */
export class ConstraintError extends StoaError {
  readonly code = 'E_DATABASE_CONSTRAINT'
  readonly constraint: string
  readonly kind: 'unique' | 'foreignKey' | 'check' | 'notNull' | 'exclusion'

  constructor(kind: ConstraintError['kind'], constraint: string, cause: unknown) {
    super(
      `The database refused a row: ${kind} constraint ${constraint}.`,
      { constraint, kind },
      { cause },
    )
    this.kind = kind
    this.constraint = constraint
  }
}

/** The schema in the database is not one that this program can work with. */
export class MigrationError extends StoaError {
  readonly code = 'E_DATABASE_MIGRATION'
}

/** The database server is one that Stoa cannot work with: too old, or not a PostgreSQL. */
export class UnsupportedDatabaseError extends StoaError {
  readonly code = 'E_DATABASE_UNSUPPORTED'
}
