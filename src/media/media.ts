import type { Readable } from 'node:stream'
import type { Queryable } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'

/** An uploaded file as an editor knows it: a blob with a name, alt text, renditions. */
export type Asset = {
  readonly id: string
  readonly name: string
  /** Read from the bytes, whatever the uploader says. Text that is not UTF-8 has its charset. */
  readonly contentType: string
  readonly bytes: number
  /** SHA-256 of the bytes. */
  readonly blob: string
  readonly width: number | null
  readonly height: number | null
  readonly alt: Readonly<Record<string, string>>
  /** 0..1 from the left and from the top; crops keep it in view. */
  readonly focalPoint: { readonly x: number; readonly y: number } | null
  readonly createdAt: string
  readonly createdBy: Actor
  readonly revision: number
}

export type RenditionOptions = {
  readonly width?: number
  readonly height?: number
  readonly fit?: 'cover' | 'contain'
  readonly quality?: number
  /** `auto`: the best that `accept` names, of AVIF, WebP and the original's own kind. */
  readonly format?: 'auto' | 'avif' | 'webp' | 'jpeg' | 'png'
}

export type RenditionReader = {
  /** The header `Accept`. */
  readonly accept: string
  /** Shares the places for making renditions: an address, or an actor. */
  readonly caller: string
}

/** The content of a response: bytes that never change under their URL. */
export type Delivery = {
  readonly contentType: string
  readonly bytes: number
  readonly etag: string
  /** `inline` only for kinds that a browser shows harmlessly; everything else downloads. */
  readonly disposition: string
  /**
   * The asset's revision, where an editor's new focal point changes what this URL shows; null:
   * these bytes for ever.
   */
  readonly revision: number | null
  readonly open: (range?: { readonly start: number; readonly end: number }) => Promise<Readable>
}

/** A file whose bytes are stored and checked, and which no asset names yet. */
export type Received = {
  readonly name: string
  readonly contentType: string
  readonly blob: string
  readonly bytes: number
  readonly width: number | null
  readonly height: number | null
  readonly frames: number | null
}

/** An asset, with the number of frames that only renditions need. */
export type StoredAsset = Asset & { readonly frames: number | null }

export type Alt = Readonly<Record<string, string>>

export type AssetChange = {
  readonly name?: string
  readonly alt?: Alt
  readonly focalPoint?: Asset['focalPoint']
}

/**
 * Errors: `AssetNotFoundError`, `AssetInUseError`, `AssetChangedError`, `AssetInputError`,
 * `UploadTooLargeError`, `UploadRefusedError`, `UploadLostError`, `RenditionError`,
 * `MediaBusyError`, and the file store's own.
 */
