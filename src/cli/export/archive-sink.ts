import { createWriteStream } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import type { Writable } from 'node:stream'
import { createGzip } from 'node:zlib'
import { ExportTargetError } from '#cli/export/errors.ts'
import { tarEnd, tarHeader, tarPadding } from '#cli/export/tar.ts'

/** The file that every export begins with, and by which a folder is known as one. */
export const manifestName = 'stoa-export.json'
/** The name of that file until the export is complete: a part is never taken for the whole. */
export const unfinishedName = `${manifestName}.partial`
/** Folders that an export writes; anything else in its folder stays. */
const folders = ['assets', 'blobs', 'entries', 'releases', 'roles', 'types']

/** An export holds drafts and roles: it is for its owner alone. */
const fileMode = 0o600
const folderMode = 0o700

/** Takes the files of an export. Paths come in the order of the format, each once. */
export interface ArchiveSink extends AsyncDisposable {
  text(path: string, text: string): Promise<void>
  /** `open` is called only if the bytes are not there yet. */
  bytes(path: string, length: number, open: () => Promise<Readable>): Promise<void>
  /** Makes what was written valid. Without it there is no export at its place. */
  finish(): Promise<void>
}

/**
 * A folder, or a file for `.tar`, `.tar.gz` and `.tgz`. Throws `ExportTargetError` where something
 * else is in the way.
 */
export async function openArchiveSink(target: string): Promise<ArchiveSink> {
  if (/\.(?:tar|tar\.gz|tgz)$/i.test(target)) return TarSink.open(target)
  return FolderSink.open(target)
}

class TarSink implements ArchiveSink {
  readonly #target: string
  readonly #partial: string
  readonly #head: Writable
  readonly #written: Promise<void>
  #failure: Error | null = null
  #done = false
  /** Resumes the write that waits; there is one at a time. */
  #goOn: () => void = () => undefined

  private constructor(target: string) {
    this.#target = target
    this.#partial = `${target}.partial`
    const file = createWriteStream(this.#partial, { mode: fileMode })
    if (/z$/i.test(target)) {
      const gzip = createGzip({ level: 6 })
      this.#head = gzip
      this.#written = pipeline(gzip, file)
    } else {
      this.#head = file
      this.#written = finished(file)
    }
    this.#written.catch((error: unknown) => {
      this.#failure = error instanceof Error ? error : new Error(String(error))
      this.#goOn()
    })
    this.#head.on('drain', () => this.#goOn())
  }

  static async open(target: string): Promise<TarSink> {
    const info = await stat(dirname(target)).catch(() => null)
    if (info?.isDirectory() !== true)
      throw new ExportTargetError(
        `There is no folder ${dirname(target)} to write the archive into.`,
        { target },
      )
    return new TarSink(target)
  }

  async text(path: string, text: string): Promise<void> {
    const bytes = Buffer.from(text, 'utf8')
    await this.#write(
      Buffer.concat([tarHeader(path, bytes.length), bytes, tarPadding(bytes.length)]),
    )
  }

  async bytes(path: string, length: number, open: () => Promise<Readable>): Promise<void> {
    await this.#write(tarHeader(path, length))
    let written = 0
    for await (const chunk of await open()) {
      written += (chunk as Buffer).length
      await this.#write(chunk as Buffer)
    }
    if (written !== length)
      throw new ExportTargetError(`The bytes of ${path} changed while they were read.`, { path })
    await this.#write(tarPadding(length))
  }

  async #write(bytes: Buffer): Promise<void> {
    if (this.#failure !== null) throw this.#failure
    if (bytes.length === 0 || this.#head.write(bytes)) return
    await new Promise<void>((resolve) => (this.#goOn = resolve))
    if (this.#failure !== null) throw this.#failure
  }

  async finish(): Promise<void> {
    this.#head.end(tarEnd)
    await this.#written
    await sync(this.#partial)
    await rename(this.#partial, this.#target)
    this.#done = true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#done) return
    this.#head.destroy()
    await this.#written.catch(() => undefined)
    await rm(this.#partial, { force: true })
  }
}

/** Writes beside what is there, and deletes at the end what only an earlier export had. */
class FolderSink implements ArchiveSink {
  readonly #folder: string
  readonly #written = new Set<string>()
  readonly #made = new Set<string>()

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async open(folder: string): Promise<FolderSink> {
    const names = await readdir(folder).catch((error: unknown): string[] => {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
      throw new ExportTargetError(
        `${folder} cannot be used as a folder for an export.`,
        { folder },
        { cause: error },
      )
    })
    if (
      names.some((name) => folders.includes(name) || name.endsWith('.json')) &&
      !names.includes(manifestName) &&
      !names.includes(unfinishedName)
    ) {
      throw new ExportTargetError(
        `${folder} has files that are no export; choose an empty folder.`,
        { folder },
      )
    }
    await mkdir(folder, { recursive: true, mode: folderMode })
    return new FolderSink(folder)
  }

  async text(path: string, text: string): Promise<void> {
    if (path === manifestName) return this.#begin(text)
    const place = await this.#place(path)
    if ((await readFile(place, 'utf8').catch(() => null)) === text) return
    await this.#replace(place, Readable.from([Buffer.from(text, 'utf8')]))
  }

  async #begin(manifest: string): Promise<void> {
    await rename(join(this.#folder, manifestName), join(this.#folder, unfinishedName)).catch(
      (error: unknown) => {
        if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
      },
    )
    await writeFile(join(this.#folder, unfinishedName), manifest, { mode: fileMode })
  }

  async bytes(path: string, length: number, open: () => Promise<Readable>): Promise<void> {
    const place = await this.#place(path)
    // Bytes are named by their hash: the same name and length are the same bytes.
    if ((await stat(place).catch(() => null))?.size !== length)
      await this.#replace(place, await open())
  }

  async #place(path: string): Promise<string> {
    this.#written.add(path)
    const place = join(this.#folder, path)
    const folder = dirname(place)
    if (!this.#made.has(folder)) await mkdir(folder, { recursive: true, mode: folderMode })
    this.#made.add(folder)
    return place
  }

  async #replace(place: string, source: Readable): Promise<void> {
    await pipeline(source, createWriteStream(`${place}.partial`, { mode: fileMode }))
    await rename(`${place}.partial`, place)
  }

  async finish(): Promise<void> {
    for (const name of folders) await this.#sweep(name)
    await rename(join(this.#folder, unfinishedName), join(this.#folder, manifestName))
  }

  async #sweep(path: string): Promise<void> {
    const items = await readdir(join(this.#folder, path), { withFileTypes: true }).catch(() => [])
    for (const item of items) {
      const below = `${path}/${item.name}`
      if (item.isDirectory()) await this.#sweep(below)
      else if (!this.#written.has(below)) await rm(join(this.#folder, below), { force: true })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // An interrupted export leaves whole files and says that it is no export; the next one
    // completes it.
  }
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}
