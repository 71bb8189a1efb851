import { StoaError } from '#lib/stoa-error.ts'

export class AssetNotFoundError extends StoaError {
  readonly code = 'E_ASSET_NOT_FOUND'

  constructor(id: string) {
    super('There is no such asset.', { asset: id })
  }
}

export type AssetReferrer = {
  readonly type: string
  readonly entry: string
  readonly locale: string
}

/**
 * Facts: `referrers`, some of the versions that refer to it, and `count`, the number of entries
 * that do. Media knows no grants: the API leaves out the referrers that the reader may not see.
 */
export class AssetInUseError extends StoaError {
  readonly code = 'E_ASSET_IN_USE'
  readonly asset: string
  readonly count: number
  readonly referrers: readonly AssetReferrer[]

  constructor(asset: string, count: number, referrers: readonly AssetReferrer[]) {
    super('Entries refer to this asset; take it out of them first.', { asset, count, referrers })
    this.asset = asset
    this.count = count
    this.referrers = referrers
  }
}

/** The asset was changed since the caller read it. Facts: both revisions. */
export class AssetChangedError extends StoaError {
  readonly code = 'E_ASSET_CHANGED'

  constructor(id: string, expected: readonly number[], current: number) {
    super('The asset was changed since you read it; read it again and repeat your change.', {
      asset: id,
      expected,
      current,
    })
  }
}

/** A name, alternative text, focal point or page that cannot be. */
export class AssetInputError extends StoaError {
  readonly code = 'E_ASSET_INPUT'
}

export class UploadTooLargeError extends StoaError {
  readonly code = 'E_UPLOAD_TOO_LARGE'

  constructor(bytesMax: number, options?: { cause?: unknown }) {
    super(`A file may have at most ${bytesMax} bytes.`, { bytesMax }, options)
  }
}

/** The file is refused; `reason` says why. Nothing of it stays. */
export class UploadRefusedError extends StoaError {
  readonly code = 'E_UPLOAD_REFUSED'
  readonly reason: 'empty' | 'typeMismatch' | 'unreadableImage' | 'tooManyPixels'

  constructor(
    message: string,
    facts: { readonly reason: UploadRefusedError['reason'] } & Readonly<Record<string, unknown>>,
    options?: { cause?: unknown },
  ) {
    super(message, facts, options)
    this.reason = facts.reason
  }
}

/**
 * The upload's bytes were collected before its record was written; only a grace period of almost
 * nothing makes it possible.
 */
export class UploadLostError extends StoaError {
  readonly code = 'E_UPLOAD_LOST'

  constructor(options?: { cause?: unknown }) {
    super('The file was removed before it could be recorded; send it again.', {}, options)
  }
}

/**
 * No resumable upload of this caller has this id: it was never made, finished long ago, terminated,
 * or has expired.
 */
export class UploadNotFoundError extends StoaError {
  readonly code = 'E_UPLOAD_NOT_FOUND'

  constructor(id: string) {
    super('There is no such upload, or it has expired; begin a new one.', { upload: id })
  }
}

/** The bytes sent do not continue those that are here. */
export class UploadOffsetError extends StoaError {
  readonly code = 'E_UPLOAD_OFFSET'

  constructor(sent: number, received: number) {
    super("The bytes do not begin at the upload's offset; ask for it and send from there.", {
      sent,
      received,
    })
  }
}

/** The checksum sent along does not fit the bytes; none of them were kept. */
export class UploadChecksumError extends StoaError {
  readonly code = 'E_UPLOAD_CHECKSUM'

  constructor() {
    super('The bytes do not fit their checksum; send them again.')
  }
}

/** This asset cannot be shown in the way asked for. */
export class RenditionError extends StoaError {
  readonly code = 'E_RENDITION'
  readonly reason: 'options' | 'notAnImage' | 'tooLarge' | 'damaged'

  constructor(
    message: string,
    facts: { readonly reason: RenditionError['reason'] } & Readonly<Record<string, unknown>>,
    options?: { cause?: unknown },
  ) {
    super(message, facts, options)
    this.reason = facts.reason
  }
}

/** The image library, or its binary for this platform, is not installed on this node. */
export class ImageLibraryError extends StoaError {
  readonly code = 'E_IMAGE_LIBRARY'

  constructor(options?: { cause?: unknown }) {
    super(
      'This node has no image library for its platform, so it cannot read images. Install it ' +
        'with the optional packages (npm ci) on the machine that runs the node.',
      {},
      options,
    )
  }
}

/** More is asked for than can be done in time. Facts: `retryAfterS`. */
export class MediaBusyError extends StoaError {
  readonly code = 'E_MEDIA_BUSY'

  constructor(message: string, retryAfterS: number) {
    super(message, { retryAfterS })
  }
}
