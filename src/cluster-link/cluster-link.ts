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

  close(): Promise<void>
}

/** NOTIFY carries less than 8,000 bytes. */
export const linkTextMax = 4_000
