import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Places } from '#api/http/places.ts'
import type { Clock } from '#lib/clock.ts'

/** Connections of this node; one address gets at most half of them. */
const connectionsMax = 16_384
/**
 * Requests that may wait behind another one on their connection. The one that reaches this is the
 * last of its connection, as RFC 9112 §9.3.2 lets a server decide.
 */
const pipelinedMax = 32
/** Past this many the client does not wait for responses, and the connection ends at once. */
const pipelinedHardMax = 128
/** A connection that is about to send its first request has this long when the server closes. */
const unusedGraceMs = 1_000
const checkEveryMs = 1_000
/** An address that went past that bound gets no new connection for this long. */
const penaltyMs = 10_000
/** Addresses under a penalty that are remembered. */
const penaltiesMax = 10_000
/** Connections of such addresses that are held without being read; more are closed. */
const heldMax = 1_000
const localAddresses: ReadonlySet<string> = new Set(['127.0.0.1', '::1', '::ffff:127.0.0.1'])

export type ConnectionLimits = {
  /** A transfer that waits for the client has to move this many bytes per second, … */
  readonly transferRateMin: number
  /** … measured over this time. */
  readonly transferGraceMs: number
  /** Bytes of responses in memory that clients have not read yet, in all. */
  readonly unsentBytesMax: number
  /** The peers are proxies, which open many connections for many clients. */
  readonly behindProxy: boolean
}

