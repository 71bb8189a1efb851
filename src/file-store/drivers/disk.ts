import { createHash, randomBytes } from 'node:crypto'
import {
  link,
  mkdir,
  open,
  opendir,
  readFile,
  rename,
  stat,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { addAbortSignal } from 'node:stream'
import type { Readable } from 'node:stream'
import type { Clock } from '#lib/clock.ts'
import {
  BlobDamagedError,
  BlobNotFoundError,
  BlobTooLargeError,
  FileStoreUnavailableError,
} from '#file-store/errors.ts'
import type {
  BlobId,
  BlobInfo,
  FileStore,
  FileStoreIdentity,
  PutOptions,
} from '#file-store/file-store.ts'

/**
 * A put and a delete of equal bytes may cross; each retry means that the other side moved, so few
 * are ever needed.
 */
const publishAttemptsMax = 20

/** The bytes that a reader holds at once. */
const readChunkBytes = 128 * 1024

const idPattern = /^[0-9a-f]{64}$/
const marker = 'stoa-files'
const partSuffix = '.part'
const trashSuffix = '.trash'
/** Uploads may be private, so other users of the machine cannot read them. */
const fileMode = 0o600
const folderMode = 0o700

export type DiskFileStoreOptions = {
  readonly folder: string
  /** `claim` makes the folder. A folder that a setting names has to be there already. */
  readonly mayCreateFolder: boolean
  readonly clock: Clock
}

/**
 * Blobs in a folder of this machine, or of a file server that several nodes mount at the same path.
 *
 *     FOLDER/stoa-files         the identity of the store; without it, nothing is mounted here
 *     FOLDER/ab/cd/abcd…        a blob, under the first four digits of its id
 *     FOLDER/tmp/RANDOM.part    a put under way
 *     FOLDER/tmp/abcd….MS.RANDOM.trash   a delete under way since MS
 *
 * A put writes and syncs a part file, then links it to its final name: atomic on local file systems
 * and on NFS, where a lost reply shows as "exists" and is right all the same. A blob is never
 * replaced, because a reader on another NFS client would get ESTALE. A delete with
 * `writtenBeforeMs` moves the blob aside, looks at its time once more, and puts it back when a put
 * has touched it meanwhile; a put that comes later finds the name free. So neither can lose bytes.
 */
export class DiskFileStore implements FileStore {
  readonly #folder: string
  readonly #mayCreateFolder: boolean
  readonly #clock: Clock
  /** The identity at first sight: another file system mounted here later is not this store. */
  #seen: string | null = null

  readonly identity: FileStoreIdentity

  constructor(options: DiskFileStoreOptions) {
    this.#folder = options.folder
    this.#mayCreateFolder = options.mayCreateFolder
    this.#clock = options.clock
    this.identity = {
      place: options.folder,
      where: join(options.folder, marker),
      read: () => this.#readIdentity(),
      claim: (identity) => this.#claim(identity),
    }
  }

  async put(source: Readable, options: PutOptions): Promise<BlobInfo> {
    // The source may fail before it is read. Reading shows that; an error without a listener would
    // end the process.
    source.on('error', () => undefined)
    try {
      options.signal?.throwIfAborted()
      await this.#ready()
    } catch (error) {
      source.destroy()
      throw error
    }
    if (options.signal !== undefined) addAbortSignal(options.signal, source)
    const part = join(this.#folder, 'tmp', `${randomBytes(16).toString('hex')}${partSuffix}`)
    try {
      const blob = await this.#write(part, source, options.bytesMax)
      if (options.expected !== undefined && options.expected !== blob.id)
        throw new BlobDamagedError(options.expected, blob.id)
      await this.#publish(part, blob)
      return blob
    } finally {
      source.destroy()
      await remove(part)
    }
  }

  async get(
    id: BlobId,
    range?: { readonly start: number; readonly end: number },
  ): Promise<Readable> {
    const file = await this.#open(id)
    try {
      const { size } = await file.stat()
      const start = range?.start ?? 0
      const end = range?.end ?? size - 1
      if (range !== undefined && !(start >= 0 && start <= end && end < size)) {
        throw new RangeError(
          `Bytes ${start} to ${end} of a blob of ${size}: the caller checks ranges.`,
        )
      }
      return file.createReadStream(size === 0 ? {} : { start, end, highWaterMark: readChunkBytes })
    } catch (error) {
      await file.close()
      throw translate(error)
    }
  }

  async info(id: BlobId): Promise<BlobInfo> {
    const found = idPattern.test(id) ? await statIfThere(this.#place(id)) : null
    if (found === null) throw await this.#missing(id)
    return { id, bytes: found.size }
  }

  async delete(id: BlobId, options?: { readonly writtenBeforeMs: number }): Promise<boolean> {
    if (!idPattern.test(id)) return false
    await this.#ready()
    const place = this.#place(id)
    try {
      if (options === undefined) return await remove(place)
      const found = await statIfThere(place)
      if (found === null || found.mtimeMs >= options.writtenBeforeMs) return false
      const trash = join(
        this.#folder,
        'tmp',
        `${id}.${this.#clock.nowMs()}.${randomBytes(8).toString('hex')}${trashSuffix}`,
      )
      await rename(place, trash)
      const aside = await statIfThere(trash)
      if (aside !== null && aside.mtimeMs >= options.writtenBeforeMs) {
        await this.#putBack(trash, id)
        return false
      }
      return await remove(trash)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return false
      throw translate(error)
    }
  }

  async *list(): AsyncIterable<BlobInfo & { readonly writtenAtMs: number }> {
    await this.#ready()
    for await (const outer of names(this.#folder, /^[0-9a-f]{2}$/)) {
      for await (const inner of names(join(this.#folder, outer), /^[0-9a-f]{2}$/)) {
        for await (const id of names(join(this.#folder, outer, inner), idPattern)) {
          const found = await statIfThere(this.#place(id))
          if (found !== null) yield { id, bytes: found.size, writtenAtMs: found.mtimeMs }
        }
      }
    }
  }

  async prune(options: {
    readonly writtenBeforeMs: number
    readonly dryRun: boolean
  }): Promise<number> {
    await this.#ready()
    let count = 0
    for await (const name of names(join(this.#folder, 'tmp'), /\.(part|trash)$/)) {
      const path = join(this.#folder, 'tmp', name)
      if (name.endsWith(trashSuffix)) {
        // The delete died before it looked at the blob once more, so the blob may be in use: it is
        // put back.
        const movedAtMs = Number(name.split('.')[1])
        if (movedAtMs < options.writtenBeforeMs && !options.dryRun)
          await this.#putBack(path, name.slice(0, 64))
        continue
      }
      const found = await statIfThere(path)
      if (found === null || found.mtimeMs >= options.writtenBeforeMs) continue
      if (options.dryRun || (await remove(path))) count += 1
    }
    return count
  }

  async check(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    await this.#ready()
    const path = join(this.#folder, 'tmp', `check-${randomBytes(8).toString('hex')}${partSuffix}`)
    try {
      const file = await open(path, 'wx+', fileMode)
      try {
        await file.write('stoa', 0)
        signal.throwIfAborted()
        const { bytesRead } = await file.read(Buffer.alloc(8), 0, 8, 0)
        if (bytesRead !== 4)
          throw new FileStoreUnavailableError(
            'The files folder does not return what was written to it.',
          )
      } finally {
        await file.close()
      }
    } catch (error) {
      throw translate(error)
    } finally {
      await remove(path)
    }
  }

  /** Files are opened and closed one by one. */
  async close(): Promise<void> {}

  #place(id: BlobId): string {
    return join(this.#folder, id.slice(0, 2), id.slice(2, 4), id)
  }

  async #open(id: BlobId): Promise<FileHandle> {
    if (!idPattern.test(id)) throw await this.#missing(id)
    try {
      return await open(this.#place(id), 'r')
    } catch (error) {
      throw codeOf(error) === 'ENOENT' ? await this.#missing(id) : translate(error)
    }
  }

  /** The error for a blob that is not there: nothing is missing from a folder without a mount. */
  async #missing(id: BlobId): Promise<Error> {
    await this.#ready()
    return new BlobNotFoundError(id)
  }

  /** Throws unless the folder is the store that it was at first sight. */
  async #ready(): Promise<void> {
    const found = await this.#readIdentity()
    if (found !== null && found === (this.#seen ?? found)) {
      this.#seen = found
      return
    }
    throw new FileStoreUnavailableError(
      found === null
        ? 'The files folder is not a file store; mount its file system.'
        : 'The files folder is another file store than before; mount the right file system.',
      { folder: this.#folder },
    )
  }

  async #readIdentity(): Promise<string | null> {
    try {
      return (await readFile(join(this.#folder, marker), 'utf8')).trim() || null
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw translate(error)
    }
    if (this.#mayCreateFolder || (await statIfThere(this.#folder)) !== null) return null
    throw new FileStoreUnavailableError(
      `The files folder ${this.#folder} does not exist; make it, or mount its file system.`,
      { folder: this.#folder },
    )
  }

  async #claim(identity: string): Promise<string> {
    const found = await this.#readIdentity()
    if (found !== null) return found
    const part = join(this.#folder, 'tmp', `${randomBytes(16).toString('hex')}${partSuffix}`)
    return translated(async () => {
      if (this.#mayCreateFolder) await mkdir(this.#folder, { recursive: true, mode: folderMode })
      await mkdir(join(this.#folder, 'tmp'), { recursive: true, mode: folderMode })
      await writeFile(part, `${identity}\n`, { flag: 'wx', mode: fileMode })
      await linkOrRename(part, join(this.#folder, marker))
      await remove(part)
      await sync(this.#folder, 'r')
      return (await this.#readIdentity()) ?? identity
    })
  }

  /**
   * Writes the part file. Errors of `source` pass as they are, the file system's are translated.
   */
  async #write(part: string, source: Readable, bytesMax: number): Promise<BlobInfo> {
    const hash = createHash('sha256')
    let bytes = 0
    const file = await open(part, 'wx', fileMode).catch((error: unknown) => {
      throw translate(error)
    })
    try {
      for await (const chunk of source) {
        const data = typeof chunk === 'string' ? Buffer.from(chunk) : (chunk as Buffer)
        bytes += data.length
        if (bytes > bytesMax) throw new BlobTooLargeError(bytesMax)
        hash.update(data)
        await writeWhole(file, data)
      }
      const now = this.#clock.nowMs() / 1_000
      await translated(() => file.utimes(now, now))
    } finally {
      await file.close()
    }
    return { id: hash.digest('hex'), bytes }
  }

  /** Syncs the part file and gives it its final name, or refreshes the blob that has it already. */
  async #publish(part: string, blob: BlobInfo): Promise<void> {
    const place = this.#place(blob.id)
    let synced = false
    await translated(async () => {
      for (let attempt = 0; attempt < publishAttemptsMax; attempt += 1) {
        const now = this.#clock.nowMs() / 1_000
        const there = await statIfThere(place)
        if (there !== null && there.size === blob.bytes) {
          try {
            await utimes(place, now, now)
            return
          } catch (error) {
            if (codeOf(error) !== 'ENOENT') throw error
            continue
          }
        }
        const folder = join(this.#folder, blob.id.slice(0, 2), blob.id.slice(2, 4))
        await mkdir(folder, { recursive: true, mode: folderMode })
        if (!synced) await sync(part, 'r+')
        synced = true
        // A blob of another length than its id says was damaged from outside; these bytes heal it.
        if (there !== null) await rename(part, place)
        else if (!(await linkOrRename(part, place))) continue
        await sync(folder, 'r')
        return
      }
      throw new FileStoreUnavailableError(
        'A blob is deleted and stored over and over; try again.',
        { blob: blob.id },
      )
    })
  }

  async #putBack(trash: string, id: BlobId): Promise<void> {
    await mkdir(join(this.#folder, id.slice(0, 2), id.slice(2, 4)), {
      recursive: true,
      mode: folderMode,
    })
    try {
      await linkOrRename(trash, this.#place(id))
    } catch (error) {
      // Another node swept at the same moment and was first.
      if (codeOf(error) !== 'ENOENT') throw translate(error)
    }
    await remove(trash)
  }
}

function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' ? code : undefined
}

function translate(error: unknown): unknown {
  const code = codeOf(error)
  if (code === undefined || !/^E[A-Z0-9]+$/.test(code)) return error
  const full = code === 'ENOSPC' || code === 'EDQUOT'
  const message = full
    ? 'The files folder is full; make room.'
    : `The files folder cannot be used (${code}); see that it is mounted and ours to write.`
  return new FileStoreUnavailableError(message, { reason: code }, { cause: error })
}

async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw translate(error)
  }
}

async function writeWhole(file: FileHandle, data: Buffer): Promise<void> {
  await translated(async () => {
    let offset = 0
    while (offset < data.length) offset += (await file.write(data, offset)).bytesWritten
  })
}

/**
 * Atomic, and never replaces; false when the name is taken. File systems without hard links rename,
 * equal bytes over equal bytes.
 */
async function linkOrRename(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    const code = codeOf(error)
    if (code === 'EEXIST') return false
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'ENOSYS' && code !== 'EMLINK')
      throw error
    await rename(from, to)
    return true
  }
}

/** Makes a file's bytes, or a folder's new names, outlive a power cut. */
async function sync(path: string, flags: 'r' | 'r+'): Promise<void> {
  const handle = await open(path, flags)
  try {
    await handle.sync()
  } catch (error) {
    // Some file servers refuse to sync a folder; they promise the name by themselves.
    if (flags === 'r+' || (codeOf(error) !== 'EINVAL' && codeOf(error) !== 'ENOTSUP')) throw error
  } finally {
    await handle.close()
  }
}

async function remove(path: string): Promise<boolean> {
  try {
    await unlink(path)
    return true
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false
    throw translate(error)
  }
}

async function statIfThere(path: string): Promise<{ size: number; mtimeMs: number } | null> {
  try {
    const { size, mtimeMs } = await stat(path)
    return { size, mtimeMs: Math.round(mtimeMs) }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw translate(error)
  }
}

async function* names(folder: string, pattern: RegExp): AsyncIterable<string> {
  try {
    for await (const entry of await opendir(folder)) if (pattern.test(entry.name)) yield entry.name
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw translate(error)
  }
}
