import type { Logger } from '#lib/logger.ts'

/**
 * What comes again within so long of its end is still the same trouble, and is over when it has
 * kept away for so long.
 */
const calmMs = 10_000

/**
 * Something that is tried over and over. The log hears of its first failure and of its end, and of
 * each in between at the level `debug`: a database that is away for an hour is not ten thousand
 * warnings, and neither is one that comes and goes.
 *
 * Modes: `well`; `failing`, until it works; `calming`, for a while after the end was told, where a
 * failure begins `unsteady`; `unsteady`, told as such, until it has worked without a failure for a
 * while.
 */
export class Trouble {
  readonly #logger: Logger
  readonly #failing: string
  readonly #over: string
  #mode: 'well' | 'failing' | 'calming' | 'unsteady' = 'well'
  #failures = 0
  #calm: NodeJS.Timeout | null = null

  constructor(logger: Logger, sentences: { readonly failing: string; readonly over: string }) {
    this.#logger = logger
    this.#failing = sentences.failing
    this.#over = sentences.over
  }

  failed(error: unknown, facts: object = {}): void {
    this.#failures += 1
    this.#stir()
    if (this.#mode === 'well') {
      this.#mode = 'failing'
      this.#logger.warn({ err: error, ...facts }, this.#failing)
    } else if (this.#mode === 'calming') {
      this.#mode = 'unsteady'
      this.#logger.warn({ err: error, ...facts, comesAndGoes: true }, this.#failing)
    } else this.#logger.debug({ err: error, ...facts }, this.#failing)
  }

  worked(): void {
    if (this.#mode === 'failing') {
      this.#tellEnd()
      this.#mode = 'calming'
    }
    if (this.#mode !== 'well') this.#calm ??= setTimeout(() => this.#calmed(), calmMs).unref()
  }

  #calmed(): void {
    this.#calm = null
    if (this.#mode === 'unsteady') this.#tellEnd()
    this.#mode = 'well'
  }

  #tellEnd(): void {
    this.#logger.info({ failures: this.#failures }, this.#over)
    this.#failures = 0
  }

  #stir(): void {
    if (this.#calm !== null) clearTimeout(this.#calm)
    this.#calm = null
  }
}
