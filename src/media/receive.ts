import { addAbortSignal, Readable } from 'node:stream'
import type { Database } from '#database/database.ts'
import { BlobTooLargeError } from '#file-store/errors.ts'
import type { BlobInfo, FileStore } from '#file-store/file-store.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import { extensionOf, settleName } from '#media/asset-name.ts'
import { discard } from '#media/blobs.ts'
import { UploadRefusedError, UploadTooLargeError } from '#media/errors.ts'
import type { Kind } from '#media/kinds.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Received } from '#media/media.ts'
import { measure } from '#media/render.ts'
import { sniff, sniffBytes } from '#media/sniff.ts'
import type { Spool } from '#media/spool.ts'
import { measureSvg } from '#media/svg-size.ts'

export type ReceiveParts = {
  readonly database: Database
  readonly store: FileStore
  readonly spool: Spool
  readonly clock: Clock
  readonly logger: Logger
  readonly limits: MediaLimits
}

/** See `Media.receive`. */
export async function receive(
  parts: ReceiveParts,
  input: { readonly name: string; readonly source: Readable; readonly signal?: AbortSignal },
): Promise<Received> {
  if (input.signal !== undefined) addAbortSignal(input.signal, input.source)
  try {
    const { head, rest } = await peek(input.source)
    const kind = await sniff(head, extensionOf(input.name))
    const name = judge(input.name, head, kind)
    const { uploadBytesMax } = parts.limits
    const blob = await parts.store
      .put(rest, {
        bytesMax: uploadBytesMax,
        ...(input.signal === undefined ? {} : { signal: input.signal }),
      })
      .catch((error: unknown) => {
        throw error instanceof BlobTooLargeError
          ? new UploadTooLargeError(uploadBytesMax, { cause: error })
          : error
      })
    return await measured(parts, { name, kind, head, blob })
  } finally {
    input.source.destroy()
  }
}

/** The same for bytes that are in the store already. */
export async function receiveBlob(
  parts: ReceiveParts,
  name: string,
  blob: BlobInfo,
): Promise<Received> {
  const stream = await parts.store.get(blob.id, {
    start: 0,
    end: Math.min(blob.bytes, sniffBytes) - 1,
  })
  const head = Buffer.concat(await stream.toArray())
  const kind = await sniff(head, extensionOf(name))
  return measured(parts, { name: judge(name, head, kind), kind, head, blob })
}

function judge(name: string, head: Buffer, kind: Kind): string {
  if (head.length === 0) throw new UploadRefusedError('The file is empty.', { reason: 'empty' })
  return settleName(name, kind)
}

async function measured(
  parts: ReceiveParts,
  file: { name: string; kind: Kind; head: Buffer; blob: BlobInfo },
): Promise<Received> {
  const { kind, blob } = file
  const received = {
    name: file.name,
    contentType: kind.contentType,
    blob: blob.id,
    bytes: blob.bytes,
    width: null,
    height: null,
    frames: null,
  }
  if (kind.contentType === 'image/svg+xml')
    return { ...received, ...measureSvg(file.head.toString('utf8')) }
  const readable = kind.isRaster || kind.contentType === 'image/heic'
  if (!readable || blob.bytes > parts.limits.imageBytesMax) return received
  try {
    return {
      ...received,
      ...(await parts.spool.with(blob.id, (path) => measure(path, kind, parts.limits.pixelsMax))),
    }
  } catch (error) {
    // Refused bytes go at once, unless an asset from before has the same ones. What cannot be
    // removed now is an orphan like any other, and the reason for the refusal is what the caller
    // needs to know.
    await discard(parts.database, parts.store, blob.id, parts.clock.nowMs() + 1).catch(
      (failure: unknown) => {
        parts.logger.warn(
          { err: failure, blob: blob.id },
          'a refused upload is left to the collection of orphans',
        )
      },
    )
    throw error
  }
}

/** Reads as much as decides the kind, and gives it back as the beginning of `rest`. */
async function peek(source: Readable): Promise<{ head: Buffer; rest: Readable }> {
  const chunks: Buffer[] = []
  let bytes = 0
  let ended = false
  const iterator = source.iterator({ destroyOnReturn: false })[Symbol.asyncIterator]()
  while (bytes < sniffBytes && !ended) {
    const next = await iterator.next()
    ended = next.done === true
    if (ended) break
    const chunk = typeof next.value === 'string' ? Buffer.from(next.value) : (next.value as Buffer)
    chunks.push(chunk)
    bytes += chunk.length
  }
  const rest = Readable.from(
    (async function* () {
      yield* chunks
      if (ended) return
      for (let next = await iterator.next(); next.done !== true; next = await iterator.next())
        yield next.value as Buffer
    })(),
    { objectMode: true, highWaterMark: 2 },
  )
  return { head: Buffer.concat(chunks).subarray(0, sniffBytes), rest }
}
