import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import {
  HeadersTooLargeError,
  RequestMalformedError,
  RequestTimeoutError,
} from '#api/problems/errors.ts'
import { problemResponse } from '#api/problems/problem.ts'
import type { StoaError } from '#lib/stoa-error.ts'
import { newId } from '#lib/id.ts'

/** An error of Node's HTTP parser. `reason` says what is wrong, in a few words. */
type ParserError = Error & { readonly code?: string | undefined; readonly reason?: string }

/**
 * Responds to bytes that are no request, by hand, since there is no reply object; the connection
 * ends.
 */
export function respondToBrokenRequest(error: ParserError, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable || isForAnother(socket)) {
    socket.destroy()
    return
  }
  const { status, body } = problemResponse(meaningOf(error), newId())
  const text = JSON.stringify(body)
  const head = [
    `HTTP/1.1 ${status} ${body.title}`,
    'Content-Type: application/problem+json',
    `Content-Length: ${Buffer.byteLength(text)}`,
    'Cache-Control: no-store',
    `X-Request-Id: ${body.requestId}`,
    'Connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${text}`)
}

/**
 * A response to an earlier request is under way: a client would take these bytes for it, or for a
 * part of it.
 */
function isForAnother(socket: Socket): boolean {
  const { _httpMessage: response = null } = socket as {
    readonly _httpMessage?: ServerResponse | null
  }
  return response !== null && (response.headersSent || response.req.complete)
}

function meaningOf(error: ParserError): StoaError {
  const { code } = error
  if (code === 'HPE_HEADER_OVERFLOW')
    return new HeadersTooLargeError(
      'The URL and headers together are larger than this server takes.',
    )
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new RequestTimeoutError('The request did not arrive in time.')
  return new RequestMalformedError(malformedSentence(error))
}

/** The parser meets a lone line feed or carriage return in a header in one of these ways. */
const headerBreaks: ReadonlySet<string> = new Set([
  'HPE_INVALID_HEADER_TOKEN',
  'HPE_CR_EXPECTED',
  'HPE_LF_EXPECTED',
])

/** The parser's own reason says which rule of HTTP is broken. */
function malformedSentence({ code = '', reason }: ParserError): string {
  if (code === 'HPE_INVALID_URL')
    return 'The URL has a character that must be percent-encoded, as é by %C3%A9 (RFC 3986).'
  if (headerBreaks.has(code))
    return 'A header has a line break or another control character in its name or value.'
  const known =
    code.startsWith('HPE_') && reason !== undefined && /^[\x20-\x7e]{1,200}$/.test(reason)
  return known ? `This is not an HTTP request: ${reason}.` : 'This is not an HTTP request.'
}
