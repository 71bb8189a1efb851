import { StoaError } from '#lib/stoa-error.ts'

/** The setting names no HTTP cache that there is a driver for. */
export class HttpCacheUrlError extends StoaError {
  readonly code = 'E_HTTP_CACHE_URL'
}

/** The edge did not respond, or failed; whether the purge arrived is not known. */
export class EdgeAwayError extends StoaError {
  readonly code = 'E_HTTP_CACHE_AWAY'
}

/** The edge accepts no more purges for this long. */
export class EdgeBusyError extends StoaError {
  readonly code = 'E_HTTP_CACHE_BUSY'
  readonly retryAfterMs: number

  constructor(edge: string, retryAfterMs: number) {
    super(`${edge} accepts no more purges for ${Math.ceil(retryAfterMs / 1_000)} s.`, {
      edge,
      retryAfterMs,
    })
    this.retryAfterMs = retryAfterMs
  }
}

/** The edge refuses purges from here: its key, its configuration or the setting is wrong. */
export class EdgeRefusedError extends StoaError {
  readonly code = 'E_HTTP_CACHE_REFUSED'
}
