import { StoaError } from '#lib/stoa-error.ts'

/** No blob has this id here. */
export class BlobNotFoundError extends StoaError {
  readonly code = 'E_BLOB_NOT_FOUND'

  constructor(id: string, options?: { cause?: unknown }) {
    super(
      'The file store has no such blob: it was deleted, or was put into another store.',
      { blob: id },
      options,
    )
  }
}

/** The stream was longer than the caller allows; nothing was kept. */
export class BlobTooLargeError extends StoaError {
  readonly code = 'E_BLOB_TOO_LARGE'

  constructor(bytesMax: number) {
    super(`The file is larger than the ${bytesMax} bytes allowed here.`, { bytesMax })
  }
}

/** The bytes are not those that their id says; nothing was kept. */
export class BlobDamagedError extends StoaError {
  readonly code = 'E_BLOB_DAMAGED'

  constructor(expected: string, found: string) {
    super(
      'The bytes of a file are not those that were stored: their SHA-256 differs. Restore the ' +
        'file from a backup.',
      { blob: expected, found },
    )
  }
}

/**
 * The store cannot be reached, is full, or refuses us. Nothing half-written is visible; the call
 * can be made again.
 */
export class FileStoreUnavailableError extends StoaError {
  readonly code = 'E_FILE_STORE_UNAVAILABLE'
}