export interface Media {
  /** `receive` and `create` in one. */
  upload(
    db: Queryable,
    actor: Actor,
    input: {
      readonly name: string
      readonly source: Readable
      readonly alt?: Alt
      readonly signal?: AbortSignal
    },
  ): Promise<Asset>
  /**
   * Streams a file into the file store, learns its kind from its bytes and measures images. This
   * takes long, so it is outside any transaction; `source` is consumed or destroyed. `create` makes
   * an asset of the file, `discard` removes it; otherwise it is collected after the grace period.
   */
  receive(
    actor: Actor,
    input: {
      readonly name: string
      readonly source: Readable
      readonly signal?: AbortSignal
    },
  ): Promise<Received>
  /** Removes the bytes of a received file, unless an asset has the same. */
  discard(received: Received): Promise<void>
  /** Makes the asset of a received file; `db` may be a transaction that makes several. */
  create(db: Queryable, actor: Actor, received: Received, alt?: Alt): Promise<Asset>
  /**
   * Makes an asset as it was elsewhere: with its id, dates and maker, of the same bytes. For
   * imports of an export. An asset that is there already stays. Throws `AssetInputError` when the
   * bytes are not those of the asset.
   */
  restore(db: Queryable, asset: Asset, received: Received): Promise<void>
  get(id: string): Promise<Asset>
  /**
   * The row that `original` and `rendition` need. `db` may be one that records for a cache what was
   * read.
   */
  find(db: Pick<Queryable, 'run'>, id: string): Promise<StoredAsset>
  /** By id, for exports: `db` may be a transaction that sees one snapshot. */
  page(
    db: Queryable,
    page: { readonly after: string | null; readonly limit: number },
  ): Promise<Asset[]>
  /** Newest first; `search` looks for a part of the name or of an alternative text, in any case. */
  list(page: {
    readonly limit: number
    readonly after: string | null
    readonly search: string | null
  }): Promise<{ data: Asset[]; after: string | null }>
  /**
   * `expected` has the revisions that the caller saw; null accepts any. A new name keeps an
   * extension that fits the bytes.
   */
  update(
    db: Queryable,
    id: string,
    input: AssetChange,
    expected: readonly number[] | null,
  ): Promise<Asset>
  /**
   * Throws `AssetInUseError` while a latest or published version refers to it, whatever the field's
   * `onDelete`: taking it out of entries would be new versions of them, which only content makes,
   * under the caller's permissions.
   */
  delete(db: Queryable, id: string, expected?: readonly number[] | null): Promise<void>
  original(asset: StoredAsset): Delivery
  /**
   * Made once on demand, in child processes with bounded memory and time, and kept in the file
   * store. A rendition that this node knows asks the database nothing.
   */
  rendition(
    asset: StoredAsset,
    options: RenditionOptions,
    reader: RenditionReader,
  ): Promise<Delivery>
  readonly uploads: Uploads
  /**
   * Deletes blobs that nothing refers to and that are older than a grace period, abandoned uploads,
   * and renditions of deleted assets.
   */
  collect(options: {
    readonly olderThanMs: number
    readonly dryRun: boolean
  }): Promise<{ readonly blobs: number; readonly bytes: number; readonly uploads: number }>
  /**
   * Removes files of dead processes from this machine's data folder. Each node does it for itself,
   * where `collect` is for one of them.
   */
  pruneSpool(): Promise<void>
  /** Ends the child processes; for the end of this process. */
  stop(): Promise<void>
}

export type UploadState = {
  readonly id: string
  readonly bytes: number
  /** Bytes that are safe here: send from this offset. */
  readonly received: number
  readonly expiresAt: string
  /** Set once all bytes are here and the asset exists. */
  readonly assetId: string | null
}

/**
 * Resumable uploads. Each belongs to the actor that made it; to others it does not exist. Any node
 * can go on with one that another node began. Errors: `UploadNotFoundError`, `UploadOffsetError`,
 * `UploadChecksumError`, and those of `Media`.
 */
export interface Uploads {
  create(
    actor: Actor,
    input: { readonly name: string; readonly bytes: number; readonly alt?: Alt },
  ): Promise<UploadState>
  /**
   * Where all bytes are here but the asset is not, because a node died then, this makes the asset.
   */
  status(actor: Actor, id: string): Promise<UploadState>
  /**
   * Keeps the bytes that arrive, also when `source` breaks off: then it rejects with that error,
   * and `status` says how much is safe. With a checksum it is all or nothing. The last byte makes
   * the asset; when that is refused, the upload is gone.
   */
  append(actor: Actor, id: string, input: AppendInput): Promise<UploadState>
  terminate(actor: Actor, id: string): Promise<void>
}

export type AppendInput = {
  readonly offset: number
  readonly source: Readable
  readonly checksum: Checksum | null
  /**
   * Runs when all bytes are here, before the asset is made; an upload may outlive the rights of the
   * one who sends it, and then this throws.
   */
  readonly confirm?: () => Promise<void>
}

export const checksumAlgorithms = ['sha256', 'sha1', 'md5'] as const
export type Checksum = {
  readonly algorithm: (typeof checksumAlgorithms)[number]
  readonly digest: Buffer
}
