import { createHash, hash } from 'node:crypto'
import type { Envelope } from '#cache/cache-state.ts'

/**
 * How values of one kind become bytes and come back. `decode` gives null, or throws, for bytes that
 * are none of its own.
 */
export type Codec<V> = {
  readonly encode: (value: V) => Buffer
  readonly decode: (bytes: Buffer) => V | null
}

/**
 * Raised whenever what stands in an envelope changes its meaning: nodes of two versions then do not
 * read each other's.
 */
const format = 2
/**
 * What SHA-1 gives. It is there for what goes wrong on the way, not for who means harm: that would
 * have to reach the second level first.
 */
const sumBytes = 20

type Head = { readonly format: number; readonly key: string } & Omit<Envelope<unknown>, 'value'>

/** Where the second level keeps the value of a key, apart for each life of each database. */
export function placeOf(epoch: string, key: string): string {
  return `stoa:${createHash('sha256').update(`${format}\n${epoch}\n${key}`).digest('base64url')}`
}

/**
 * An entry as bytes: a checksum of the rest, the length of its head, the head as JSON, the value.
 */
export function sealed<V>(
  key: string,
  { value, bytes, snapshot, dependencies, epoch }: Envelope<V>,
  codec: Codec<V>,
): Buffer {
  const head: Head = { format, key, bytes, snapshot, dependencies, epoch }
  const text = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(text.byteLength)
  const rest = Buffer.concat([length, text, codec.encode(value)])
  return Buffer.concat([hash('sha1', rest, 'buffer'), rest])
}

/** Null: it is not what was put there for this key. */
export function opened<V>(key: string, bytes: Buffer, codec: Codec<V>): Envelope<V> | null {
  const rest = bytes.subarray(sumBytes)
  if (rest.byteLength < 4 || !hash('sha1', rest, 'buffer').equals(bytes.subarray(0, sumBytes)))
    return null
  const end = 4 + rest.readUInt32BE(0)
  try {
    const {
      format: made,
      key: of,
      bytes: size,
      snapshot,
      dependencies,
      epoch,
    } = JSON.parse(rest.toString('utf8', 4, end)) as Partial<Head>
    if (
      made !== format ||
      of !== key ||
      size === undefined ||
      snapshot === undefined ||
      dependencies === undefined ||
      epoch === undefined
    )
      return null
    const value = codec.decode(rest.subarray(end))
    return value === null ? null : { value, bytes: size, snapshot, dependencies, epoch }
  } catch {
    // Whatever it is, it is none of ours; the database is asked.
    return null
  }
}
