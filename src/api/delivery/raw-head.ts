import { IncomingMessage, ServerResponse, validateHeaderName, validateHeaderValue } from 'node:http'
import { Socket } from 'node:net'

/**
 * The head of a response as one text. `writeHead` checks and joins each header of each response
 * anew, which takes as long as everything else that a ready response needs. A text that is put
 * where `writeHead` leaves its own is sent as it is; a Node that does not take it (it would not say
 * that the headers are sent) gets the pairs.
 */

/**
 * Where `writeHead` leaves the text, on every Node since the first; `headersSent` is whether there
 * is one.
 */
const place = '_header'
type WithHead = { [place]: string | null }

const takesText = ((): boolean => {
  const response = new ServerResponse(new IncomingMessage(new Socket()))
  ;(response as unknown as WithHead)[place] = 'HTTP/1.1 200 OK\r\n\r\n'
  return response.headersSent
})()

/**
 * The lines that are the same for every response that is made of `pairs`; throws where `writeHead`
 * would.
 */
export function headLines(pairs: readonly string[]): string {
  let lines = ''
  for (let at = 0; at < pairs.length; at += 2) {
    validateHeaderName(pairs[at]!)
    validateHeaderValue(pairs[at]!, pairs[at + 1]!)
    lines += `${pairs[at]}: ${pairs[at + 1]}\r\n`
  }
  return lines
}

/**
 * Heads of 200 responses on connections that stay open, as `writeHead` makes them. `nowMs` of each:
 * any clock that only goes forward.
 */
export class HeadWriter {
  readonly #keepAlive: string
  #end = ''
  #endUntilMs = Number.NEGATIVE_INFINITY

  constructor(keepAliveTimeoutMs: number) {
    const timeoutS = Math.floor(keepAliveTimeoutMs / 1_000)
    const timeout = keepAliveTimeoutMs > 0 ? `Keep-Alive: timeout=${timeoutS}\r\n` : ''
    this.#keepAlive = `Connection: keep-alive\r\n${timeout}\r\n`
  }

  /** False: this response's head has to be written by `writeHead`. */
  write(response: ServerResponse, lines: string, requestId: string, nowMs: number): boolean {
    if (!takesText || !response.shouldKeepAlive) return false
    if (nowMs >= this.#endUntilMs) this.#renew(nowMs)
    ;(response as unknown as WithHead)[place] =
      `HTTP/1.1 200 OK\r\n${lines}x-request-id: ${requestId}${this.#end}`
    return true
  }

  /** Until the next second begins. */
  #renew(nowMs: number): void {
    const date = new Date()
    this.#end = `\r\nDate: ${date.toUTCString()}\r\n${this.#keepAlive}`
    this.#endUntilMs = nowMs + 1_000 - date.getMilliseconds()
  }
}
