import { createReadStream } from 'node:fs'
import { LRUCache } from 'lru-cache'
import { sql } from '#database/database.ts'
import type { Database, Queryable } from '#database/database.ts'
import { ConstraintError } from '#database/errors.ts'
import { BlobNotFoundError } from '#file-store/errors.ts'
import type { FileStore } from '#file-store/file-store.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import { disposition } from '#media/asset-name.ts'
import { lockBlob } from '#media/blobs.ts'
import { AssetNotFoundError, MediaBusyError, RenditionError } from '#media/errors.ts'
import type { ImageProcesses } from '#media/image-processes.ts'
import { kindOf } from '#media/kinds.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Delivery, RenditionOptions, RenditionReader, StoredAsset } from '#media/media.ts'
import { discard } from '#media/receive.ts'
import { isCrop, planRendition } from '#media/rendition-plan.ts'
import type { RenditionPlan, RenditionSource } from '#media/rendition-plan.ts'
import type { Spool } from '#media/spool.ts'

/**
 * Progressive JPEG, interlaced PNG and GIF are decoded whole, at up to six bytes a pixel, and take
 * long. The same holds for what is encoded as AVIF, and for animations.
 */
const costlySourcePixelsMin = 25_000_000
const costlyAvifPixelsMin = 1_000_000
/** AVIF is decoded whole at about 18 bytes a pixel: 119 million pixels took 2.2 GB and 12 s. */
const avifPixelsMax = 30_000_000
/** HEIC is decoded whole at about 14 bytes a pixel: 49 million took 680 MB and 9 s. */
const heicPixelsMax = 50_000_000

/** Renditions that this node knows without asking the database. A blob never changes. */
const knownMax = 20_000
/** The database learns of a use at most so often. */
const useRecordedMs = 300_000
/** An image that failed is not tried again for so long; each try may take its whole time. */
const failureMs = 600_000
const failuresMax = 2_000

type Row = { readonly blob: string; readonly content_type: string; readonly bytes: string }
type Known = Row & { usedAtMs: number; recordedAtMs: number }

const lookUp = sql<Row>(
  `select blob, content_type, bytes from stoa.rendition where asset_id = $1 and key = $2`,
)
const insert = sql<Row>(
  `insert into stoa.rendition (asset_id, key, blob, content_type, bytes, used_at)
   values ($1, $2, $3, $4, $5, $6)
   on conflict (asset_id, key) do update
   set blob = excluded.blob, bytes = excluded.bytes, used_at = excluded.used_at`,
)
const recordUses = sql(
  `update stoa.rendition r set used_at = greatest(r.used_at, u.used_at)
   from unnest($2::text[], $3::timestamptz[]) u(key, used_at)
   where r.asset_id = $1 and r.key = u.key`,
)
const evict = sql<{ blob: string }>(
  `delete from stoa.rendition r using (
     select key, row_number() over w as position, sum(bytes) over w as total
     from stoa.rendition where asset_id = $1
     window w as (order by key = $2 desc, used_at desc, key)
   ) s
   where r.asset_id = $1 and r.key = s.key and r.key <> $2 and (s.position > $3 or s.total > $4)
   returning r.blob`,
)
const remove = sql(`delete from stoa.rendition where asset_id = $1 and key = $2 and blob = $3`)

type Parts = {
  readonly database: Database
  readonly store: FileStore
  readonly spool: Spool
  readonly images: ImageProcesses
  readonly clock: Clock
  readonly logger: Logger
  readonly limits: MediaLimits
}

type Job = {
  readonly asset: StoredAsset
  readonly plan: RenditionPlan
  readonly caller: string
}

/**
 * Renditions are looked up in this node's memory, then in the database, where every node finds the
 * renditions of all, and otherwise made. In this process requests for the same one share the work;
 * two nodes that start at the same moment both make it, and one row stays.
 */
