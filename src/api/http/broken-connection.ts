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

/**
 * What came is not a request yet, so there is no reply object: the response is written by hand and
 * the connection ends.
 */
export function respondToBrokenConnection(
  error: Error & { readonly code?: string },
  socket: Socket,
): void {
  if (error.code === 'ECONNRESET' || !socket.writable || isForAnother(socket)) {
    socket.destroy()
    return
  }
  const { status, body } = problemResponse(meaning(error.code), newId())
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
 * A response to an earlier request is under way: whatever is written now would be taken for it, or
 * for a part of it.
 */
function isForAnother(socket: Socket): boolean {
  const { _httpMessage: response = null } = socket as {
    readonly _httpMessage?: ServerResponse | null
  }
  return response !== null && (response.headersSent || response.req.complete)
}

function meaning(code: string | undefined): StoaError {
  if (code === 'HPE_HEADER_OVERFLOW')
    return new HeadersTooLargeError(
      'The URL and headers together are larger than this server takes.',
    )
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new RequestTimeoutError('The request did not arrive in time.')
  return new RequestMalformedError('This is not an HTTP request.')
}
