import { addAbortSignal, Readable } from 'node:stream'
import type { Database } from '#database/database.ts'
import { BlobTooLargeError } from '#file-store/errors.ts'
import type { BlobInfo, FileStore } from '#file-store/file-store.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import { extensionOf, nameForKind } from '#media/asset-name.ts'
import { deleteIfOrphan } from '#media/blobs.ts'
import { UploadRefusedError, UploadTooLargeError } from '#media/errors.ts'
import type { ImageProcesses } from '#media/image-processes.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Received } from '#media/media.ts'
import { kindBehindTag } from '#media/sniff-binary.ts'
import { sniff, sniffBytes } from '#media/sniff.ts'
import type { Sniffed } from '#media/sniff.ts'
import type { Spool } from '#media/spool.ts'
import { measureSvg } from '#media/svg-size.ts'

export type ReceiveParts = {
  readonly database: Database
  readonly store: FileStore
  readonly spool: Spool
  readonly images: ImageProcesses
  readonly clock: Clock
  readonly logger: Logger
  readonly limits: MediaLimits
}

export type ReceiveInput = {
  readonly name: string
  readonly source: Readable
  /** Shares the places for reading images; see `FairQueue`. */
  readonly caller: string
  readonly signal?: AbortSignal
}

/** See `Media.receive`. */
export async function receive(parts: ReceiveParts, input: ReceiveInput): Promise<Received> {
  const { name, source, signal, caller } = input
  if (signal !== undefined) addAbortSignal(signal, source)
  try {
    const { head, rest } = await peek(source)
    const sniffed = await sniff(head, extensionOf(name))
    // A file that its name makes impossible is refused before its bytes are stored.
    if (sniffed.continueAt === null) checkedName(name, head, sniffed)
    const blob = await putBlob(parts, rest, signal)
    return await describe(parts, { name, head, sniffed, blob, caller })
  } finally {
    source.destroy()
  }
}

/** The same for bytes that are in the store already. */
export async function receiveBlob(
  parts: ReceiveParts,
  blob: BlobInfo,
  { name, caller }: Pick<ReceiveInput, 'name' | 'caller'>,
): Promise<Received> {
  const head = await readRange(parts.store, blob, 0)
  const sniffed = await sniff(head, extensionOf(name))
  return describe(parts, { name, head, sniffed, blob, caller })
}

async function putBlob(
  parts: ReceiveParts,
  source: Readable,
  signal: AbortSignal | undefined,
): Promise<BlobInfo> {
  const bytesMax = parts.limits.uploadBytesMax
  try {
    return await parts.store.put(source, { bytesMax, ...(signal === undefined ? {} : { signal }) })
  } catch (error) {
    throw error instanceof BlobTooLargeError
      ? new UploadTooLargeError(bytesMax, { cause: error })
      : error
  }
}

type StoredFile = {
  readonly name: string
  readonly head: Buffer
  readonly sniffed: Sniffed
  readonly blob: BlobInfo
  readonly caller: string
}

async function describe(parts: ReceiveParts, file: StoredFile): Promise<Received> {
  const { blob } = file
  try {
    const sniffed = await sniffFurther(parts.store, file)
    return {
      name: checkedName(file.name, file.head, sniffed),
      contentType: sniffed.contentType,
      blob: blob.id,
      bytes: blob.bytes,
      ...(await measure(parts, { ...file, sniffed })),
    }
  } catch (error) {
    await discard(parts, blob.id)
    throw error
  }
}

/** Looks behind a tag that is longer than the sample. */
async function sniffFurther(store: FileStore, { sniffed, blob }: StoredFile): Promise<Sniffed> {
  if (sniffed.continueAt === null || sniffed.continueAt >= blob.bytes) return sniffed
  const kind = await kindBehindTag(await readRange(store, blob, sniffed.continueAt))
  return { ...sniffed, kind, contentType: kind.contentType }
}

async function readRange(store: FileStore, blob: BlobInfo, start: number): Promise<Buffer> {
  const end = Math.min(blob.bytes, start + sniffBytes) - 1
  return Buffer.concat(await (await store.get(blob.id, { start, end })).toArray())
}

function checkedName(name: string, head: Buffer, { kind }: Sniffed): string {
  if (head.length === 0) throw new UploadRefusedError('The file is empty.', { reason: 'empty' })
  return nameForKind(name, kind)
}

type Size = Pick<Received, 'width' | 'height' | 'frames'>

async function measure(parts: ReceiveParts, file: StoredFile): Promise<Size> {
  const { sniffed, blob, caller } = file
  const unknown = { width: null, height: null, frames: null }
  const { contentType, isRaster } = sniffed.kind
  if (contentType === 'image/svg+xml') return { ...unknown, ...measureSvg(sniffed.text ?? '') }
  if (!isRaster || blob.bytes > parts.limits.imageBytesMax) return unknown
  const { pixelsMax } = parts.limits
  const measured = await parts.images.use({ caller, group: blob.id }, (images) =>
    parts.spool.with(blob.id, ({ path }) => images.measure({ path, contentType, pixelsMax })),
  )
  return { ...measured, frames: sniffed.frames ?? measured.frames }
}

/**
 * Bytes that no asset needs go at once, unless another asset has the same ones, or they were
 * written again after `writtenAtMs`. Bytes that cannot be removed now are an orphan like any other,
 * and the caller needs the reason for the refusal.
 */
export async function discard(
  { database, store, clock, logger }: ReceiveParts,
  blob: string,
  writtenAtMs: number = clock.nowMs(),
): Promise<void> {
  await deleteIfOrphan(database, store, blob, writtenAtMs + 1).catch((error: unknown) => {
    logger.warn({ err: error, blob }, 'bytes of an upload are left to the collection of orphans')
  })
}

/** Reads enough to decide the kind, and gives it back as the beginning of `rest`. */
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
