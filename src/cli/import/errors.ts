import { StoaError } from '#lib/stoa-error.ts'

/**
 * What should be imported cannot be read: it is not there, or not what the command takes. Nothing
 * was written.
 */
export class ImportSourceError extends StoaError {
  readonly code = 'E_IMPORT_SOURCE'
}

/** The content types that the import needs cannot be made. Nothing was written. */
export class ImportPlanError extends StoaError {
  readonly code = 'E_IMPORT_PLAN'
}
