import { StoaError } from '#lib/stoa-error.ts'

/** The export cannot be written there. What was there before still is. */
export class ExportTargetError extends StoaError {
  readonly code = 'E_EXPORT_TARGET'
}

/** Thrown through the transaction of an export when it is told to stop; never seen outside. */
export class ExportInterrupted extends Error {}
