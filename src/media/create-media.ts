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
import { ImageProcesses } from '#media/image-processes.ts'
import { kindOf } from '#media/kinds.ts'
import { defaultLimits } from '#media/limits.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Delivery, Media, RenditionOptions, StoredAsset } from '#media/media.ts'
import { callerOf, ReceiveGate } from '#media/receive-gate.ts'
import { discard, receive } from '#media/receive.ts'
import { Renditions } from '#media/renditions.ts'
import { Spool } from '#media/spool.ts'
import { BlobUploads } from '#media/uploads.ts'

/** A spooled file lives for one image; one that is older belongs to a dead process. */
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
  const images = new ImageProcesses({ limits, clock, logger })
  const parts = { database, store, spool, images, clock, logger, limits }
  const gate = new ReceiveGate(limits)
  const renditions = new Renditions(parts)
  const uploads = new BlobUploads(parts, gate)
  const media: Media = {
    upload: async (db, actor, { alt, ...input }) =>
      media.create(db, actor, await media.receive(actor, input), alt),
    receive: (actor, input) => {
      const caller = callerOf(actor)
      return gate.run(caller, () => receive(parts, { ...input, caller }))
    },
    discard: (received) => discard(parts, received.blob),
    create: (db, actor, received, alt = {}) =>
      createAsset({ db, store, clock }, actor, received, alt),
    restore: (db, asset, received) => restoreAsset({ db, store }, asset, received),
    get: async (id) => publicAsset(await findAsset(database, id)),
    find: findAsset,
    page: pageOfAssets,
    list: (page) => listAssets(database, page),
    update: updateAsset,
    delete: (db, id, expected = null) => deleteAsset(db, id, expected),
    original: (asset) => originalDelivery(store, asset),
    rendition: async (asset, wanted, reader) =>
      staysOriginal(asset, wanted)
        ? originalDelivery(store, asset)
        : renditions.rendition(asset, wanted, reader),
    uploads,
    collect: (wanted) => collect({ ...parts, uploads }, wanted),
    pruneSpool: () => spool.prune(clock.nowMs() - spoolMs),
    stop: () => images.stop(),
  }
  return media
}

/**
 * A drawing scales by itself and is never run through a renderer here; the frames of an animated
 * PNG cannot be read here. A format that is asked for by name makes a still of the latter.
 */
function staysOriginal({ contentType, frames }: StoredAsset, wanted: RenditionOptions): boolean {
  if ((wanted.format ?? 'auto') !== 'auto') return false
  return contentType === 'image/svg+xml' || (contentType === 'image/png' && (frames ?? 1) > 1)
}

function originalDelivery(store: FileStore, asset: StoredAsset): Delivery {
  const kind = kindOf(asset.contentType)
  return {
    contentType: deliveredType(asset.contentType, kind.deliveredAs),
    bytes: asset.bytes,
    etag: `"${asset.blob}"`,
    disposition: disposition(kind, asset.name),
    revision: null,
    open: (range) => store.get(asset.blob, range),
  }
}

/** Text has its character set; `deliveredAs` may be a harmless type in place of its own. */
function deliveredType(contentType: string, deliveredAs: string): string {
  if (!deliveredAs.startsWith('text/')) return deliveredAs
  const charset = /;\s*charset=([\w-]+)/.exec(contentType)?.[1] ?? 'utf-8'
  return `${deliveredAs}; charset=${charset}`
}
