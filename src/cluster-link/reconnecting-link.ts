import type { ClusterLink, LinkServer } from '#cluster-link/cluster-link.ts'
import { linkTextMax } from '#cluster-link/cluster-link.ts'
import { LinkUnavailableError } from '#cluster-link/errors.ts'
import { checkMessage } from '#cluster-link/message.ts'
import type { Logger } from '#lib/logger.ts'
import { Reconnecting } from '#lib/reconnecting.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/** A message that the server has not taken by then means that the connection leads nowhere. */
const sendMaxMs = 2_000
/** For a server that does not respond to a close. */
const closeMaxMs = 1_000
/**
 * Each connection is asked this often whether it still leads somewhere: one that only listens never
 * learns that it does not.
 */
const probeEveryMs = 5_000
/**
 * Messages on their way at a time; the next are refused at once instead of queueing behind a
 * connection that hangs.
 */
const sendingMax = 100
/** Other clusters that one look at the server names. */
const clustersMax = 100

/** A driver's connection to its server. All of its channels travel as `channel text`. */
export interface LinkConnection {
  /** Resolves when the server has taken the message. */
  publish(message: string): Promise<void>
  /** Resolves when the server has shown that this connection still sends and receives. */
  probe(): Promise<void>
  /** Ends in order. */
  close(): Promise<void>
  /** Ends at once. */
  destroy(): void
  readonly server: LinkServer
  /** Calls `found` with each other cluster that probes the same server, until disposed. */
  watchClusters?(found: (cluster: string) => void): Promise<AsyncDisposable>
}

export type LinkEvents = {
  /** A message as `publish` was given it. It may come from a stranger. */
  readonly receive: (message: string) => void
  readonly lost: (connection: LinkConnection, error: unknown) => void
}

type Listener = { readonly channel: string; readonly listener: (text: string) => void }

/** The part of Cluster Link that is the same over every server. Drivers give it `connect`. */
export class ReconnectingLink implements ClusterLink {
  readonly #logger: Logger
  readonly #listeners = new Set<Listener>()
  readonly #connections: Reconnecting<LinkConnection>
  readonly #probing: NodeJS.Timeout
  #sending = 0
  #closed = false
  #last: Promise<void> = Promise.resolve()

  constructor(connect: (events: LinkEvents) => Promise<LinkConnection>, logger: Logger) {
    this.#logger = logger
    this.#connections = new Reconnecting({
      connect: (lost) => connect({ receive: (message) => this.#receive(message), lost }),
      destroy: (connection) => connection.destroy(),
      logger,
      messages: {
        failing: 'Cluster Link has no connection; changes are found by polling meanwhile',
        recovered: 'Cluster Link is connected again',
      },
    })
    this.#probing = setInterval(() => void this.#probe(), probeEveryMs).unref()
  }

  get connected(): boolean {
    return !this.#closed && this.#connections.connection !== null
  }

  get server(): LinkServer | null {
    return this.#connections.connection?.server ?? null
  }

  async send(channel: string, text: string): Promise<void> {
    checkMessage(channel, text)
    if (this.#sending >= sendingMax)
      throw new LinkUnavailableError(
        `Cluster Link has ${sendingMax} messages on their way already.`,
      )
    this.#sending += 1
    try {
      await this.#connections.attempted()
      const connection = this.#connections.connection
      if (this.#closed || connection === null)
        throw new LinkUnavailableError('Cluster Link has no connection to its server.')
      await this.#use(connection, () => connection.publish(`${channel} ${text}`))
    } finally {
      this.#sending -= 1
    }
  }

  listen(channel: string, listener: (text: string) => void): Disposable {
    const one = { channel, listener }
    this.#listeners.add(one)
    return { [Symbol.dispose]: () => void this.#listeners.delete(one) }
  }

  async otherClusters(listenMs: number): Promise<readonly string[]> {
    const connection = this.#connections.connection
    if (connection?.watchClusters === undefined) return []
    const found = new Set<string>()
    const watching = await connection.watchClusters((cluster) => {
      if (found.size < clustersMax) found.add(cluster)
    })
    await new Promise((resolve) => setTimeout(resolve, listenMs))
    await watching[Symbol.asyncDispose]()
    return [...found]
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#probing)
    const connection = await this.#connections.close()
    if (connection === null) return
    const ended = await withTimeout(
      connection.close().catch(() => connection.destroy()),
      closeMaxMs,
    )
    if (ended === timedOut) connection.destroy()
  }

  /** Any program that may connect to the server can send anything: bad messages are dropped. */
  #receive(message: string): void {
    const space = message.indexOf(' ')
    const channel = message.slice(0, space)
    if (space < 0 || message.length - space - 1 > linkTextMax) return
    for (const one of this.#listeners) {
      if (one.channel !== channel) continue
      try {
        one.listener(message.slice(space + 1))
      } catch (error) {
        this.#logger.warn({ err: error, channel }, 'a message of Cluster Link was dropped')
      }
    }
  }

  /**
   * One after another. Whatever fails on the connection ends it: a new one is quickly made, and one
   * that hangs would swallow all that follows.
   */
  async #use(connection: LinkConnection, work: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(async () => {
      if (this.#connections.connection !== connection)
        throw new LinkUnavailableError('Cluster Link lost its connection.')
      if ((await withTimeout(work(), sendMaxMs)) === timedOut)
        throw new LinkUnavailableError('The server of Cluster Link did not respond in time.')
    })
    this.#last = turn.catch(() => undefined)
    try {
      await turn
    } catch (error) {
      this.#connections.lost(connection, error)
      throw new LinkUnavailableError('Cluster Link could not send a message.', {}, { cause: error })
    }
  }

  async #probe(): Promise<void> {
    const connection = this.#connections.connection
    if (connection === null || this.#sending > 0) return
    try {
      await this.#use(connection, () => connection.probe())
    } catch {
      // The connection is being opened again already.
    }
  }
}
