import type { Readable } from 'node:stream'

/** SHA-256 of the bytes, lower-case hex: the only name a blob has. */
export type BlobId = string

export type BlobInfo = { readonly id: BlobId; readonly bytes: number }

export type PutOptions = {
  readonly bytesMax: number
  readonly signal?: AbortSignal
  /** The id that the bytes must have; with others nothing is kept: `BlobDamagedError`. */
  readonly expected?: BlobId
}

/**
 * Where the bytes of uploads live. Blobs are immutable and content-addressed, so equal bytes are
 * stored once and a response may be cached for ever. A blob becomes visible whole or not at all; an
 * aborted `put` leaves nothing behind.
 *
 * Errors: `BlobNotFoundError`; `FileStoreUnavailableError` (try again; nothing half-written);
 * `BlobTooLargeError`; `BlobDamagedError`.
 */
export interface FileStore {
  /**
   * Streams `source` to its end, hashing on the way. Holds no more than a few chunks in memory.
   * Equal bytes that are there already are kept, and count as written now. An error of `source`
   * itself, and an abort, reject as they are.
   */
  put(source: Readable, options: PutOptions): Promise<BlobInfo>
  /**
   * The bytes from `start` to `end` inclusive (default: all), which must lie within the blob. The
   * caller must consume or destroy the stream.
   */
  get(id: BlobId, range?: { readonly start: number; readonly end: number }): Promise<Readable>
  info(id: BlobId): Promise<BlobInfo>
  /**
   * True when a blob was deleted; deleting a blob that is not there is not an error. With
   * `writtenBeforeMs` a blob that was written or put again at that time or later stays, even when
   * that `put` runs at this moment.
   */
  delete(id: BlobId, options?: { readonly writtenBeforeMs: number }): Promise<boolean>
  /**
   * Every blob, in no order, with its last use or write in ms since 1970 by the clock of the store;
   * for the collection of orphans. `delete` decides by the clock of the nodes.
   */
  list(): AsyncIterable<BlobInfo & { readonly writtenAtMs: number }>
  /**
   * Removes the remains of puts that died with their process before that time. Returns their
   * number; `dryRun` only counts.
   */
  prune(options: { readonly writtenBeforeMs: number; readonly dryRun: boolean }): Promise<number>
  /** Resolves when a tiny blob could be written, read and deleted. */
  check(signal: AbortSignal): Promise<void>
  /**
   * The name of this place, which the database remembers: so a node that sees another place, or an
   * empty folder where a file system should be mounted, does not start on it.
   */
  readonly identity: FileStoreIdentity
  /**
   * Acts from now on by that revision of where the files are, or a newer one; see
   * `PlacedFileStore`. Absent: the store never moves.
   */
  reach?(revision: number): Promise<void>
  /** Releases connections; the store is not used after that. */
  close(): Promise<void>
}

/** Errors: `FileStoreUnavailableError`. */
export type FileStoreIdentity = {
  /** Where a person finds the place, without secrets. */
  readonly place: string
  /** How a person writes the identity there by hand: "into PLACE/stoa-files". */
  readonly where: string
  /** Null: there is no file store at the place. Changes nothing. */
  read(): Promise<string | null>
  /** Makes a file store of this identity where there is none. Returns the one that is there. */
  claim(identity: string): Promise<string>
}
