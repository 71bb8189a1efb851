import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, opendir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { FileStore } from '#file-store/file-store.ts'

export type SpooledFile = {
  /** The copy of the blob. */
  readonly path: string
  /** A name beside it for what is made of it. */
  readonly outputPath: string
}

const suffix = '.spool'

/**
 * Copies of blobs as files, for image processes: they read a file piece by piece, where they would
 * hold a stream whole in memory. The store may be far away, so a blob has no path of its own.
 */
export class Spool {
  readonly #folder: string
  readonly #store: FileStore

  constructor(folder: string, store: FileStore) {
    this.#folder = folder
    this.#store = store
  }

  /** The files exist as long as `work` runs. */
  async with<T>(blob: string, work: (file: SpooledFile) => Promise<T>): Promise<T> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    const name = join(this.#folder, randomBytes(12).toString('hex'))
    const file = { path: `${name}${suffix}`, outputPath: `${name}.out${suffix}` }
    try {
      await pipeline(
        await this.#store.get(blob),
        createWriteStream(file.path, { flags: 'wx', mode: 0o600 }),
      )
      return await work(file)
    } finally {
      await rm(file.path, { force: true })
      await rm(file.outputPath, { force: true })
    }
  }

  /** Removes files of processes that died at work. */
  async prune(writtenBeforeMs: number): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    for await (const entry of await opendir(this.#folder)) {
      const path = join(this.#folder, entry.name)
      if (!entry.name.endsWith(suffix)) continue
      const found = await stat(path).catch(() => null)
      if (found !== null && found.mtimeMs < writtenBeforeMs) await rm(path, { force: true })
    }
  }
}
