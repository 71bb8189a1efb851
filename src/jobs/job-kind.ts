import type { BackoffOptions } from '#lib/backoff.ts'

/** Attempts of a kind that says nothing else; the database's own default is the same. */
const attemptsMaxDefault = 10
const concurrencyDefault = 2
const timeoutDefaultMs = 60_000
const backoffDefault = { firstMs: 1_000, maxMs: 600_000 }
/** Recurring work is tried for ever: a round that was parked would end all further ones. */
const attemptsMaxRecurring = 2 ** 31 - 1
const namePattern = /^[a-z][a-z0-9-]{0,39}$/

/** The properties that all jobs of one kind share. `Payload` is JSON. */
export type JobKind<Payload> = {
  readonly name: string
  /** How many of them run at the same time on one node. */
  readonly concurrency: number
  /** A job that has failed so often is parked. */
  readonly attemptsMax: number
  /** The pause before another attempt; half of it is random. */
  readonly backoff: Pick<BackoffOptions, 'firstMs' | 'maxMs'>
  /** An attempt that takes longer is aborted and counts as failed. */
  readonly timeoutMs: number
  /** A job that is done is shown for so long. 0: it is deleted with its effect. */
  readonly keepMs: number
  /** Set for recurring work: one job of the kind waits always, due so long after the last one. */
  readonly everyMs: number | null
  /** Never set: it only carries the type. */
  readonly payload?: Payload
}

export type JobKindOptions = Partial<Omit<JobKind<unknown>, 'name' | 'payload'>>

/** Describes a kind, beside the part that owns it. Its name must be unique and never change. */
export function jobKind<Payload>(name: string, options: JobKindOptions = {}): JobKind<Payload> {
  if (!namePattern.test(name))
    throw new Error(`A kind of jobs is up to 40 of a–z, 0–9 and "-", not "${name}".`)
  return {
    name,
    concurrency: concurrencyDefault,
    attemptsMax: typeof options.everyMs !== 'number' ? attemptsMaxDefault : attemptsMaxRecurring,
    backoff: backoffDefault,
    timeoutMs: timeoutDefaultMs,
    keepMs: 0,
    everyMs: null,
    ...options,
  }
}
