import { createServer } from 'node:net'
import type { AddressInfo, Server as NetServer } from 'node:net'
import type { Server } from '#api/api-context.ts'
import { ListenError } from '#node/errors.ts'

export type PortOptions = { readonly host: string; readonly port: number }

const starting =
  'HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n' +
  'Content-Length: 0\r\nConnection: close\r\n\r\n'
/** A client that neither reads nor closes is cut off after this. */
const lingerMs = 1_000

/**
 * The port of a node that starts. It is taken before anything else, so that a node that cannot have
 * it changes nothing; connections that come before the node serves get 503.
 */
export class ReservedPort implements AsyncDisposable {
  readonly #options: PortOptions
  readonly #server: NetServer
  #taken = false

  private constructor(options: PortOptions, server: NetServer) {
    this.#options = options
    this.#server = server
  }

  /** Errors: `ListenError`. */
  static async take({ host, port }: PortOptions): Promise<ReservedPort> {
    const server = createServer((socket) => {
      socket.on('error', () => socket.destroy())
      socket.setTimeout(lingerMs, () => socket.destroy())
      socket.resume()
      socket.end(starting)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(new ListenError({ host, port }, error)))
      server.listen({ host, port }, resolve)
    })
    return new ReservedPort({ host, port }, server)
  }

  /** The one that was asked for, or the one that the system chose for 0. */
  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** Hands the listening socket to the API: no moment passes in which the port is free. */
  async serve(server: Server): Promise<string> {
    this.#taken = true
    // Node listens on a `handle` that another server has bound (net.Server.listen).
    const options = { ...this.#options, handle: handleOf(this.#server) }
    return server.listen(options)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#taken) return
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }
}

function handleOf(server: NetServer): object {
  return Reflect.get(server, '_handle') as object
}
