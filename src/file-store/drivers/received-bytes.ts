import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, unlink } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { BlobTooLargeError, FileStoreUnavailableError } from '#file-store/errors.ts'
import type { BlobInfo } from '#file-store/file-store.ts'

const readChunkBytes = 1024 ** 2

type ReceiveOptions = {
  readonly folder: string
  readonly bytesMax: number
  /** More than this goes to the disk. */
  readonly memoryBytesMax: number
}

/**
 * The bytes of one put, from its sender's first one until the storage has them all. Their name is
 * their hash, so no request can be made before the last byte is here. The file has no name: it is
 * gone with the process, however that ends.
 */
export class ReceivedBytes implements AsyncDisposable {
  readonly blob: BlobInfo
  readonly #file: FileHandle | null
  readonly #memory: Buffer

  private constructor(blob: BlobInfo, file: FileHandle | null, memory: Buffer) {
    this.blob = blob
    this.#file = file
    this.#memory = memory
  }

  /**
   * Reads `source` to its end. Errors of `source` pass as they are. Other errors:
   * `BlobTooLargeError`; `FileStoreUnavailableError` when the folder cannot be used.
   */
  static async from(
    source: Readable,
    { folder, bytesMax, memoryBytesMax }: ReceiveOptions,
  ): Promise<ReceivedBytes> {
    const hash = createHash('sha256')
    const memory: Buffer[] = []
    let bytes = 0
    let file: FileHandle | null = null
    try {
      for await (const chunk of source) {
        const data = typeof chunk === 'string' ? Buffer.from(chunk) : (chunk as Buffer)
        bytes += data.length
        if (bytes > bytesMax) throw new BlobTooLargeError(bytesMax)
        hash.update(data)
        if (file === null && bytes <= memoryBytesMax) {
          memory.push(data)
          continue
        }
        file ??= await openNameless(folder)
        await write(file, [...memory.splice(0), data])
      }
      const blob = { id: hash.digest('hex'), bytes }
      return new ReceivedBytes(blob, file, Buffer.concat(memory))
    } catch (error) {
      await file?.close()
      throw error
    }
  }

  async whole(): Promise<Buffer> {
    return this.#file === null ? this.#memory : read(this.#file, 0, this.blob.bytes)
  }

  stream(): Readable {
    return Readable.from(this.#chunks(), { objectMode: false })
  }

  async *#chunks(): AsyncGenerator<Buffer> {
    if (this.#file === null) return yield this.#memory
    const { bytes } = this.blob
    for (let at = 0; at < bytes; at += readChunkBytes)
      yield await read(this.#file, at, Math.min(readChunkBytes, bytes - at))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file?.close()
  }
}

async function openNameless(folder: string): Promise<FileHandle> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const path = join(folder, `${randomBytes(12).toString('hex')}.spool`)
    const file = await open(path, 'wx+', 0o600)
    await unlink(path)
    return file
  } catch (error) {
    throw diskError(error)
  }
}

async function read(file: FileHandle, start: number, bytes: number): Promise<Buffer> {
  const data = Buffer.allocUnsafe(bytes)
  for (let at = 0; at < bytes;) {
    const { bytesRead } = await file.read(data, at, bytes - at, start + at)
    if (bytesRead === 0) throw diskError(new Error('the file is shorter than what was written'))
    at += bytesRead
  }
  return data
}

async function write(file: FileHandle, chunks: readonly Buffer[]): Promise<void> {
  try {
    for (const chunk of chunks) {
      let at = 0
      while (at < chunk.length) at += (await file.write(chunk, at)).bytesWritten
    }
  } catch (error) {
    throw diskError(error)
  }
}

function diskError(cause: unknown): FileStoreUnavailableError {
  const code = (cause as NodeJS.ErrnoException).code ?? 'unknown'
  const message =
    code === 'ENOSPC' || code === 'EDQUOT'
      ? 'The data folder of this node is full, and uploads pass through it; make room.'
      : `The data folder of this node, through which uploads pass, cannot be used (${code}).`
  return new FileStoreUnavailableError(message, { reason: code }, { cause })
}
