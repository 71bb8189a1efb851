import type { IncomingMessage } from 'node:http'
import { newId } from '#lib/id.ts'

const sane = /^[A-Za-z0-9._:-]{1,128}$/

/**
 * The id that a client or a proxy gave a request, if it can stand in a log line unchanged;
 * otherwise a new one.
 */
export function requestId(request: { readonly headers: IncomingMessage['headers'] }): string {
  const given = request.headers['x-request-id']
  return requestIdOf(typeof given === 'string' ? given : null)
}

export function requestIdOf(given: string | null): string {
  return given !== null && sane.test(given) ? given : newId()
}

/** New ids that cost next to nothing: one of this server's, and a number. */
export class RequestIds {
  readonly #first = newId()
  #count = 0

  next(): string {
    this.#count += 1
    return `${this.#first}-${this.#count}`
  }
}
