import { backoffMs } from '#lib/backoff.ts'
import { FailureLog } from '#lib/failure-log.ts'
import type { FailureMessages } from '#lib/failure-log.ts'
import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/** A server did not finish opening a connection in time. */
export class ConnectDeadlineError extends StoaError {
  readonly code = 'E_CONNECT_DEADLINE'
}

/** A lost connection is opened again after this long, doubled up to the maximum. */
const retryFirstMs = 100
const retryMaxMs = 2_000
/** Share of each pause that is random, so that all nodes do not come back at the same moment. */
const retryJitter = 0.3
/**
 * A connection that was lost sooner than this counts as a further failure: a server that ends each
 * connection at once is not asked for ten of them a second.
 */
const steadyAfterMs = 5_000
/** One attempt, whatever deadlines the client library has of its own. */
const connectMaxMs = 10_000

export type ReconnectingOptions<C> = {
  /**
   * Opens a connection, or rejects within a deadline. It calls `lost` with the connection that has
   * ended, or that is of no use any more.
   */
  readonly connect: (lost: (connection: C, error: unknown) => void) => Promise<C>
  /** Ends a connection at once, without waiting for the server. */
  readonly destroy: (connection: C) => void
  readonly logger: Logger
  readonly messages: FailureMessages
}

/**
 * Keeps one connection to a server open, and opens the next one when it is lost.
 *
 * Modes: opening; open, until the connection is lost; waiting, for the pause before the next
 * attempt; closed, for good.
 */
export class Reconnecting<C> {
  readonly #options: ReconnectingOptions<C>
  readonly #failureLog: FailureLog
  #connection: C | null = null
  #retry: NodeJS.Timeout | null = null
  #failures = 0
  #openedAtMs = 0
  #closed = false
  #opening: Promise<void>

  constructor(options: ReconnectingOptions<C>) {
    this.#options = options
    this.#failureLog = new FailureLog(options.logger, options.messages)
    this.#opening = this.#open()
  }

  /** Null: there is none now. */
  get connection(): C | null {
    return this.#connection
  }

  /** Resolves when the attempt that is under way has ended, in whichever way. */
  async attempted(): Promise<void> {
    await this.#opening
  }

  /** Gives up this connection, if it is still the one in use. */
  lost(connection: C, error: unknown): void {
    if (this.#connection !== connection) return
    this.#connection = null
    if (performance.now() - this.#openedAtMs >= steadyAfterMs) this.#failures = 0
    // Closing in order may wait for a response that never comes.
    this.#options.destroy(connection)
    this.#again(error)
  }

  /** Gives back the connection that was open, for the caller to end. No other is opened. */
  async close(): Promise<C | null> {
    this.#closed = true
    if (this.#retry !== null) clearTimeout(this.#retry)
    await this.#opening
    const connection = this.#connection
    this.#connection = null
    return connection
  }

  async #open(): Promise<void> {
    const ended = new Set<C>()
    const attempt = this.#options.connect((connection, error) => {
      ended.add(connection)
      this.lost(connection, error)
    })
    try {
      const opened = await withTimeout(attempt, connectMaxMs)
      if (opened === timedOut) {
        attempt.then(this.#options.destroy, () => undefined)
        throw new ConnectDeadlineError('The server did not finish opening a connection in time.')
      }
      if (ended.has(opened)) {
        this.#options.destroy(opened)
        throw new ConnectDeadlineError('The connection ended as soon as it was open.')
      }
      this.#connection = opened
      this.#openedAtMs = performance.now()
      this.#failureLog.success()
    } catch (error) {
      this.#again(error)
    }
  }

  #again(error: unknown): void {
    if (this.#closed || this.#retry !== null) return
    this.#failureLog.failure(error)
    const waitMs = backoffMs(this.#failures, {
      firstMs: retryFirstMs,
      maxMs: retryMaxMs,
      jitter: retryJitter,
    })
    this.#failures += 1
    this.#retry = setTimeout(() => {
      this.#retry = null
      this.#opening = this.#open()
    }, waitMs)
  }
}
