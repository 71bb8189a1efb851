import type { Logger } from '#lib/logger.ts'

/**
 * Something that is tried over and over. The log hears of its first failure and of its end, and of each in between at the level `debug`: a
 * database that is away for an hour is not ten thousand warnings.
 */
export class Trouble {
  readonly #logger: Logger
  readonly #failing: string
  readonly #over: string
  #failures = 0

  constructor(logger: Logger, sentences: { readonly failing: string; readonly over: string }) {
    this.#logger = logger
    this.#failing = sentences.failing
    this.#over = sentences.over
  }

  failed(error: unknown, facts: object = {}): void {
    this.#failures += 1
    this.#logger[this.#failures === 1 ? 'warn' : 'debug']({ err: error, ...facts }, this.#failing)
  }

  worked(): void {
    if (this.#failures === 0) return
    this.#logger.info({ failures: this.#failures }, this.#over)
    this.#failures = 0
  }
}
