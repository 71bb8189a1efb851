import type { Logger } from '#lib/logger.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** RefusalLog of which the last is so long ago are over. */
const calmMs = 10_000
/** Codes whose cause is neither this node nor its clients. Each is logged by itself. */
const codes = new Set([
  'E_CACHE_AWAY',
  'E_CACHE_DEADLINE',
  'E_DATABASE_TIMEOUT',
  'E_DATABASE_UNAVAILABLE',
  'E_FILE_STORE_UNAVAILABLE',
])

type Kind = { count: number; lastAtMs: number; message: string }

/**
 * Requests that are refused because a part is down. The client is asked to try again, and does not
 * learn why: a full disk of the database is the operator's business. The log has the first of each
 * kind and of the end, and the node's report has those of the last moments.
 */
export class RefusalLog {
  readonly #logger: Logger
  readonly #kinds = new Map<string, Kind>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** An error that a request got for its response. */
  note(error: unknown): void {
    if (!(error instanceof StoaError) || !codes.has(error.code)) return
    const { code, message } = error
    const known = this.#kinds.get(code)
    const kind: Kind = known ?? { count: 0, lastAtMs: 0, message }
    Object.assign(kind, { count: kind.count + 1, lastAtMs: performance.now(), message })
    if (known !== undefined) return
    this.#kinds.set(code, kind)
    this.#logger.warn({ err: error, code }, 'requests are refused')
    this.#watch(code, kind, calmMs)
  }

  /** Describes the reasons for which requests were refused in the last moments. */
  now(): string[] {
    return [...this.#kinds.values()].map(
      ({ message }) => `requests were refused in the last ${calmMs / 1_000} s: ${message}`,
    )
  }

  #watch(code: string, kind: Kind, afterMs: number): void {
    setTimeout(() => {
      const leftMs = kind.lastAtMs + calmMs - performance.now()
      if (leftMs > 0) {
        this.#watch(code, kind, leftMs)
        return
      }
      this.#kinds.delete(code)
      this.#logger.info({ code, refused: kind.count }, 'requests are no longer refused')
    }, afterMs).unref()
  }
}
