import { createHash } from 'node:crypto'
import type { Database } from '#database/database.ts'
import { BlobNotFoundError } from '#file-store/errors.ts'
import type { FileStore } from '#file-store/file-store.ts'
import { orphansAmong } from '#media/blobs.ts'
import { namedBlobs } from '#media/named-blobs.ts'
import type { NamedBlob } from '#media/named-blobs.ts'

const readsMax = 4
/** Blobs looked up in one statement. */
const batchMax = 500
/** A file is named by this many of its assets at most, and a report lists this many files. */
const listedMax = 10_000

export type VerifyOptions = {
  /** Only looks whether each blob is there, with its length; reads no bytes. */
  readonly quick: boolean
  /** A blob that no row names is an orphan when it is older than this; younger: an upload. */
  readonly olderThanMs: number
  readonly nowMs: number
  readonly signal: AbortSignal
  readonly onProgress: (blobs: number) => void
}

export type VerifyReport = {
  readonly checked: number
  readonly bytes: number
  readonly missing: readonly NamedBlob[]
  readonly damaged: readonly NamedBlob[]
  /** The collection of orphans removes them by itself. */
  readonly orphans: { readonly blobs: number; readonly bytes: number }
}

/**
 * Compares the file store with the rows that name blobs, and changes nothing. The first findings of
 * each kind are listed, up to a limit. Rejects with the signal's reason when it aborts.
 */
export async function verifyFiles(
  { database, store }: { readonly database: Database; readonly store: FileStore },
  options: VerifyOptions,
): Promise<VerifyReport> {
  const counts = { checked: 0, bytes: 0 }
  const missing: NamedBlob[] = []
  const damaged: NamedBlob[] = []
  const blobs = namedBlobs(database)
  const worker = async (): Promise<void> => {
    for await (const blob of blobs) {
      options.signal.throwIfAborted()
      const bytes = await bytesOf(store, blob, options.quick)
      const list = bytes === 'missing' ? missing : damaged
      if (typeof bytes === 'number') counts.bytes += bytes
      else if (list.length < listedMax) list.push(blob)
      counts.checked += 1
      options.onProgress(counts.checked)
    }
  }
  const outcomes = await Promise.allSettled(Array.from({ length: readsMax }, worker))
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  const orphans = await countOrphans({ database, store }, options)
  return { ...counts, missing, damaged, orphans }
}

async function bytesOf(
  store: FileStore,
  { id, bytes }: NamedBlob,
  quick: boolean,
): Promise<number | 'missing' | 'damaged'> {
  try {
    if (quick) {
      const found = await store.info(id)
      return bytes !== null && found.bytes !== bytes ? 'damaged' : found.bytes
    }
    const hash = createHash('sha256')
    let read = 0
    for await (const chunk of await store.get(id)) {
      hash.update(chunk as Buffer)
      read += (chunk as Buffer).length
    }
    return hash.digest('hex') === id ? read : 'damaged'
  } catch (error) {
    if (error instanceof BlobNotFoundError) return 'missing'
    throw error
  }
}

async function countOrphans(
  { database, store }: { readonly database: Database; readonly store: FileStore },
  { nowMs, olderThanMs, signal }: VerifyOptions,
): Promise<VerifyReport['orphans']> {
  const beforeMs = nowMs - olderThanMs
  const found = { blobs: 0, bytes: 0 }
  let batch = new Map<string, number>()
  const count = async (): Promise<void> => {
    for (const id of await orphansAmong(database, [...batch.keys()], beforeMs)) {
      found.blobs += 1
      found.bytes += batch.get(id) ?? 0
    }
    batch = new Map()
  }
  for await (const { id, bytes, writtenAtMs } of store.list()) {
    signal.throwIfAborted()
    if (writtenAtMs >= beforeMs) continue
    batch.set(id, bytes)
    if (batch.size >= batchMax) await count()
  }
  if (batch.size > 0) await count()
  return found
}
