import type { Logger } from '#lib/logger.ts'

/**
 * Failures with less than this between them are one outage, and an outage is over when nothing has
 * failed for this long.
 */
const calmMs = 10_000

export type FailureMessages = { readonly failing: string; readonly recovered: string }

/**
 * Logs the outcome of something that is tried over and over: the first failure and the recovery,
 * and each failure in between at the level `debug`. A database that is away for an hour is not ten
 * thousand warnings, and neither is one that comes and goes.
 *
 * Modes: `well`; `failing`, until it works; `calming`, for a while after the recovery was logged,
 * where a failure begins `unsteady`; `unsteady`, logged as such, until it has worked without a
 * failure for a while.
 */
export class FailureLog {
  readonly #logger: Logger
  readonly #messages: FailureMessages
  #mode: 'well' | 'failing' | 'calming' | 'unsteady' = 'well'
  #failures = 0
  #calm: NodeJS.Timeout | null = null

  constructor(logger: Logger, messages: FailureMessages) {
    this.#logger = logger
    this.#messages = messages
  }

  failure(error: unknown, facts: object = {}): void {
    this.#failures += 1
    this.#stopCalming()
    const { failing } = this.#messages
    if (this.#mode === 'well') {
      this.#mode = 'failing'
      this.#logger.warn({ err: error, ...facts }, failing)
    } else if (this.#mode === 'calming') {
      this.#mode = 'unsteady'
      this.#logger.warn({ err: error, ...facts, comesAndGoes: true }, failing)
    } else this.#logger.debug({ err: error, ...facts }, failing)
  }

  success(): void {
    if (this.#mode === 'failing') {
      this.#logRecovery()
      this.#mode = 'calming'
    }
    if (this.#mode !== 'well') this.#calm ??= setTimeout(() => this.#becomeWell(), calmMs).unref()
  }

  #becomeWell(): void {
    this.#calm = null
    if (this.#mode === 'unsteady') this.#logRecovery()
    this.#mode = 'well'
  }

  #logRecovery(): void {
    this.#logger.info({ failures: this.#failures }, this.#messages.recovered)
    this.#failures = 0
  }

  #stopCalming(): void {
    if (this.#calm !== null) clearTimeout(this.#calm)
    this.#calm = null
  }
}
