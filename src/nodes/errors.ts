import { StoaError } from '#lib/stoa-error.ts'

/** Another node leads now, or may: nothing of the transaction was committed. Stop acting in this role. */
export class FenceLostError extends StoaError {
  readonly code = 'E_NODES_FENCE'
}
