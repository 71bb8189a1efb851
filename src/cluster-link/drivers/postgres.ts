import pg from 'pg'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { LinkUnavailableError } from '#cluster-link/errors.ts'
import { checkMessage } from '#cluster-link/message.ts'
import type { Logger } from '#lib/logger.ts'

export type PostgresLinkOptions = { readonly url: string; readonly logger: Logger }

const channelName = 'stoa_link'
const connectTimeoutMs = 5_000
const statementTimeoutMs = 5_000
/** A lost connection is tried again after this long, doubled up to the maximum. */
const retryFirstMs = 100
const retryMaxMs = 5_000

type Listener = { readonly channel: string; readonly listener: (text: string) => void }

/**
 * LISTEN and NOTIFY on one connection of its own, outside any transaction: a NOTIFY inside the transaction of a write would
 * take a lock that all writers share (R2). All channels travel on one PostgreSQL channel as `channel text`.
 */
export class PostgresLink implements ClusterLink {
  readonly #options: PostgresLinkOptions
  readonly #listeners = new Set<Listener>()
  #client: pg.Client | null = null
  #retry: NodeJS.Timeout | null = null
  #failures = 0
  #closed = false
  #opening: Promise<void>

  constructor(options: PostgresLinkOptions) {
    this.#options = options
    this.#opening = this.#open()
  }

  get connected(): boolean {
    return this.#client !== null
  }

  async #open(): Promise<void> {
    const client = new pg.Client({ connectionString: this.#options.url, connectionTimeoutMillis: connectTimeoutMs, query_timeout: statementTimeoutMs, keepAlive: true })
    client.on('error', (error) => this.#lost(client, error))
    client.on('end', () => this.#lost(client, null))
    client.on('notification', ({ payload = '' }) => this.#hear(payload))
    try {
      await client.connect()
      await client.query(`listen ${channelName}`)
      this.#client = client
      this.#failures = 0
      if (this.#closed) await this.#end()
    } catch (error) {
      await client.end().catch(() => {
        // It never was open, and the first error is the one to tell.
      })
      this.#again(error)
    }
  }

  #lost(client: pg.Client, error: unknown): void {
    if (this.#client !== client) return
    this.#client = null
    this.#again(error)
  }

  #again(error: unknown): void {
    if (this.#closed || this.#retry !== null) return
    this.#options.logger.warn({ err: error }, 'Cluster Link lost its connection; changes are found by polling meanwhile')
    const waitMs = Math.min(retryFirstMs * 2 ** this.#failures, retryMaxMs)
    this.#failures += 1
    this.#retry = setTimeout(() => {
      this.#retry = null
      this.#opening = this.#open()
    }, waitMs)
  }

  #hear(payload: string): void {
    const space = payload.indexOf(' ')
    const channel = payload.slice(0, space)
    for (const one of this.#listeners) if (one.channel === channel) one.listener(payload.slice(space + 1))
  }

  async send(channel: string, text: string): Promise<void> {
    checkMessage(channel, text)
    await this.#opening
    if (this.#client === null) throw new LinkUnavailableError('Cluster Link has no connection to the database.')
    try {
      await this.#client.query({ name: 'stoa_link_send', text: 'select pg_notify($1, $2)', values: [channelName, `${channel} ${text}`] })
    } catch (error) {
      throw new LinkUnavailableError('Cluster Link could not send a message.', {}, { cause: error })
    }
  }

  listen(channel: string, listener: (text: string) => void): Disposable {
    const one = { channel, listener }
    this.#listeners.add(one)
    return { [Symbol.dispose]: () => void this.#listeners.delete(one) }
  }

  async close(): Promise<void> {
    this.#closed = true
    if (this.#retry !== null) clearTimeout(this.#retry)
    await this.#opening
    await this.#end()
  }

  async #end(): Promise<void> {
    const client = this.#client
    this.#client = null
    await client?.end()
  }
}
