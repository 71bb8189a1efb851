import { join } from 'node:path'
import type { Database } from '#database/database.ts'
import type { FileStore } from '#file-store/file-store.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import { disposition } from '#media/asset-name.ts'
import {
  createAsset,
  deleteAsset,
  findAsset,
  listAssets,
  pageOfAssets,
  publicAsset,
  restoreAsset,
  updateAsset,
} from '#media/assets.ts'
import { collect } from '#media/collect.ts'
import { kindOf } from '#media/kinds.ts'
import { defaultLimits } from '#media/limits.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Delivery, Media } from '#media/media.ts'
import { receive } from '#media/receive.ts'
import { Renditions } from '#media/renditions.ts'
import { Spool } from '#media/spool.ts'
import { BlobUploads } from '#media/uploads.ts'

/** A spooled file lives for one image; this much later its process is gone. */
const spoolMs = 3_600_000

export type MediaOptions = {
  readonly database: Database
  readonly fileStore: FileStore
  /**
   * This node's own folder; media keeps nothing there that another node, or a later start, would
   * need.
   */
  readonly dataDir: string
  readonly clock: Clock
  readonly logger: Logger
  readonly limits?: Partial<MediaLimits>
}

export function createMedia(options: MediaOptions): Media {
  const { database, fileStore: store, clock } = options
  const limits = { ...defaultLimits, ...options.limits }
  const logger = options.logger.child({ part: 'media' })
  const spool = new Spool(join(options.dataDir, 'spool'), store)
  const parts = { database, store, spool, clock, logger, limits }
  const renditions = new Renditions(parts)
  const uploads = new BlobUploads(parts)
  const media: Media = {
    upload: async (db, actor, { alt, ...input }) =>
      media.create(db, actor, await media.receive(input), alt),
    receive: (input) => receive(parts, input),
    create: (db, actor, received, alt = {}) =>
      createAsset({ db, store, clock }, actor, received, alt),
    restore: (db, asset, received) => restoreAsset({ db, store }, asset, received),
    get: async (id) => publicAsset(await findAsset(database, id)),
    page: pageOfAssets,
    list: (page) => listAssets(database, page),
    update: updateAsset,
    delete: (db, id, expected = null) => deleteAsset(db, id, expected),
    original: async (id) => {
      const asset = await findAsset(database, id)
      const kind = kindOf(asset.contentType)
      return originalDelivery(store, asset, kind)
    },
    rendition: async (id, wanted, accept) => {
      const asset = await findAsset(database, id)
      // A drawing scales by itself, and is never run through a renderer here.
      const kind = kindOf(asset.contentType)
      if (kind.contentType === 'image/svg+xml' && (wanted.format ?? 'auto') === 'auto')
        return originalDelivery(store, asset, kind)
      return renditions.rendition(asset, wanted, accept)
    },
    uploads,
    collect: (wanted) => collect({ ...parts, uploads }, wanted),
    tidy: () => spool.sweep(clock.nowMs() - spoolMs),
  }
  return media
}

function originalDelivery(
  store: FileStore,
  asset: { name: string; bytes: number; blob: string },
  kind: ReturnType<typeof kindOf>,
): Delivery {
  return {
    contentType: kind.contentType.startsWith('text/')
      ? `${kind.contentType}; charset=utf-8`
      : kind.contentType,
    bytes: asset.bytes,
    etag: `"${asset.blob}"`,
    disposition: disposition(kind, asset.name),
    revision: null,
    open: (range) => store.get(asset.blob, range),
  }
}
