import { StoaError } from '#lib/stoa-error.ts'

/**
 * The command line itself is wrong: a bad argument, a file that is not there, or a question without
 * a reply. Exit status 2.
 */
export class UsageError extends StoaError {
  readonly code = 'E_USAGE'
}
