import type { FastifyRequest } from 'fastify'
import { RangeNotSatisfiableError } from '#api/problems/errors.ts'

export type ByteRange = { readonly start: number; readonly end: number }

/**
 * The one range of bytes that a GET asks for (RFC 9110 §14), both ends included; null: the whole.
 * Several ranges, units other than bytes and malformed headers count as none, as the RFC allows.
 * `If-Range` with another tag means that the client has pieces of something else, and needs the
 * whole. Throws `RangeNotSatisfiableError` past the end.
 */
export function rangeOf(request: FastifyRequest, bytes: number, tag: string): ByteRange | null {
  const { range, 'if-range': ifRange } = request.headers
  if (range === undefined || (ifRange !== undefined && ifRange !== tag)) return null
  const match = /^bytes=\s*(\d{0,16})-(\d{0,16})\s*$/i.exec(range)
  if (match === null) return null
  const [, first = '', last = ''] = match
  if (first === '' && last === '') return null
  if (first === '') {
    if (Number(last) === 0) throw new RangeNotSatisfiableError(bytes)
    return { start: Math.max(0, bytes - Number(last)), end: bytes - 1 }
  }
  const start = Number(first)
  const end = last === '' ? bytes - 1 : Math.min(Number(last), bytes - 1)
  if (last !== '' && Number(last) < start) return null
  if (start >= bytes) throw new RangeNotSatisfiableError(bytes)
  return { start, end }
}
