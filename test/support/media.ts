import { createHash } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { Database } from '#database/database.ts'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import { FileStoreUnavailableError } from '#file-store/errors.ts'
import type {
  BlobId,
  BlobInfo,
  FileStore,
  FileStoreIdentity,
  PutOptions,
} from '#file-store/file-store.ts'
import type { Actor } from '#lib/actor.ts'
import type { Clock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import { createMedia } from '#media/create-media.ts'
import type { MediaLimits } from '#media/limits.ts'
import type { Delivery, Media, RenditionOptions } from '#media/media.ts'

export const editor: Actor = {
  kind: 'user',
  id: '01890000-0000-7000-8000-000000000001',
  name: 'Ada',
}

/** Real time, plus what the test adds. */
export class AheadClock implements Clock {
  aheadMs = 0
  nowMs(): number {
    return Date.now() + this.aheadMs
  }
  monotonicMs(): number {
    return performance.now() + this.aheadMs
  }
}

/**
 * A file store in front of another: counts its calls, fails on demand, and runs a hook
 * before deletes and after puts.
 */
export class WatchedFileStore implements FileStore {
  readonly #inner: FileStore
  puts = 0
  isDown = false
  afterPut: (blob: BlobInfo) => Promise<void> = async () => undefined
  beforeDelete: (id: BlobId) => Promise<void> = async () => undefined

  constructor(inner: FileStore) {
    this.#inner = inner
  }

  get identity(): FileStoreIdentity {
    return this.#inner.identity
  }

  async put(source: Readable, options: PutOptions): Promise<BlobInfo> {
    this.#up()
    this.puts += 1
    const blob = await this.#inner.put(source, options)
    await this.afterPut(blob)
    return blob
  }

  async get(
    id: BlobId,
    range?: { readonly start: number; readonly end: number },
  ): Promise<Readable> {
    this.#up()
    return this.#inner.get(id, range)
  }

  async info(id: BlobId): Promise<BlobInfo> {
    this.#up()
    return this.#inner.info(id)
  }

  async delete(id: BlobId, options?: { readonly writtenBeforeMs: number }): Promise<boolean> {
    this.#up()
    await this.beforeDelete(id)
    return this.#inner.delete(id, options)
  }

  list(): AsyncIterable<BlobInfo & { readonly writtenAtMs: number }> {
    this.#up()
    return this.#inner.list()
  }

  async prune(options: {
    readonly writtenBeforeMs: number
    readonly dryRun: boolean
  }): Promise<number> {
    this.#up()
    return this.#inner.prune(options)
  }

  async check(signal: AbortSignal): Promise<void> {
    this.#up()
    return this.#inner.check(signal)
  }

  async close(): Promise<void> {
    await this.#inner.close()
  }

  #up(): void {
    if (this.isDown) throw new FileStoreUnavailableError('The store is down, as the test said.')
  }
}

export type TestMedia = AsyncDisposable & {
  readonly media: Media
  readonly store: WatchedFileStore
  readonly clock: AheadClock
  /** Another node on the same database and files. */
  readonly another: () => Media
  /** Every file on disk, part files and spooled ones included. */
  readonly files: () => Promise<string[]>
}

export async function testMedia(
  database: Database,
  limits: Partial<MediaLimits> = {},
): Promise<TestMedia> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-media-'))
  const clock = new AheadClock()
  const disk = new DiskFileStore({ folder: join(folder, 'files'), mayCreateFolder: true, clock })
  await disk.identity.claim('a test')
  const store = new WatchedFileStore(disk)
  let nodes = 0
  const made: Media[] = []
  const another = (): Media => {
    nodes += 1
    const media = createMedia({
      database,
      fileStore: store,
      dataDir: join(folder, `node${nodes}`),
      clock,
      logger: silentLogger,
      limits,
    })
    made.push(media)
    return media
  }
  return {
    media: another(),
    store,
    clock,
    another,
    files: async () => {
      const entries = await readdir(folder, { recursive: true, withFileTypes: true })
      return entries
        .filter((entry) => entry.isFile() && entry.name !== 'stoa-files')
        .map((entry) => entry.name)
        .sort()
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(made.map((media) => media.stop()))
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The bytes as a stream of small chunks. */
export function from(data: Buffer | string, chunkBytes = 1_000): Readable {
  const bytes = Buffer.from(data as string)
  return Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += chunkBytes)
        yield bytes.subarray(at, at + chunkBytes)
    })(),
  )
}

/** A rendition as a reader gets it who sends this `Accept`. */
export async function renditionOf(
  media: Media,
  database: Database,
  wanted: { readonly id: string; readonly options: RenditionOptions; readonly caller?: string },
  accept = '',
): Promise<Delivery> {
  const { id, options, caller = 'a reader' } = wanted
  return media.rendition(await media.find(database, id), options, { accept, caller })
}

export function digest(data: Buffer | string, algorithm = 'sha256'): string {
  return createHash(algorithm).update(data).digest('hex')
}
