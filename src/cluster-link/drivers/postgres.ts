import type pg from 'pg'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { LinkUnavailableError } from '#cluster-link/errors.ts'
import { checkMessage } from '#cluster-link/message.ts'
import type { Logger } from '#lib/logger.ts'
import { FailureLog } from '#lib/failure-log.ts'
import { backoffMs } from '#lib/backoff.ts'

export type PostgresClusterLinkOptions = {
  /**
   * Opens a connection to the primary, where alone LISTEN works, or rejects within its deadline.
   * The link closes it.
   */
  readonly connect: () => Promise<pg.Client>
  readonly logger: Logger
}

const channelName = 'stoa_link'
const statementTimeoutMs = 2_000
/** For a server that does not respond to a close. */
const closeMaxMs = 1_000
/** A lost connection is tried again after this long, doubled up to the maximum. */
const retryFirstMs = 100
const retryMaxMs = 2_000
/**
 * One that was lost sooner than this counts as a further failure: whatever ends each connection at
 * once is not asked for ten of them a second.
 */
const steadyAfterMs = 5_000
/**
 * A connection that has carried nothing for so long is asked whether it still leads somewhere: who
 * only listens never learns that it does not.
 */
const probeEveryMs = 5_000
/**
 * Messages on their way at a time; the next are refused at once instead of queueing behind a
 * connection that hangs.
 */
const sendingMax = 100

type Listener = { readonly channel: string; readonly listener: (text: string) => void }

/**
 * LISTEN and NOTIFY on one connection of its own, outside any transaction: a NOTIFY inside the
 * transaction of a write would take a lock that all writers share (R2). All channels travel on one
 * PostgreSQL channel as `channel text`.
 */
export class PostgresClusterLink implements ClusterLink {
  readonly #options: PostgresClusterLinkOptions
  readonly #failureLog: FailureLog
  readonly #listeners = new Set<Listener>()
  readonly #probing: NodeJS.Timeout
  #client: pg.Client | null = null
  #retry: NodeJS.Timeout | null = null
  #failures = 0
  #connectedAtMs = 0
  #sending = 0
  #closed = false
  #last: Promise<void> = Promise.resolve()
  #opening: Promise<void>

  constructor(options: PostgresClusterLinkOptions) {
    this.#options = options
    this.#failureLog = new FailureLog(options.logger, {
      failing: 'Cluster Link lost its connection; changes are found by polling meanwhile',
      recovered: 'Cluster Link is connected again',
    })
    this.#opening = this.#open()
    this.#probing = setInterval(() => void this.#probe(), probeEveryMs).unref()
  }

  get connected(): boolean {
    return this.#client !== null
  }

  async #open(): Promise<void> {
    let client: pg.Client | null = null
    try {
      const opened = await this.#options.connect()
      client = opened
      opened.on('error', (error) => this.#lost(opened, error))
      opened.on('end', () => this.#lost(opened, null))
      opened.on('notification', ({ payload = '' }) => this.#receive(payload))
      await run(opened, { text: `listen ${channelName}` })
      this.#client = opened
      this.#connectedAtMs = performance.now()
      this.#failureLog.success()
      if (this.#closed) await this.#end()
    } catch (error) {
      client?.connection.stream.destroy()
      this.#again(error)
    }
  }

  #lost(client: pg.Client, error: unknown): void {
    if (this.#client !== client) return
    this.#client = null
    if (performance.now() - this.#connectedAtMs >= steadyAfterMs) this.#failures = 0
    // Closing in order may wait for a response that never comes.
    client.connection.stream.destroy()
    this.#again(error)
  }

  #again(error: unknown): void {
    if (this.#closed || this.#retry !== null) return
    this.#failureLog.failure(error)
    const waitMs = backoffMs(this.#failures, { firstMs: retryFirstMs, maxMs: retryMaxMs })
    this.#failures += 1
    this.#retry = setTimeout(() => {
      this.#retry = null
      this.#opening = this.#open()
    }, waitMs)
  }

  /** Anyone who may connect to the database can send anything: a listener that throws is logged. */
  #receive(payload: string): void {
    const space = payload.indexOf(' ')
    const channel = payload.slice(0, space)
    for (const one of this.#listeners) {
      if (one.channel !== channel) continue
      try {
        one.listener(payload.slice(space + 1))
      } catch (error) {
        this.#options.logger.warn({ err: error, channel }, 'a message of Cluster Link was dropped')
      }
    }
  }

  async send(channel: string, text: string): Promise<void> {
    checkMessage(channel, text)
    if (this.#sending >= sendingMax)
      throw new LinkUnavailableError(
        `Cluster Link has ${sendingMax} messages on their way already.`,
      )
    this.#sending += 1
    try {
      await this.#opening
      const client = this.#client
      if (client === null)
        throw new LinkUnavailableError('Cluster Link has no connection to the database.')
      await this.#use(client, {
        name: 'stoa_link_send',
        text: 'select pg_notify($1, $2)',
        values: [channelName, `${channel} ${text}`],
      })
    } finally {
      this.#sending -= 1
    }
  }

  /**
   * One after another. Whatever fails on the connection ends it: a new one is quickly made, and one
   * that hangs would swallow all that follows.
   */
  async #use(client: pg.Client, query: pg.QueryConfig): Promise<void> {
    const turn = this.#last.then(() => run(client, query))
    this.#last = turn.then(
      () => undefined,
      () => undefined,
    )
    try {
      await turn
    } catch (error) {
      this.#lost(client, error)
      throw new LinkUnavailableError('Cluster Link could not send a message.', {}, { cause: error })
    }
  }

  async #probe(): Promise<void> {
    const client = this.#client
    if (client === null || this.#sending > 0) return
    try {
      await this.#use(client, { name: 'stoa_link_probe', text: 'select 1' })
    } catch {
      // It is being made again already.
    }
  }

  listen(channel: string, listener: (text: string) => void): Disposable {
    const one = { channel, listener }
    this.#listeners.add(one)
    return { [Symbol.dispose]: () => void this.#listeners.delete(one) }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#probing)
    if (this.#retry !== null) clearTimeout(this.#retry)
    await this.#opening
    await this.#end()
  }

  async #end(): Promise<void> {
    const client = this.#client
    this.#client = null
    if (client === null) return
    const timer = setTimeout(() => client.connection.stream.destroy(), closeMaxMs)
    await client.end().finally(() => clearTimeout(timer))
  }
}

function run(client: pg.Client, query: pg.QueryConfig): Promise<pg.QueryResult> {
  return client.query({ ...query, query_timeout: statementTimeoutMs } as pg.QueryConfig)
}
