import type { Readable } from 'node:stream'
import type { Queryable } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'

/** An uploaded file as an editor knows it: a blob with a name, alt text, renditions. */
export type Asset = {
  readonly id: string
  readonly name: string
  /** Sniffed from the bytes, never the uploader's word. */
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

/** What to answer with: bytes that never change under their URL. */
export type Delivery = {
  readonly contentType: string
  readonly bytes: number
  readonly etag: string
  /** `inline` only for kinds that a browser shows harmlessly; everything else downloads. */
  readonly disposition: string
  readonly open: (range?: { readonly start: number; readonly end: number }) => Promise<Readable>
}

/** Errors: `AssetNotFoundError`, `AssetInUseError`, `UploadTooLargeError`, `UploadRefusedError`, `RenditionError`, `MediaBusyError`. */
export interface Media {
  upload(db: Queryable, actor: Actor, input: { readonly name: string; readonly source: Readable; readonly alt?: Record<string, string>; readonly signal?: AbortSignal }): Promise<Asset>
  get(id: string): Promise<Asset>
  list(page: { readonly limit: number; readonly after: string | null; readonly search: string | null }): Promise<{ data: Asset[]; after: string | null }>
  update(db: Queryable, id: string, input: { readonly name?: string; readonly alt?: Record<string, string>; readonly focalPoint?: Asset['focalPoint'] }, expected: number | null): Promise<Asset>
  /** Refused while a latest or published version refers to it with `restrict`; otherwise as the field's `onDelete` says. */
  delete(db: Queryable, id: string): Promise<void>
  original(id: string): Promise<Delivery>
  /** Made once on demand (single flight, bounded concurrency, bounded pixels), kept in the file store. */
  rendition(id: string, options: RenditionOptions, accept: string): Promise<Delivery>
  /** Deletes blobs that nothing refers to and that are older than a grace period, abandoned uploads, and renditions of deleted assets. */
  collect(options: { readonly olderThanMs: number; readonly dryRun: boolean }): Promise<{ readonly blobs: number; readonly bytes: number; readonly uploads: number }>
}
