import type { Queryable, Sessions, Statement } from '#database/database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'

/**
 * One connection kept for as long as it works, so that what was learned on it stays about the same
 * server.
 */
export class HeldSession {
  readonly #session: Promise<Queryable>
  readonly #timeoutMs: number
  #release: (() => void) | null = null

  /** `prepare` runs first on the new connection. Each statement may take `timeoutMs`. */
  constructor(
    database: Sessions,
    timeoutMs: number,
    prepare: (session: Queryable) => Promise<void>,
  ) {
    this.#timeoutMs = timeoutMs
    const released = new Promise<void>((resolve) => {
      this.#release = resolve
    })
    this.#session = new Promise((resolve, reject) => {
      database
        .session(async (session) => {
          await prepare(session)
          resolve(session)
          await released
          // A late response may still arrive on it, so the pool must not reuse it.
          throw new DatabaseUnavailableError('The connection was abandoned.')
        })
        .catch(reject)
    })
    this.#session.catch(() => {
      // `run` rejects with the same error.
    })
  }

  async run<Row extends object>(
    statement: Statement<Row>,
    values: readonly unknown[],
  ): Promise<Row[]> {
    return (await this.#session).run({ ...statement, timeoutMs: this.#timeoutMs }, values)
  }

  /**
   * Never waits: the connection ends by itself, at the latest when its statement's deadline is
   * over.
   */
  giveUp(): void {
    this.#release?.()
  }
}