export class Renditions {
  readonly #parts: Parts
  readonly #making = new Map<string, Promise<Row>>()
  /** By asset and key, so that an asset's uses are at hand when its renditions make room. */
  readonly #known = new LRUCache<string, Known>({ max: knownMax })
  readonly #failures: LRUCache<string, RenditionError>

  constructor(parts: Parts) {
    this.#parts = parts
    this.#failures = new LRUCache({ max: failuresMax, ttl: failureMs })
  }

  async rendition(
    asset: StoredAsset,
    options: RenditionOptions,
    { accept, caller }: RenditionReader,
  ): Promise<Delivery> {
    const plan = planRendition(this.#sourceOf(asset), options, accept)
    const job = { asset, plan, caller }
    const { blob, content_type: contentType, bytes } = await this.#find(job)
    const kind = kindOf(contentType)
    return {
      contentType,
      bytes: Number(bytes),
      etag: `"${blob}"`,
      disposition: disposition(kind, `${withoutExtension(asset.name)}.${kind.extensions[0]}`),
      revision: isCrop(options) ? asset.revision : null,
      open: async (range) => {
        const { database, store } = this.#parts
        try {
          return await store.get(blob, range)
        } catch (error) {
          if (!(error instanceof BlobNotFoundError)) throw error
          // The rendition made room, or the store lost it: the same bytes are made again.
          this.#known.delete(nameOf(job))
          await database.run(remove, [asset.id, plan.key, blob])
          return store.get((await this.#make(job)).blob, range)
        }
      },
    }
  }

  #sourceOf(asset: StoredAsset): RenditionSource {
    const { contentType, width, height, bytes } = asset
    if (!kindOf(contentType).isRaster) {
      throw new RenditionError(
        `An asset of the kind ${contentType} has no renditions; ` +
          'ask for it without width, height, fit, format and quality.',
        { reason: 'notAnImage', contentType },
      )
    }
    if (width === null || height === null || bytes > this.#parts.limits.imageBytesMax) {
      throw new RenditionError(
        'The image is too large a file to be resized; upload a smaller one.',
        { reason: 'tooLarge', bytes },
      )
    }
    const pixelsMax = decodedPixelsMax(contentType)
    if (width * height > pixelsMax) {
      throw new RenditionError(
        `An image of the kind ${contentType} with more than ${pixelsMax} pixels takes too much ` +
          'memory to be resized; upload a JPEG or a smaller one.',
        { reason: 'tooLarge', width, height },
      )
    }
    return { contentType, width, height, frames: asset.frames ?? 1, focalPoint: asset.focalPoint }
  }

  async #find(job: Job): Promise<Row> {
    const name = nameOf(job)
    const known = this.#known.get(name)
    if (known !== undefined) {
      this.#use(job, known)
      return known
    }
    const row = await this.#lookUp(job)
    if (row === undefined) return this.#make(job)
    // The database's own time of use may be as old as the recording allows.
    const entry = this.#remember(name, row)
    entry.recordedAtMs = 0
    this.#use(job, entry)
    return row
  }

  async #lookUp({ asset, plan }: Job): Promise<Row | undefined> {
    const { database, limits } = this.#parts
    const found = await withTimeout(database.run(lookUp, [asset.id, plan.key]), limits.lookUpMsMax)
    if (found !== timedOut) return found[0]
    throw new MediaBusyError('The database does not respond; ask for the image again.', 1)
  }

