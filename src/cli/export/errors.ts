import { StoaError } from '#lib/stoa-error.ts'

/** The export cannot be written there. What was there before still is. */
export class ExportTargetError extends StoaError {
  readonly code = 'E_EXPORT_TARGET'
}

/** Ends the transaction of an export that is interrupted; callers never see it. */
export class ExportInterrupted extends Error {}
