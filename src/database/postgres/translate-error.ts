import pg from 'pg'
import {
  ConstraintError,
  DatabaseTimeoutError,
  DatabaseUnavailableError,
  SerializationError,
} from '#database/errors.ts'
import { StoaError } from '#lib/stoa-error.ts'

const constraintKinds: Record<string, ConstraintError['kind']> = {
  '23505': 'unique',
  '23503': 'foreignKey',
  '23514': 'check',
  '23502': 'notNull',
  '23P01': 'exclusion',
}

/**
 * The server takes reads only: a standby, or one that was made read-only. It is left for the
 * primary.
 */
export const readOnlyCode = '25006'
/** Errors of pg itself have no code. */
const brokenMessages = new RegExp(
  'Connection terminated|connection error|not queryable|timeout expired|' +
    'does not support SSL|client was closed',
  'i',
)
/**
 * A table changed under a prepared statement. Nothing ran; a connection that has not prepared it
 * yet will do.
 */
const planChangedCode = '0A000'

/**
 * True if the connection must not be used again. After an error of one statement that the server
 * reported, it can.
 */
export function isConnectionBroken(error: unknown): boolean {
  if (!(error instanceof pg.DatabaseError)) return true
  return error.severity !== 'ERROR' || error.code === readOnlyCode || isPlanChanged(error)
}

/** The deadline of this side has passed: the server has not even cancelled the statement. */
export function isUnanswered(error: unknown): boolean {
  return error instanceof Error && error.message === 'Query read timeout'
}

export function isPlanChanged(error: unknown): boolean {
  return (
    error instanceof pg.DatabaseError &&
    error.code === planChangedCode &&
    error.message.includes('cached plan')
  )
}

/**
 * Turns what pg throws into the errors of the port. What is none of them stays as it is: a defect
 * in a statement.
 */
export function translate(error: unknown): unknown {
  if (error instanceof StoaError || !(error instanceof Error)) return error
  if (error instanceof pg.DatabaseError) return translateServer(error)
  const cause = { cause: error }
  if (isUnanswered(error))
    return new DatabaseTimeoutError('The database did not respond within the deadline.', {}, cause)
  const { code } = error as { code?: unknown }
  if (
    typeof code === 'string' &&
    /^(E[A-Z]+|ERR_SSL.*|ERR_TLS.*|[A-Z_]*CERT[A-Z_]*|UNABLE_TO.*)$/.test(code) &&
    !code.startsWith('ERR_INVALID_ARG')
  ) {
    return new DatabaseUnavailableError(
      `The database cannot be reached (${code}); try again.`,
      { code },
      cause,
    )
  }
  if (brokenMessages.test(error.message)) {
    return new DatabaseUnavailableError(
      'The connection to the database broke; try again.',
      {},
      cause,
    )
  }
  return error
}

function translateServer(error: pg.DatabaseError): unknown {
  const code = error.code ?? ''
  const cause = { cause: error }
  // Not the server's, which has one: pg could not read what came.
  if (code === '')
    return new DatabaseUnavailableError(
      'The connection to the database broke; try again.',
      {},
      cause,
    )
  const kind = constraintKinds[code]
  if (kind !== undefined)
    return new ConstraintError(kind, error.constraint ?? error.column ?? '', error)
  if (code === '40001' || code === '40P01')
    return new SerializationError(
      'The database could not order two transactions; run it again.',
      {},
      cause,
    )
  if (isPlanChanged(error))
    return new SerializationError('A table changed meanwhile; run it again.', {}, cause)
  if (code === '57014')
    return new DatabaseTimeoutError(
      'A statement took longer than its deadline and was cancelled.',
      {},
      cause,
    )
  if (code === '55P03')
    return new DatabaseTimeoutError('A lock was not free within its deadline.', {}, cause)
  if (code === readOnlyCode)
    return new DatabaseUnavailableError(
      'The database server takes no writes now, as in a failover; try again.',
      { code },
      cause,
    )
  if (code.startsWith('28')) {
    return new DatabaseUnavailableError(
      `The database refuses the login (${error.message}): check STOA_DATABASE_URL.`,
      { code, permanent: true },
      cause,
    )
  }
  if (code === '42501') {
    return new DatabaseUnavailableError(
      `The database refuses that to its user (${error.message}): make the user in ` +
        `STOA_DATABASE_URL the owner of the database and of what is in it.`,
      { code, permanent: true },
      cause,
    )
  }
  if (code === '3D000') {
    return new DatabaseUnavailableError(
      `${error.message}: create it, or correct STOA_DATABASE_URL.`,
      { code, permanent: true },
      cause,
    )
  }
  // 08 connection, 53 resources (too many connections, disk full), 57P shut down or starting, 25P03
  // idle in transaction for too long.
  if (/^(08|53|57P)/.test(code) || code === '25P03' || error.severity === 'FATAL') {
    return new DatabaseUnavailableError(
      `The database cannot serve now (${error.message}); try again.`,
      { code },
      cause,
    )
  }
  return error
}