  #remember(name: string, row: Row): Known {
    const nowMs = this.#parts.clock.nowMs()
    const known = { ...row, usedAtMs: nowMs, recordedAtMs: nowMs }
    this.#known.set(name, known)
    return known
  }

  #use({ asset, plan }: Job, known: Known): void {
    const { database, clock, logger } = this.#parts
    known.usedAtMs = clock.nowMs()
    if (known.usedAtMs - known.recordedAtMs < useRecordedMs) return
    known.recordedAtMs = known.usedAtMs
    database
      .run(recordUses, [asset.id, [plan.key], [iso(known.usedAtMs)]])
      .catch((error: unknown) => {
        logger.debug({ err: error, asset: asset.id }, 'the use of a rendition was not recorded')
      })
  }

  async #make(job: Job): Promise<Row> {
    const name = nameOf(job)
    const failure = this.#failures.get(name)
    if (failure !== undefined) throw failure
    let making = this.#making.get(name)
    if (making === undefined) {
      making = this.#makeInTurn(job).finally(() => this.#making.delete(name))
      this.#making.set(name, making)
    }
    return making
  }

  async #makeInTurn(job: Job): Promise<Row> {
    const { asset, plan, caller } = job
    const claim = { caller, group: asset.id, isCostly: isCostly(asset, plan) }
    const { images, spool, limits } = this.#parts
    try {
      const row = await images.use(claim, (work) =>
        spool.with(asset.blob, async ({ path, outputPath }) => {
          const bytes = await work.render({
            path,
            outputPath,
            contentType: asset.contentType,
            plan,
            pixelsMax: limits.pixelsMax,
          })
          return this.#keep(job, outputPath, bytes)
        }),
      )
      this.#remember(nameOf(job), row)
      return row
    } catch (error) {
      if (error instanceof RenditionError) this.#failures.set(nameOf(job), error)
      throw error
    }
  }

  async #keep({ asset, plan }: Job, path: string, bytesMax: number): Promise<Row> {
    const { database, store, clock, limits } = this.#parts
    const blob = await store.put(createReadStream(path), { bytesMax })
    const contentType = `image/${plan.format}`
    const values = [asset.id, plan.key, blob.id, contentType, blob.bytes, iso(clock.nowMs())]
    let evicted: { readonly blob: string }[]
    try {
      evicted = await database.transaction(async (tx) => {
        await lockBlob(tx, store, blob.id)
        await tx.run(insert, values)
        await this.#recordUsesOf(tx, asset.id)
        const { renditionsPerAssetMax, renditionBytesPerAssetMax } = limits
        const bounds = [renditionsPerAssetMax, renditionBytesPerAssetMax]
        return tx.run(evict, [asset.id, plan.key, ...bounds])
      })
    } catch (error) {
      const isGone = error instanceof ConstraintError && error.kind === 'foreignKey'
      throw isGone ? new AssetNotFoundError(asset.id) : error
    }
    // At once, or a stranger who asks for variant after variant would fill the disk with them.
    for (const each of evicted) await discard(this.#parts, each.blob)
    return { blob: blob.id, content_type: contentType, bytes: String(blob.bytes) }
  }

  /** Uses that the database has not learned of yet count when renditions make room. */
  async #recordUsesOf(tx: Queryable, assetId: string): Promise<void> {
    const keys: string[] = []
    const times: string[] = []
    for (const [name, known] of this.#known) {
      if (!name.startsWith(`${assetId}/`)) continue
      keys.push(name.slice(assetId.length + 1))
      times.push(iso(known.usedAtMs))
    }
    if (keys.length > 0) await tx.run(recordUses, [assetId, keys, times])
  }
}

function decodedPixelsMax(contentType: string): number {
  if (contentType === 'image/avif') return avifPixelsMax
  return contentType === 'image/heic' ? heicPixelsMax : Number.POSITIVE_INFINITY
}

function isCostly({ contentType, width, height }: StoredAsset, plan: RenditionPlan): boolean {
  return (
    plan.isAnimated ||
    contentType === 'image/heic' ||
    (width ?? 0) * (height ?? 0) >= costlySourcePixelsMin ||
    (plan.format === 'avif' && plan.width * plan.height >= costlyAvifPixelsMin)
  )
}

function nameOf({ asset, plan }: Job): string {
  return `${asset.id}/${plan.key}`
}

function withoutExtension(name: string): string {
  const dot = name.lastIndexOf('.')
  return dot <= 0 ? name : name.slice(0, dot)
}

function iso(ms: number): string {
  return new Date(ms).toISOString()
}
