import { Readable } from 'node:stream'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'
import { BlobNotFoundError } from '#file-store/errors.ts'
import type { FileStore } from '#file-store/file-store.ts'
import type { Clock } from '#lib/clock.ts'
import { disposition } from '#media/asset-name.ts'
import type { StoredAsset } from '#media/assets.ts'
import { hold } from '#media/blobs.ts'
import { AssetNotFoundError, RenditionError } from '#media/errors.ts'
import { kindOf } from '#media/kinds.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Delivery, RenditionOptions } from '#media/media.ts'
import { followsFocalPoint, planRendition } from '#media/rendition-plan.ts'
import type { RenditionPlan } from '#media/rendition-plan.ts'
import { render } from '#media/render.ts'
import type { Spool } from '#media/spool.ts'
import { WorkQueue } from '#media/work-queue.ts'

/**
 * Progressive JPEG, interlaced PNG and GIF are decoded whole, at up to six bytes a pixel. Above
 * this an original is large, and only one such is worked on at a time.
 */
const largePixelsMin = 25_000_000
/** AVIF is decoded whole at about 18 bytes a pixel: 119 million pixels took 2.2 GB and 12 s. */
const avifPixelsMax = 30_000_000

type Row = { readonly blob: string; readonly content_type: string; readonly bytes: string }

const kept = sql<Row>(
  `select blob, content_type, bytes from stoa.rendition where asset_id = $1 and key = $2`,
)
const keep = sql<Row>(
  `insert into stoa.rendition (asset_id, key, blob, content_type, bytes, made_at) values ($1, $2, $3, $4, $5, $6)
   on conflict (asset_id, key) do update set blob = excluded.blob, bytes = excluded.bytes, made_at = excluded.made_at`,
)
const makeRoom = sql(
  `delete from stoa.rendition where asset_id = $1 and key in
     (select key from stoa.rendition where asset_id = $1 and key <> $2 order by made_at desc, key offset $3)`,
)
const forget = sql(`delete from stoa.rendition where asset_id = $1 and key = $2 and blob = $3`)

type Parts = {
  readonly database: Database
  readonly store: FileStore
  readonly spool: Spool
  readonly clock: Clock
  readonly limits: MediaLimits
}

/**
 * Renditions: looked up in the database, where every node finds what any node made, and otherwise
 * made. In this process requests for the same one share the work; two nodes that start at the same
 * moment both make it, and one row stays.
 */
export class Renditions {
  readonly #parts: Parts
  readonly #queue: WorkQueue
  readonly #largeQueue: WorkQueue
  readonly #making = new Map<string, Promise<Row>>()

  constructor(parts: Parts) {
    this.#parts = parts
    const { rendersMax, rendersWaitingMax, renderWaitMs } = parts.limits
    const line = { waitingMax: rendersWaitingMax, waitMs: renderWaitMs }
    this.#queue = new WorkQueue({ runningMax: rendersMax, ...line }, parts.clock)
    this.#largeQueue = new WorkQueue({ runningMax: 1, ...line }, parts.clock)
  }

  async rendition(
    asset: StoredAsset,
    options: RenditionOptions,
    accept: string,
  ): Promise<Delivery> {
    const plan = planRendition(this.#sourceOf(asset), options, accept)
    const { database, store } = this.#parts
    const [row] = await database.run(kept, [asset.id, plan.key])
    const { blob, content_type: contentType, bytes } = row ?? (await this.#made(asset, plan))
    const kind = kindOf(contentType)
    return {
      contentType,
      bytes: Number(bytes),
      etag: `"${blob}"`,
      disposition: disposition(kind, `${asset.name.replace(/\.[^.]*$/, '')}.${kind.extensions[0]}`),
      revision: followsFocalPoint(options) ? asset.revision : null,
      open: async (range) => {
        try {
          return await store.get(blob, range)
        } catch (error) {
          if (!(error instanceof BlobNotFoundError)) throw error
          // A store that lost renditions, or was restored without them: they are made again, the
          // same.
          await database.run(forget, [asset.id, plan.key, blob])
          return store.get((await this.#made(asset, plan)).blob, range)
        }
      },
    }
  }

  #sourceOf(asset: StoredAsset): Parameters<typeof planRendition>[0] {
    const { contentType, width, height, bytes } = asset
    if (!kindOf(contentType).isRaster) {
      throw new RenditionError(
        `An asset of the kind ${contentType} has no renditions; ask for it without width, height, fit, format and quality.`,
        { reason: 'notAnImage', contentType },
      )
    }
    if (width === null || height === null || bytes > this.#parts.limits.imageBytesMax) {
      throw new RenditionError(
        'The image is too large a file to be resized; upload a smaller one.',
        { reason: 'tooLarge', bytes },
      )
    }
    if (contentType === 'image/avif' && width * height > avifPixelsMax) {
      throw new RenditionError(
        `An AVIF of more than ${avifPixelsMax} pixels takes too much memory to be resized; upload a JPEG or a smaller one.`,
        { reason: 'tooLarge', width, height },
      )
    }
    return { contentType, width, height, frames: asset.frames ?? 1, focalPoint: asset.focalPoint }
  }

  async #made(asset: StoredAsset, plan: RenditionPlan): Promise<Row> {
    const name = `${asset.id}/${plan.key}`
    let making = this.#making.get(name)
    if (making === undefined) {
      making = this.#inTurn(asset, plan).finally(() => this.#making.delete(name))
      this.#making.set(name, making)
    }
    return making
  }

  async #inTurn(asset: StoredAsset, plan: RenditionPlan): Promise<Row> {
    const make = (): Promise<Row> => this.#queue.run(() => this.#make(asset, plan))
    return (asset.width ?? 0) * (asset.height ?? 0) < largePixelsMin
      ? make()
      : this.#largeQueue.run(make)
  }

  async #make(asset: StoredAsset, plan: RenditionPlan): Promise<Row> {
    const { database, store, spool, clock, limits } = this.#parts
    const data = await spool.with(asset.blob, (path) => render(path, plan, limits.pixelsMax))
    const blob = await store.put(Readable.from([data]), { bytesMax: data.length })
    const contentType = `image/${plan.format}`
    await database
      .transaction(async (tx) => {
        await hold(tx, store, blob.id)
        await tx.run(keep, [
          asset.id,
          plan.key,
          blob.id,
          contentType,
          blob.bytes,
          new Date(clock.nowMs()).toISOString(),
        ])
        await tx.run(makeRoom, [asset.id, plan.key, limits.renditionsPerAssetMax - 1])
      })
      .catch((error: unknown) => {
        throw error instanceof ConstraintError && error.kind === 'foreignKey'
          ? new AssetNotFoundError(asset.id)
          : error
      })
    return { blob: blob.id, content_type: contentType, bytes: String(blob.bytes) }
  }
}
