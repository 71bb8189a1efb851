import type pg from 'pg'
import { silentLogger } from '#lib/logger.ts'
import { Hosts, setDirectUrl } from '#database/postgres/hosts.ts'

const connectTimeoutMs = 3_000
const keepAliveDelayMs = 5_000
/** A connection that listens is idle, and must not be closed for it. */
const serverOptions = '-c idle_session_timeout=0'

/**
 * Opens connections outside any pool, each to the host of the URL that takes writes now. The caller
 * closes them. Errors: those of `Hosts.connect`.
 */
export function primaryConnector(options: {
  readonly url: string
  readonly applicationName: string
}): () => Promise<pg.Client> {
  const hosts = new Hosts({
    url: options.url,
    wanted: 'primary',
    connectTimeoutMs,
    poolerRefusal: setDirectUrl,
    logger: silentLogger,
  })
  const client = {
    application_name: options.applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveDelayMs,
  }
  return async () => (await hosts.connect({ client, session: { options: serverOptions } })).client
}
