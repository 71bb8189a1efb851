import { connect } from 'node:net'
import type { Socket } from 'node:net'

/** `status` 0: no response came, and `text` says why. Times are of `performance.now()`. */
export type LineResponse = {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
  readonly startMs: number
  readonly endMs: number
}

export type LineRequest = {
  readonly method: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly timeoutMs: number
}

type Waiting = {
  readonly resolve: (response: Omit<LineResponse, 'startMs' | 'endMs'>) => void
  readonly timer: NodeJS.Timeout
}

const headEnd = Buffer.from('\r\n\r\n')

/**
 * One keep-alive connection, one request at a time, with as little work per response as possible:
 * the client must not take processor time from the nodes that it measures. It reads only responses
 * with `Content-Length`, and nodes send no others here.
 */
export class HttpLine {
  readonly #port: number
  #socket: Socket | null = null
  #bytes: Buffer = Buffer.alloc(0)
  #waiting: Waiting | null = null

  constructor(origin: string) {
    this.#port = Number(new URL(origin).port)
  }

  async send(request: LineRequest): Promise<LineResponse> {
    if (this.#waiting !== null) throw new Error('one request at a time')
    const startMs = performance.now()
    const response = await new Promise<Omit<LineResponse, 'startMs' | 'endMs'>>((resolve) => {
      this.#waiting = {
        resolve,
        timer: setTimeout(
          () => this.#broke(`no response within ${request.timeoutMs} ms`),
          request.timeoutMs,
        ),
      }
      this.#socket ??= this.#open()
      const { method, path, headers = {}, body } = request
      let head = `${method} ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\n`
      for (const name in headers) head += `${name}: ${headers[name]}\r\n`
      if (body !== undefined)
        head += `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n`
      this.#socket.write(`${head}\r\n${body ?? ''}`)
    })
    return { ...response, startMs, endMs: performance.now() }
  }

  close(): void {
    this.#broke('closed')
  }

  #open(): Socket {
    const socket = connect(this.#port, '127.0.0.1')
    socket.setNoDelay(true)
    socket.on('data', (data) => this.#received(socket, data))
    socket.on('error', (error) => this.#lost(socket, error.message))
    socket.on('close', () => this.#lost(socket, 'the connection was closed'))
    return socket
  }

  #received(socket: Socket, data: Buffer): void {
    if (this.#socket !== socket) return
    this.#bytes = this.#bytes.length === 0 ? data : Buffer.concat([this.#bytes, data])
    const end = this.#bytes.indexOf(headEnd)
    if (end < 0) return
    const [first = '', ...lines] = this.#bytes.toString('latin1', 0, end).split('\r\n')
    const headers: Record<string, string> = {}
    for (const line of lines) {
      const colon = line.indexOf(':')
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim()
    }
    const length = Number(headers['content-length'] ?? 0)
    const bodyAt = end + headEnd.length
    if (this.#bytes.length < bodyAt + length) return
    const text = this.#bytes.toString('utf8', bodyAt, bodyAt + length)
    this.#bytes = Buffer.alloc(0)
    if (headers['connection'] === 'close') this.#drop()
    this.#give({ status: Number(first.split(' ')[1]), headers, text })
  }

  #lost(socket: Socket, reason: string): void {
    if (this.#socket === socket) this.#broke(reason)
  }

  #broke(reason: string): void {
    this.#drop()
    this.#give({ status: 0, headers: {}, text: reason })
  }

  #drop(): void {
    this.#socket?.destroy()
    this.#socket = null
    this.#bytes = Buffer.alloc(0)
  }

  #give(response: Omit<LineResponse, 'startMs' | 'endMs'>): void {
    const waiting = this.#waiting
    this.#waiting = null
    if (waiting === null) return
    clearTimeout(waiting.timer)
    waiting.resolve(response)
  }
}
