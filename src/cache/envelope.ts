import { createHash } from 'node:crypto'
import type { Envelope } from '#cache/cache-state.ts'

/** How values of one kind become bytes and come back. `decode` gives null, or throws, for bytes that are none of its own. */
export type Codec<V> = { readonly encode: (value: V) => Buffer; readonly decode: (bytes: Buffer) => V | null }

/** Raised whenever what stands in an envelope changes its meaning: nodes of two versions then do not read each other's. */
const format = 1

type Head = { readonly format: number; readonly key: string } & Omit<Envelope<unknown>, 'value'>

/** Where the second level keeps the value of a key, apart for each life of each database. */
export function placeOf(epoch: string, key: string): string {
  return `stoa:${createHash('sha256').update(`${format}\n${epoch}\n${key}`).digest('base64url')}`
}

/** An entry as bytes: the length of its head, the head as JSON, the value. */
export function sealed<V>(key: string, { value, bytes, snapshot, dependencies, epoch }: Envelope<V>, codec: Codec<V>): Buffer {
  const head: Head = { format, key, bytes, snapshot, dependencies, epoch }
  const text = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(text.byteLength)
  return Buffer.concat([length, text, codec.encode(value)])
}

/** Null: it is not what was put there for this key. */
export function opened<V>(key: string, bytes: Buffer, codec: Codec<V>): Envelope<V> | null {
  const end = bytes.byteLength < 4 ? 0 : 4 + bytes.readUInt32BE(0)
  if (end === 0 || end > bytes.byteLength) return null
  try {
    const { format: made, key: of, bytes: size, snapshot, dependencies, epoch } = JSON.parse(bytes.toString('utf8', 4, end)) as Partial<Head>
    if (made !== format || of !== key || size === undefined || snapshot === undefined || dependencies === undefined || epoch === undefined) return null
    const value = codec.decode(bytes.subarray(end))
    return value === null ? null : { value, bytes: size, snapshot, dependencies, epoch }
  } catch {
    // Whatever it is, it is none of ours; the database is asked.
    return null
  }
}