/** The state of one connection. */
type Connection = {
  readonly socket: Socket
  readonly address: string
  /** Requests that wait behind the one at work. */
  waiting: number
  /** No request after the ones that wait is taken on. */
  isEnding: boolean
  /** It went past the bound, and is closed. */
  isCut: boolean
  /** Called if the body that the client is sending comes too slowly; null: it sends none. */
  onSlowBody: (() => void) | null
  /** The time since which the node waits for the client, and the bytes that had moved by then. */
  slow: { sinceMs: number; moved: number } | null
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

/** `net.Socket` reads this for its own timeouts; without it long writes count when they end. */
const handleName = '_handle'
type Handle = { readonly writeQueueSize?: number; readonly readStop?: () => void }
type WithHandle = { readonly [handleName]?: Handle | null }

/**
 * The connections of a server, bounded apart from the requests at work: one request per connection
 * runs at a time, clients that neither read nor send are cut, and what they have not read is
 * bounded in bytes.
 */
export class Connections {
  readonly #limits: ConnectionLimits
  readonly #clock: Clock
  readonly #shares = new Places(connectionsMax)
  readonly #open = new Map<Socket, Connection>()
  /** Until when an address gets no new connection: to parse its requests is what it costs. */
  readonly #penalties = new Map<string, number>()
  /** Until when connections of such addresses are held: closed, they would come back at once. */
  readonly #held = new Map<Socket, number>()
  #timer: NodeJS.Timeout | null = null

  constructor(server: Server, limits: ConnectionLimits, clock: Clock) {
    this.#limits = limits
    this.#clock = clock
    server.on('connection', (socket: Socket) => this.#opened(socket))
  }

  /**
   * Handles a request when it is the first of its connection. Node parses pipelined requests at
   * once; those behind the first wait until its response is on its way.
   */
  inTurn(request: IncomingMessage, response: ServerResponse, handle: Handler): void {
    if (response.socket !== null) handle(request, response)
    else this.#wait(request, response, handle)
  }

  /** Calls `onSlow` if the body of a request comes too slowly. Null: the body is here. */
  watchBody(socket: Socket, onSlow: (() => void) | null): void {
    const connection = this.#open.get(socket)
    if (connection === undefined) return
    connection.onSlowBody = onSlow
    connection.slow = null
  }

  /** Ends the connections on which nothing was sent by a moment from now. */
  closeUnused(): void {
    setTimeout(() => {
      for (const socket of [...this.#open.keys(), ...this.#held.keys()])
        if (socket.bytesRead === 0) socket.destroy()
    }, unusedGraceMs).unref()
  }

  /** Bytes of responses that clients have not read yet. */
  get unsentBytes(): number {
    let bytes = 0
    for (const socket of this.#open.keys()) bytes += socket.writableLength
    return bytes
  }

  #opened(socket: Socket): void {
    const address = this.#limits.behindProxy ? '' : (socket.remoteAddress ?? '')
    if (!this.#limits.behindProxy) {
      if (this.#isPenalised(address)) {
        this.#hold(socket)
        return
      }
      if (!this.#shares.take(address)) {
        socket.destroy()
        return
      }
    }
    this.#open.set(socket, {
      socket,
      address,
      waiting: 0,
      isEnding: false,
      isCut: false,
      onSlowBody: null,
      slow: null,
    })
    socket.once('close', () => {
      this.#open.delete(socket)
      if (!this.#limits.behindProxy) this.#shares.giveBack(address)
      this.#stopWatching()
    })
    this.#watch()
  }

  #watch(): void {
    this.#timer ??= setInterval(() => this.#check(), checkEveryMs).unref()
  }

  #stopWatching(): void {
    if (this.#open.size + this.#held.size > 0 || this.#timer === null) return
    clearInterval(this.#timer)
    this.#timer = null
  }

  /** Keeps a connection open without reading from it, until the penalty is over. */
  #hold(socket: Socket): void {
    const handle = (socket as unknown as WithHandle)[handleName]
    if (this.#held.size >= heldMax || handle?.readStop === undefined) {
      socket.destroy()
      return
    }
    handle.readStop()
    this.#held.set(socket, this.#clock.monotonicMs() + penaltyMs)
    socket.once('close', () => {
      this.#held.delete(socket)
      this.#stopWatching()
    })
    this.#watch()
  }

  #wait(request: IncomingMessage, response: ServerResponse, handle: Handler): void {
    const { socket } = request
    const connection = this.#open.get(socket)
    if (connection === undefined || connection.isCut) return
    connection.waiting += 1
    if (connection.waiting > pipelinedHardMax) {
      connection.isCut = true
      this.#penalise(connection.address)
      socket.destroy()
    }
    if (connection.isEnding) return
    if (connection.waiting >= pipelinedMax) {
      connection.isEnding = true
      response.shouldKeepAlive = false
    }
    response.once('socket', () => {
      connection.waiting -= 1
      // Not within the event: Node is about to flush what the response would write.
      process.nextTick(() => {
        if (!socket.destroyed) handle(request, response)
      })
    })
  }

  /**
   * Spares this machine itself, where a proxy or a program of the operator connects from. What
   * other connections of the address have sent and is not parsed yet is never parsed.
   */
  #penalise(address: string): void {
    if (localAddresses.has(address) || this.#limits.behindProxy) return
    if (this.#penalties.size >= penaltiesMax) this.#penalties.clear()
    this.#penalties.set(address, this.#clock.monotonicMs() + penaltyMs)
    for (const { socket, address: other } of this.#open.values())
      if (other === address && socket.bytesRead === 0) this.#hold(socket)
  }

  #isPenalised(address: string): boolean {
    const untilMs = this.#penalties.get(address)
    if (untilMs === undefined || untilMs > this.#clock.monotonicMs()) return untilMs !== undefined
    this.#penalties.delete(address)
    return false
  }

  #check(): void {
    const nowMs = this.#clock.monotonicMs()
    for (const [socket, untilMs] of this.#held) if (untilMs <= nowMs) socket.destroy()
    let unsent = 0
    for (const connection of this.#open.values()) {
      unsent += connection.socket.writableLength
      if (this.#isTooSlow(connection, nowMs)) this.#cut(connection)
    }
    if (unsent > this.#limits.unsentBytesMax) this.#shed(unsent)
  }

  #isTooSlow(connection: Connection, nowMs: number): boolean {
    const { socket, onSlowBody, slow } = connection
    const moved = onSlowBody === null ? sentBytes(socket) : socket.bytesRead
    if (onSlowBody === null && socket.writableLength === 0) {
      connection.slow = null
      return false
    }
    const elapsedMs = slow === null ? 0 : nowMs - slow.sinceMs
    if (slow !== null && elapsedMs < this.#limits.transferGraceMs) return false
    connection.slow = { sinceMs: nowMs, moved }
    const bytesMin = (this.#limits.transferRateMin * elapsedMs) / 1_000
    return slow !== null && moved - slow.moved < bytesMin
  }

  #cut({ socket, onSlowBody }: Connection): void {
    if (onSlowBody === null) socket.destroy()
    else onSlowBody()
  }

  /** Cuts connections of the address that has left most unread, those with most first. */
  #shed(unsentBytes: number): void {
    const byAddress = Map.groupBy(this.#open.values(), ({ address }) => address)
    const bytesOf = (all: readonly Connection[]): number =>
      all.reduce((sum, { socket }) => sum + socket.writableLength, 0)
    const worst = [...byAddress.values()].sort((a, b) => bytesOf(b) - bytesOf(a))[0] ?? []
    worst.sort((a, b) => b.socket.writableLength - a.socket.writableLength)
    let left = unsentBytes
    for (const { socket } of worst) {
      if (left <= this.#limits.unsentBytesMax) return
      left -= socket.writableLength
      socket.destroy()
    }
  }
}

/**
 * Bytes that have left this process. Those of a write under way are counted as far as the system
 * has taken them.
 */
function sentBytes(socket: Socket): number {
  const queued =
    (socket as unknown as WithHandle)[handleName]?.writeQueueSize ?? socket.writableLength
  return socket.bytesWritten - Math.min(queued, socket.writableLength)
}
