import type { ChildProcess } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { ListenError } from '#node/errors.ts'
import type { UpMessage } from '#node/shared-port.ts'

/** Connections that wait for a node to open; the next is closed. */
const waitingMax = 1_000
/** A connection that has waited for so long gets 503. */
const waitingMaxMs = 20_000
/**
 * A node that has not taken a connection for so long hangs: it gets no more while another one can
 * have them.
 */
const lateMs = 1_000
const unavailable =
  'HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n' +
  'Content-Length: 0\r\nConnection: close\r\n\r\n'

type Handed = { readonly socket: Socket; readonly sinceMs: number }

/**
 * The port that several processes of one machine have in common. Each connection goes to the next
 * node that is open, unread, and stays here too until that node says that it has it: so neither a
 * node that is killed nor one that leaves takes with it what it had not begun to read. One that is
 * leaving gets those that no other can have: when all leave, load balancers learn it from their
 * responses.
 */
export class ConnectionDispatcher {
  readonly #server: Server
  readonly #open: ChildProcess[] = []
  readonly #leaving: ChildProcess[] = []
  readonly #handed = new Map<ChildProcess, Map<number, Handed>>()
  readonly #waiting = new Map<Socket, NodeJS.Timeout>()
  #ending = false
  #last = 0

  constructor() {
    this.#server = createServer({ pauseOnConnect: true }, (socket) => {
      socket.on('error', () => socket.destroy())
      this.#dispatch(socket)
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
    const handed = new Map<number, Handed>()
    this.#handed.set(child, handed)
    child.on('message', (message: UpMessage) => {
      if (message.kind === 'open') {
        this.#open.push(child)
        for (const socket of this.#takeWaiting()) this.#dispatch(socket)
      } else if (message.kind === 'leaving') {
        this.#close(child)
        this.#leaving.push(child)
      } else if (message.kind === 'closed') this.#close(child)
      else if (message.kind === 'took' || message.kind === 'refused') this.#settle(handed, message)
    })
    // The channel has ended. Node does not always report one that broke in the middle of a handle,
    // but it always reports the end of the process.
    const end = (): void => {
      if (child.connected || !this.#handed.delete(child)) return
      this.#close(child)
      for (const { socket } of handed.values()) this.#dispatch(socket)
    }
    child.once('disconnect', end)
    child.once('exit', end)
    child.once('close', end)
  }

  /**
   * From now on no node comes: what none of them takes any more is closed instead of kept waiting.
   */
  end(): void {
    this.#ending = true
    for (const socket of this.#takeWaiting()) socket.destroy()
  }

  close(): void {
    this.#server.close()
    this.end()
  }

  #settle(handed: Map<number, Handed>, { kind, id }: Extract<UpMessage, { id: number }>): void {
    const socket = handed.get(id)?.socket
    if (socket === undefined) return
    handed.delete(id)
    if (kind === 'refused') this.#dispatch(socket)
    // The other process has the connection; this is the end of the copy here.
    else socket.destroy()
  }

  #close(child: ChildProcess): void {
    for (const list of [this.#open, this.#leaving]) {
      const at = list.indexOf(child)
      if (at >= 0) list.splice(at, 1)
    }
  }

  /** The next in turn that does not hang; if all do, the next in turn. */
  #next(): ChildProcess | undefined {
    const oldest = performance.now() - lateMs
    const all = [...this.#open, ...this.#leaving]
    const inTime = all.find((child) => {
      const [first] = this.#handed.get(child)?.values() ?? []
      return first === undefined || first.sinceMs > oldest
    })
    const next = inTime ?? all[0]
    const at = next === undefined ? -1 : this.#open.indexOf(next)
    if (at >= 0) this.#open.push(...this.#open.splice(at, 1))
    return next
  }

  #dispatch(socket: Socket): void {
    if (socket.destroyed) return
    const child = this.#next()
    if (child === undefined) {
      if (this.#ending || this.#waiting.size >= waitingMax) socket.destroy()
      else
        this.#waiting.set(
          socket,
          setTimeout(() => this.#timeOut(socket), waitingMaxMs),
        )
      return
    }
    this.#last += 1
    const id = this.#last
    const handed = this.#handed.get(child)
    handed?.set(id, { socket, sinceMs: performance.now() })
    child.send({ kind: 'connection', id }, socket, { keepOpen: true }, (error) => {
      // The channel broke, and its end was not reported yet.
      if (error === null || handed?.delete(id) !== true) return
      this.#close(child)
      this.#dispatch(socket)
    })
  }

  #takeWaiting(): Socket[] {
    const sockets = [...this.#waiting.keys()]
    for (const timer of this.#waiting.values()) clearTimeout(timer)
    this.#waiting.clear()
    return sockets
  }

  #timeOut(socket: Socket): void {
    this.#waiting.delete(socket)
    // The request is read and dropped: closing with it unread would be a reset, which loses the
    // response.
    socket.resume()
    socket.setTimeout(lateMs, () => socket.destroy())
    socket.end(unavailable)
  }
}
