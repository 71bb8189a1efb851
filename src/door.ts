import type { ChildProcess } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { ListenError } from '#cli/errors.ts'
import type { UpMessage } from '#shared-port.ts'

/** Connections that wait for a node to open; the next is closed. */
const waitingMax = 1_000

/**
 * The port that several processes of one machine have in common. Each connection goes to the next node that is open, unread, and stays here too until that
 * node says that it has it: so neither a node that is killed nor one that leaves takes with it what it had not begun to read.
 */
export class Door {
  readonly #server: Server
  readonly #open: ChildProcess[] = []
  readonly #handed = new Map<ChildProcess, Map<number, Socket>>()
  #waiting: Socket[] = []
  #last = 0

  constructor() {
    this.#server = createServer({ pauseOnConnect: true }, (socket) => {
      socket.on('error', () => socket.destroy())
      this.#hand(socket)
    })
  }

  /** The address as `http://host:port`. Errors: `ListenError`. */
  async listen({ host, port }: { readonly host: string; readonly port: number }): Promise<string> {
    await new Promise<void>((resolve, reject) => {
      const refused = (error: Error): void => reject(new ListenError({ host, port }, error))
      this.#server.once('error', refused)
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', refused)
        resolve()
      })
    })
    return `http://${host.includes(':') ? `[${host}]` : host}:${(this.#server.address() as AddressInfo).port}`
  }

  /** Gives that process connections for as long as it says that it is open. */
  serveThrough(child: ChildProcess): void {
    const handed = new Map<number, Socket>()
    this.#handed.set(child, handed)
    child.on('message', (message: UpMessage) => {
      if (message.kind === 'open') {
        this.#open.push(child)
        for (const socket of this.#waiting.splice(0)) this.#hand(socket)
      } else if (message.kind === 'closed') this.#close(child)
      else if (message.kind === 'took' || message.kind === 'refused') this.#settle(handed, message)
    })
    // When nothing more can be heard from it. Node does not always tell of a channel that broke in the middle of a handle; the end of the process it does.
    const end = (): void => {
      if (child.connected || !this.#handed.delete(child)) return
      this.#close(child)
      for (const socket of handed.values()) this.#hand(socket)
    }
    child.once('disconnect', end)
    child.once('exit', end)
    child.once('close', end)
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#waiting.splice(0)) socket.destroy()
  }

  #settle(handed: Map<number, Socket>, { kind, id }: Extract<UpMessage, { id: number }>): void {
    const socket = handed.get(id)
    if (socket === undefined) return
    handed.delete(id)
    if (kind === 'refused') this.#hand(socket)
    // The other process has the connection; this is the end of the copy here.
    else socket.destroy()
  }

  #close(child: ChildProcess): void {
    const at = this.#open.indexOf(child)
    if (at >= 0) this.#open.splice(at, 1)
  }

  #hand(socket: Socket): void {
    if (socket.destroyed) return
    const child = this.#open.shift()
    if (child === undefined) {
      if (this.#waiting.length < waitingMax) this.#waiting.push(socket)
      else socket.destroy()
      return
    }
    this.#open.push(child)
    this.#last += 1
    const id = this.#last
    const handed = this.#handed.get(child)
    handed?.set(id, socket)
    child.send({ kind: 'connection', id }, socket, { keepOpen: true }, (error) => {
      // Its end was not heard of yet.
      if (error === null || handed?.delete(id) !== true) return
      this.#close(child)
      this.#hand(socket)
    })
  }
}
