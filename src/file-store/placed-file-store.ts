import type { Readable } from 'node:stream'
import { BlobNotFoundError, FileStoreUnavailableError } from '#file-store/errors.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'
import type {
  BlobId,
  BlobInfo,
  FileStore,
  FileStoreIdentity,
  PutOptions,
} from '#file-store/file-store.ts'

/** Where the files are, as the database has it. */
export type Placement = {
  /** Grows whenever the rest changes. */
  readonly revision: number
  readonly home: Place
  /** While a move is under way: where it leads. */
  readonly target: Place | null
}

type Place = {
  readonly identity: string
  /** Opens the place; null: it is the one that is configured. */
  readonly open: (() => Promise<FileStore>) | null
}

type Opened = {
  readonly revision: number
  readonly identity: string | null
  readonly home: FileStore
  readonly target: FileStore | null
}

/** After a failure the placement is read again at most so often. */
const readGapMs = 1_000
/** A reader waits for that no longer than this. */
const readTimeoutMs = 2_000

/** Copies one blob, and sees that its bytes have its hash. */
export async function copyBlob(from: FileStore, to: FileStore, id: BlobId): Promise<BlobInfo> {
  const { bytes } = await from.info(id)
  return to.put(await from.get(id), { bytesMax: bytes, expected: id })
}

/**
 * The file store of a site, wherever it is, also while it moves. Modes: `at home`, where everything
 * is in one store; `moving`, from the revision at which a move begins to the one at which it ends.
 * While it moves, new blobs go to the target, and reads look into both.
 *
 * A node may learn of a new revision late. Two rules make that harmless. A transaction that names a
 * blob reads the revision under a lock that the beginning and the end of a move hold alone, passes
 * it to `reach`, and then asks for the blob by `info`: that finds only what is where new files go,
 * and copies what is in the place before. And a read that fails by an old revision reads
 * the placement anew, and then tries once more.
 */
export class PlacedFileStore implements FileStore {
  readonly #configured: FileStore
  readonly #read: () => Promise<Placement | null>
  /** The stores that were opened, by identity. */
  readonly #stores = new Map<string, Promise<FileStore>>()
  #opened: Opened
  /** The home before a move that ended in this process: puts of before it may be named now. */
  #former: FileStore | null = null
  #reading: Promise<void> | null = null
  #readAtMs = Number.NEGATIVE_INFINITY

  constructor(configured: FileStore, read: () => Promise<Placement | null>) {
    this.#configured = configured
    this.#read = read
    this.#opened = { revision: 0, identity: null, home: configured, target: null }
  }

  /** The identity of the place that is configured. */
  get identity(): FileStoreIdentity {
    return this.#configured.identity
  }

  /** The place of the files, and the one to which a move leads that is under way. */
  get stores(): { readonly home: FileStore; readonly target: FileStore | null } {
    return this.#opened
  }

  /** The identity of the place of the files; null: no node has ever run. */
  get homeIdentity(): string | null {
    return this.#opened.identity
  }

  /** The revision that this process acts by. */
  get revision(): number {
    return this.#opened.revision
  }

  /** Reads where the files are. Errors: `FileStoreUnavailableError`, and the database's. */
  async refresh(): Promise<void> {
    this.#reading ??= this.#readPlacement().finally(() => (this.#reading = null))
    return this.#reading
  }

  async reach(revision: number): Promise<void> {
    // A read that is under way may be older than the revision that the caller has seen.
    if (this.#opened.revision < revision && this.#reading !== null) await this.#reading
    if (this.#opened.revision < revision) await this.refresh()
  }

  async put(source: Readable, options: PutOptions): Promise<BlobInfo> {
    const { home, target } = this.#opened
    return (target ?? home).put(source, options)
  }

  async get(
    id: BlobId,
    range?: { readonly start: number; readonly end: number },
  ): Promise<Readable> {
    const before = this.#opened
    try {
      return await getFrom(before, id, range)
    } catch (error) {
      if (!isAbsence(error) || !(await this.#hasMoved(before))) throw error
      return getFrom(this.#opened, id, range)
    }
  }

  async info(id: BlobId): Promise<BlobInfo> {
    const { home, target } = this.#opened
    const [place, before] = target === null ? [home, this.#former] : [target, home]
    try {
      return await place.info(id)
    } catch (error) {
      if (before === null || !(error instanceof BlobNotFoundError)) throw error
      return copyBlob(before, place, id)
    }
  }

  async delete(id: BlobId, options?: { readonly writtenBeforeMs: number }): Promise<boolean> {
    const { home, target } = this.#opened
    const inTarget = target !== null && (await target.delete(id, options))
    return (await home.delete(id, options)) || inTarget
  }

  /** While a move is under way, a blob that is in both stores comes twice. */
  async *list(): AsyncIterable<BlobInfo & { readonly writtenAtMs: number }> {
    const { home, target } = this.#opened
    yield* home.list()
    if (target !== null) yield* target.list()
  }

  async prune(options: {
    readonly writtenBeforeMs: number
    readonly dryRun: boolean
  }): Promise<number> {
    const { home, target } = this.#opened
    return (await home.prune(options)) + ((await target?.prune(options)) ?? 0)
  }

  async check(signal: AbortSignal): Promise<void> {
    const { home, target } = this.#opened
    await home.check(signal)
    await target?.check(signal)
  }

  async close(): Promise<void> {
    const opened = await Promise.allSettled(this.#stores.values())
    for (const store of opened) if (store.status === 'fulfilled') await store.value.close()
    await this.#configured.close()
  }

  async #hasMoved(before: Opened): Promise<boolean> {
    const nowMs = performance.now()
    if (nowMs - this.#readAtMs >= readGapMs) {
      this.#readAtMs = nowMs
      if ((await withTimeout(this.refresh(), readTimeoutMs)) === timedOut) throw notKnown()
    }
    return this.#opened !== before
  }

  async #readPlacement(): Promise<void> {
    const placement = await this.#read()
    if (placement === null || placement.revision <= this.#opened.revision) return
    const home = await this.#open(placement.home)
    const target = placement.target === null ? null : await this.#open(placement.target)
    if (home !== this.#opened.home) this.#former = this.#opened.home
    const { revision } = placement
    this.#opened = { revision, identity: placement.home.identity, home, target }
  }

  async #open({ identity, open }: Place): Promise<FileStore> {
    if (open === null) return this.#configured
    let opening = this.#stores.get(identity)
    if (opening === undefined) {
      opening = open()
      opening.catch(() => this.#stores.delete(identity))
      this.#stores.set(identity, opening)
    }
    return opening
  }
}

function notKnown(): FileStoreUnavailableError {
  return new FileStoreUnavailableError(
    'The file is not where it was, and the database does not say in time where it is; try again.',
  )
}

async function getFrom(
  { home, target }: Opened,
  id: BlobId,
  range: { readonly start: number; readonly end: number } | undefined,
): Promise<Readable> {
  try {
    return await home.get(id, range)
  } catch (error) {
    if (target === null || !isAbsence(error)) throw error
    return target.get(id, range)
  }
}

function isAbsence(error: unknown): boolean {
  return error instanceof BlobNotFoundError || error instanceof FileStoreUnavailableError
}
