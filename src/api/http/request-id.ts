import type { IncomingMessage } from 'node:http'
import { newId } from '#lib/id.ts'

const sane = /^[A-Za-z0-9._:-]{1,128}$/

/**
 * The id that a client or a proxy gave a request, if it can stand in a log line as it is; otherwise
 * a new one.
 */
export function requestId(request: { readonly headers: IncomingMessage['headers'] }): string {
  const given = request.headers['x-request-id']
  return requestIdOf(typeof given === 'string' ? given : null)
}

export function requestIdOf(given: string | null): string {
  return given !== null && sane.test(given) ? given : newId()
}

const first = newId()
let count = 0

/** A new id that costs next to nothing: this process's, and a number. */
export function nextRequestId(): string {
  count += 1
  return `${first}-${count}`
}
