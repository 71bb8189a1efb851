import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Envelope } from '#cache/cache-state.ts'
import { isHead } from '#cache/envelope-head.ts'
import type { EnvelopeHead } from '#cache/envelope-head.ts'

/**
 * How values of one kind become bytes and come back. `decode` gives null, or throws, for bytes that
 * are not its own.
 */
export type Codec<V> = {
  readonly encode: (value: V) => Buffer
  readonly decode: (bytes: Buffer) => V | null
}

export type SealOptions = {
  /** The cluster's secret, unknown to others that can write to the second level. */
  readonly secret: string
  /** The version of the program: nodes of two versions do not read each other's values. */
  readonly level: string
}

/** Changes whenever the meaning of an envelope changes. */
const format = 3
const macBytes = 32
const lengthBytes = 4

/**
 * Signs and checks what travels through the second level, which is trusted with nothing: it may
 * lose, reorder and resurrect values, belong to several installations, or be written by a stranger.
 * Every signature covers the program's level, the epoch (and with it the database), the key and the
 * value.
 */
export class EnvelopeSeal {
  readonly #secret: Buffer
  readonly #level: string

  constructor({ secret, level }: SealOptions) {
    this.#secret = createHmac('sha256', secret).update('stoa second level of the cache').digest()
    this.#level = level
  }

  /** Where the second level keeps the value of a key. */
  placeOf(epoch: string, key: string): string {
    const place = JSON.stringify([format, this.#level, epoch, key])
    return `stoa:${createHmac('sha256', this.#secret).update(place).digest('base64url')}`
  }

  /** An entry as bytes: the signature of the rest, the length of its head, the head, the value. */
  seal<V>(
    key: string,
    { value, bytes, snapshot, dependencies, epoch }: Envelope<V>,
    codec: Codec<V>,
  ): Buffer {
    const head: EnvelopeHead = { bytes, snapshot, dependencies, epoch }
    const text = Buffer.from(JSON.stringify(head))
    const length = Buffer.alloc(lengthBytes)
    length.writeUInt32BE(text.byteLength)
    const rest = Buffer.concat([length, text, codec.encode(value)])
    return Buffer.concat([this.#mac(this.placeOf(epoch, key), rest), rest])
  }

  /** Null: the bytes were not put there for this key in this epoch by a node of this cluster. */
  open<V>(
    { epoch, key }: { readonly epoch: string; readonly key: string },
    bytes: Buffer,
    codec: Codec<V>,
  ): Envelope<V> | null {
    const rest = bytes.subarray(macBytes)
    if (rest.byteLength < lengthBytes) return null
    if (!timingSafeEqual(this.#mac(this.placeOf(epoch, key), rest), bytes.subarray(0, macBytes)))
      return null
    const end = lengthBytes + rest.readUInt32BE(0)
    try {
      const head: unknown = JSON.parse(rest.toString('utf8', lengthBytes, end))
      if (!isHead(head) || head.epoch !== epoch) return null
      const value = codec.decode(rest.subarray(end))
      return value === null ? null : { value, ...head }
    } catch {
      // Signed, and yet not readable: made by a program with the same level and another format.
      return null
    }
  }

  #mac(place: string, rest: Buffer): Buffer {
    return createHmac('sha256', this.#secret).update(place).update(rest).digest()
  }
}
