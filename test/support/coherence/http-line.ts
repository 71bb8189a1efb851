import { connect } from 'node:net'
import type { Socket } from 'node:net'

/**
 * What came back; `status` 0: nothing did, and `text` says why. Times are of `performance.now()`.
 */
export type LineAnswer = {
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
  readonly resolve: (answer: Omit<LineAnswer, 'startMs' | 'endMs'>) => void
  readonly timer: NodeJS.Timeout
}

const headEnd = Buffer.from('\r\n\r\n')

/**
 * One keep-alive connection, one request at a time, with as little work per answer as there can be:
 * who measures must not take the processor from what is measured. Reads answers with
 * `Content-Length` only, which is all that a node sends here.
 */
export class HttpLine {
  readonly #port: number
  #socket: Socket | null = null
  #bytes: Buffer = Buffer.alloc(0)
  #waiting: Waiting | null = null

  constructor(origin: string) {
    this.#port = Number(new URL(origin).port)
  }

  async send(request: LineRequest): Promise<LineAnswer> {
    if (this.#waiting !== null) throw new Error('one request at a time')
    const startMs = performance.now()
    const answer = await new Promise<Omit<LineAnswer, 'startMs' | 'endMs'>>((resolve) => {
      this.#waiting = {
        resolve,
        timer: setTimeout(
          () => this.#broke(`no answer within ${request.timeoutMs} ms`),
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
    return { ...answer, startMs, endMs: performance.now() }
  }

  close(): void {
    this.#broke('closed')
  }

  #open(): Socket {
    const socket = connect(this.#port, '127.0.0.1')
    socket.setNoDelay(true)
    socket.on('data', (data) => this.#heard(socket, data))
    socket.on('error', (error) => this.#lost(socket, error.message))
    socket.on('close', () => this.#lost(socket, 'the connection was closed'))
    return socket
  }

  #heard(socket: Socket, data: Buffer): void {
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

  #give(answer: Omit<LineAnswer, 'startMs' | 'endMs'>): void {
    const waiting = this.#waiting
    this.#waiting = null
    if (waiting === null) return
    clearTimeout(waiting.timer)
    waiting.resolve(answer)
  }
}
