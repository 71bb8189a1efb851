import type { Readable } from 'node:stream'

/** SHA-256 of the bytes, lower-case hex: the only name a blob has. */
export type BlobId = string

export type BlobInfo = { readonly id: BlobId; readonly bytes: number }

/**
 * Where the bytes of uploads live. Blobs are immutable and content-addressed, so equal bytes are stored once and an
 * answer may be cached for ever. A blob becomes visible whole or not at all; an aborted `put` leaves nothing behind.
 *
 * Errors: `BlobNotFoundError`; `FileStoreUnavailableError` (try again; nothing half-written); `BlobTooLargeError`.
 */
export interface FileStore {
  /** Streams `source` to its end, hashing on the way. Holds no more than a few chunks in memory. */
  put(source: Readable, options: { readonly bytesMax: number; readonly signal?: AbortSignal }): Promise<BlobInfo>
  /** The bytes from `start` to `end` inclusive (default: all). The caller must consume or destroy the stream. */
  get(id: BlobId, range?: { readonly start: number; readonly end: number }): Promise<Readable>
  info(id: BlobId): Promise<BlobInfo>
  /** Deleting what is not there is not an error. */
  delete(id: BlobId): Promise<void>
  /** Every blob, in no order, with its last use or write in ms since 1970; for the collection of orphans. */
  list(): AsyncIterable<BlobInfo & { readonly writtenAtMs: number }>
  /** Resolves when a tiny blob could be written, read and deleted. */
  check(signal: AbortSignal): Promise<void>
}
