import { createHash } from 'node:crypto'

/**
 * The id that an imported thing gets: a UUID of version 8 (RFC 9562 §5.8) made of the SHA-256 of
 * where it comes from. The same source always gives the same id, so that an import can be repeated,
 * or taken up again after a crash, without a table of what was already done.
 */
export function derivedId(...source: readonly string[]): string {
  const bytes = createHash('sha256').update(JSON.stringify(source)).digest().subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x80
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
