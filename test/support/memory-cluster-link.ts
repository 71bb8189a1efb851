import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import { LinkUnavailableError } from '#cluster-link/errors.ts'
import { checkMessage } from '#cluster-link/message.ts'

type Listener = { readonly channel: string; readonly listener: (text: string) => void }

/**
 * Connects the nodes of one process: every `MemoryClusterLink` of one hub receives what the others
 * send. A node that is alone uses it too.
 */
export class MemoryHub {
  readonly links = new Set<MemoryClusterLink>()
}

export class MemoryClusterLink implements ClusterLink {
  readonly server = null
  readonly #hub: MemoryHub
  readonly #listeners = new Set<Listener>()

  constructor(hub: MemoryHub) {
    this.#hub = hub
    hub.links.add(this)
  }

  get connected(): boolean {
    return this.#hub.links.has(this)
  }

  async send(channel: string, text: string): Promise<void> {
    checkMessage(channel, text)
    if (!this.connected) throw new LinkUnavailableError('This Cluster Link is closed.')
    for (const link of this.#hub.links) setImmediate(() => link.#hear(channel, text))
  }

  #hear(channel: string, text: string): void {
    for (const one of this.#listeners) if (one.channel === channel) one.listener(text)
  }

  listen(channel: string, listener: (text: string) => void): Disposable {
    const one = { channel, listener }
    this.#listeners.add(one)
    return { [Symbol.dispose]: () => void this.#listeners.delete(one) }
  }

  async close(): Promise<void> {
    this.#hub.links.delete(this)
    this.#listeners.clear()
  }
}
