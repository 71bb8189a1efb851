import type { ServerFacts } from '#lib/server-facts.ts'

/**
 * The channel that carries hints between nodes. Never trusted: a message may be lost, doubled, late
 * or out of order, and nothing but latency may depend on it. A sender may receive its own message.
 *
 * Each part uses a channel of its own. A listener must not throw; it is called without waiting for
 * it.
 */
export interface ClusterLink {
  /**
   * Resolves when the message has left this node, or rejects with `LinkUnavailableError`. `text` is
   * at most `linkTextMax` characters of ASCII.
   */
  send(channel: string, text: string): Promise<void>

  /** Receives the messages of the channel until the result is disposed. */
  listen(channel: string, listener: (text: string) => void): Disposable

  /** True if messages get through, as far as this node knows. */
  readonly connected: boolean

  /** The server that carries the messages now; null: there is none. */
  readonly server: LinkServer | null

  /**
   * The names of other clusters that use the same server, as far as they are seen within the time.
   * They disturb nothing; they share its memory and its fate. Rejects where the server does not
   * allow to look. Absent: the server carries messages of one cluster only.
   */
  otherClusters?(listenMs: number): Promise<readonly string[]>

  close(): Promise<void>
}

export type LinkServer = ServerFacts & { readonly driver: 'postgres' | 'redis' | 'nats' }

/** NOTIFY carries less than 8,000 bytes. */
export const linkTextMax = 4_000
