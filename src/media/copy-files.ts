import { setTimeout as sleep } from 'node:timers/promises'
import type { Database } from '#database/database.ts'
import {
  BlobDamagedError,
  BlobNotFoundError,
  FileStoreUnavailableError,
} from '#file-store/errors.ts'
import type { FileStore } from '#file-store/file-store.ts'
import { copyBlob } from '#file-store/placed-file-store.ts'
import { backoffMs } from '#lib/backoff.ts'
import { namedBlobs } from '#media/named-blobs.ts'
import type { NamedBlob } from '#media/named-blobs.ts'

const copiesMax = 8
/** A store that is away is tried again for about a minute; then the move is taken up later. */
const attemptsMax = 8
const retry = { firstMs: 250, maxMs: 20_000, jitter: 0.3 }

export type CopyOptions = {
  readonly from: FileStore
  readonly to: FileStore
  readonly signal: AbortSignal
  readonly onProgress: (done: { readonly blobs: number; readonly bytes: number }) => void
}

export type CopyResult = {
  /** Blobs that were copied now, and those that were there already. */
  readonly copied: number
  readonly there: number
  /** The bytes of both. */
  readonly bytes: number
  /** Blobs that neither store has. */
  readonly missing: readonly NamedBlob[]
  /** Blobs whose bytes in the old store are not those of their hash. */
  readonly damaged: readonly NamedBlob[]
}

/**
 * Copies every blob that a row names from one store to the other, unless it is there. Each is read
 * to its end and hashed on the way, and is visible in the target only if the hash is right. May run
 * again at any time, and twice at once: what is there stays. Rejects with the signal's reason when
 * it aborts, and with `FileStoreUnavailableError` when a store stays away.
 */
export async function copyNamedBlobs(
  database: Database,
  { from, to, signal, onProgress }: CopyOptions,
): Promise<CopyResult> {
  const result = { copied: 0, there: 0, bytes: 0 }
  const missing: NamedBlob[] = []
  const damaged: NamedBlob[] = []
  const copy = async (blob: NamedBlob): Promise<void> => {
    signal.throwIfAborted()
    const outcome = await copyOne(blob, { from, to, signal })
    if (outcome === 'missing') missing.push(blob)
    else if (outcome === 'damaged') damaged.push(blob)
    else {
      result[outcome.kind] += 1
      result.bytes += outcome.bytes
    }
    onProgress({ blobs: result.copied + result.there, bytes: result.bytes })
  }
  const blobs = namedBlobs(database)
  const worker = async (): Promise<void> => {
    for await (const blob of blobs) await copy(blob)
  }
  const outcomes = await Promise.allSettled(Array.from({ length: copiesMax }, worker))
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  return { ...result, missing, damaged }
}

type Outcome = 'missing' | 'damaged' | { readonly kind: 'copied' | 'there'; readonly bytes: number }

async function copyOne(
  blob: NamedBlob,
  options: Pick<CopyOptions, 'from' | 'to' | 'signal'>,
): Promise<Outcome> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await copyOnce(blob, options)
    } catch (error) {
      if (error instanceof BlobNotFoundError) return 'missing'
      if (error instanceof BlobDamagedError) return 'damaged'
      if (!(error instanceof FileStoreUnavailableError) || attempt + 1 >= attemptsMax) throw error
      await sleep(backoffMs(attempt, retry), undefined, { signal: options.signal })
    }
  }
}

async function copyOnce(
  { id, bytes }: NamedBlob,
  { from, to }: Pick<CopyOptions, 'from' | 'to'>,
): Promise<Outcome> {
  try {
    const there = await to.info(id)
    if (bytes === null || there.bytes === bytes) return { kind: 'there', bytes: there.bytes }
  } catch (error) {
    if (!(error instanceof BlobNotFoundError)) throw error
  }
  return { kind: 'copied', bytes: (await copyBlob(from, to, id)).bytes }
}
