import { PassThrough } from 'node:stream'
import type { Readable } from 'node:stream'
import type { FastifyRequest } from 'fastify'
import { RequestMalformedError } from '#api/problems/errors.ts'

/** A client that sends nothing for so long has left. */
const idleMs = 60_000
/**
 * After a refusal the rest of a body is read and thrown away for so long, or else the client never
 * reads the response.
 */
const lingerMs = 5_000
/**
 * A file may take as long as it likes while bytes move, in either direction; past this it is
 * continued with another request.
 */
export const transferTimeoutMs = 6 * 3_600_000

/**
 * Runs `work` on a request whose body is a long stream: ends the connection of a client that falls
 * silent, and after a failure reads on for a while so that the client gets to see why.
 */
export async function withUploadBody<T>(
  request: FastifyRequest,
  work: () => Promise<T>,
): Promise<T> {
  const { raw } = request
  const { socket } = raw
  // A socket that times out without a listener is destroyed by node:http.
  const busy = (): unknown => socket?.setTimeout?.(0)
  socket?.setTimeout?.(idleMs)
  raw.once('end', busy)
  try {
    return await work()
  } catch (error) {
    if (!raw.readableEnded && !raw.destroyed) {
      raw.unpipe()
      raw.resume()
      const timer = setTimeout(() => raw.destroy(), lingerMs)
      raw.once('close', () => clearTimeout(timer))
      raw.once('end', () => clearTimeout(timer))
    }
    throw error
  } finally {
    raw.off('end', busy)
    busy()
  }
}

/** For a response that takes long to make while the connection is silent. */
export function withoutIdleLimit(request: FastifyRequest): void {
  request.raw.socket?.setTimeout?.(0)
}

/**
 * The body as a stream that may be destroyed without ending the connection. Breaks with
 * `RequestMalformedError` when the client leaves.
 */
export function bodyStream(request: FastifyRequest): Readable {
  const { raw } = request
  const body = new PassThrough()
  const left = (): void => {
    if (!raw.readableEnded)
      body.destroy(
        new RequestMalformedError(
          'The connection ended before the body did; what came may be kept, see the offset.',
        ),
      )
  }
  // The reader of the stream sees its error; this keeps one that has no reader any more from ending
  // the process.
  body.on('error', () => undefined)
  raw.once('close', left)
  raw.once('error', left)
  body.once('close', () => {
    raw.off('close', left)
    raw.off('error', left)
    raw.unpipe(body)
  })
  raw.pipe(body)
  return body
}
