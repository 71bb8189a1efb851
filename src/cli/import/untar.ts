import { ImportSourceError } from '#cli/import/errors.ts'

const blockBytes = 512
/** Names and pax headers are read into memory; nothing honest is longer. */
const headerBytesMax = 1_000_000

export type TarEntry = {
  readonly path: string
  readonly bytes: number
  /**
   * The content, to be read at most once and before the next entry; what is left unread is passed
   * over.
   */
  readonly content: AsyncIterable<Buffer>
}

/** Reads exact lengths from a stream of chunks, holding one chunk at a time. */
class ChunkReader {
  readonly #chunks: AsyncIterator<Buffer>
  #chunk: Buffer = Buffer.alloc(0)

  constructor(source: AsyncIterable<Buffer>) {
    this.#chunks = source[Symbol.asyncIterator]()
  }

  /** Up to `max` bytes; empty at the end. */
  async some(max: number): Promise<Buffer> {
    while (this.#chunk.length === 0) {
      const next = await this.#chunks.next()
      if (next.done === true) return Buffer.alloc(0)
      this.#chunk = next.value
    }
    const part = this.#chunk.subarray(0, max)
    this.#chunk = this.#chunk.subarray(part.length)
    return part
  }

  async exactly(length: number): Promise<Buffer | null> {
    const parts: Buffer[] = []
    let missing = length
    while (missing > 0) {
      const part = await this.some(missing)
      if (part.length === 0) {
        if (missing === length) return null
        throw new ImportSourceError(
          'The archive ends in the middle of an entry; it was cut off.',
          {},
        )
      }
      parts.push(part)
      missing -= part.length
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }

  async close(): Promise<void> {
    await this.#chunks.return?.()
  }
}

type Header = { readonly path: string; readonly bytes: number; readonly kind: string }

/**
 * The regular files of a tar stream (POSIX ustar and pax, and GNU long names), in its order,
 * without ever holding more than a chunk. Links, devices and directories are passed over. Throws
 * `ImportSourceError` for what is no tar, or not all of one: what imports a part may take the rest
 * for removed.
 */
export async function* readTar(source: AsyncIterable<Buffer>): AsyncGenerator<TarEntry> {
  const reader = new ChunkReader(source)
  let longPath: string | null = null
  let longBytes: number | null = null
  try {
    for (;;) {
      const block = await reader.exactly(blockBytes)
      if (block === null)
        throw new ImportSourceError('The archive has no end: it was cut off between two files.', {})
      if (block.every((byte) => byte === 0)) return
      const header = parseHeader(block)
      const padding = (blockBytes - (header.bytes % blockBytes)) % blockBytes
      if (header.kind === 'x' || header.kind === 'L') {
        if (header.bytes > headerBytesMax)
          throw new ImportSourceError('The archive has a header of more than a megabyte.', {})
        const text = ((await reader.exactly(header.bytes)) ?? Buffer.alloc(0)).toString('utf8')
        await reader.exactly(padding)
        const pax =
          header.kind === 'x' ? parsePax(text) : new Map([['path', text.replace(/\0.*$/s, '')]])
        longPath = pax.get('path') ?? longPath
        longBytes = pax.has('size') ? Number(pax.get('size')) : longBytes
        continue
      }
      const bytes = longBytes ?? header.bytes
      const rest = { left: bytes }
      const isFile = header.kind === '0' || header.kind === '\0' || header.kind === '7'
      if (isFile) yield { path: longPath ?? header.path, bytes, content: contentOf(reader, rest) }
      for await (const skipped of contentOf(reader, rest)) if (skipped.length === 0) break
      await reader.exactly((blockBytes - (bytes % blockBytes)) % blockBytes)
      longPath = null
      longBytes = null
    }
  } finally {
    await reader.close()
  }
}

async function* contentOf(reader: ChunkReader, rest: { left: number }): AsyncGenerator<Buffer> {
  while (rest.left > 0) {
    const part = await reader.some(rest.left)
    if (part.length === 0)
      throw new ImportSourceError('The archive ends in the middle of a file; it was cut off.', {})
    rest.left -= part.length
    yield part
  }
}

function parseHeader(block: Buffer): Header {
  const stored = octal(block.subarray(148, 156))
  let sum = 0
  for (let at = 0; at < blockBytes; at += 1) sum += at >= 148 && at < 156 ? 32 : block[at]!
  if (stored !== sum)
    throw new ImportSourceError(
      'This is no tar archive, or it is damaged: a header has the wrong checksum.',
      {},
    )
  const name = text(block.subarray(0, 100))
  const isUstar = block.subarray(257, 262).toString('latin1') === 'ustar'
  const prefix = isUstar && block[262] === 0 ? text(block.subarray(345, 500)) : ''
  return {
    path: prefix === '' ? name : `${prefix}/${name}`,
    bytes: size(block.subarray(124, 136)),
    kind: String.fromCharCode(block[156]!),
  }
}

function text(bytes: Buffer): string {
  const end = bytes.indexOf(0)
  return bytes.subarray(0, end < 0 ? bytes.length : end).toString('utf8')
}

function octal(bytes: Buffer): number {
  const value = Number.parseInt(text(bytes).trim() || '0', 8)
  return Number.isNaN(value) ? -1 : value
}

/** Sizes past 8 GB are in base 256, marked by the highest bit. */
function size(bytes: Buffer): number {
  let value = 0
  if ((bytes[0]! & 0x80) === 0) value = octal(bytes)
  else for (let at = 1; at < bytes.length; at += 1) value = value * 256 + bytes[at]!
  if (!Number.isSafeInteger(value) || value < 0)
    throw new ImportSourceError('The archive is damaged: an entry has no valid size.', {})
  return value
}

function parsePax(content: string): Map<string, string> {
  const result = new Map<string, string>()
  const bytes = Buffer.from(content, 'utf8')
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(32, at)
    const length = Number(bytes.subarray(at, Math.max(space, at)).toString('latin1'))
    if (space < 0 || !Number.isSafeInteger(length) || length <= 0) break
    const record = bytes.subarray(space + 1, at + length - 1).toString('utf8')
    const equals = record.indexOf('=')
    if (equals > 0) result.set(record.slice(0, equals), record.slice(equals + 1))
    at += length
  }
  return result
}
