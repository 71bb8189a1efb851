import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, opendir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { FileStore } from '#file-store/file-store.ts'

/**
 * Copies of blobs as files, for libvips: it reads a file piece by piece, where it would hold a
 * stream whole in memory. The store may be far away, so a blob has no path of its own.
 */
export class Spool {
  readonly #folder: string
  readonly #store: FileStore

  constructor(folder: string, store: FileStore) {
    this.#folder = folder
    this.#store = store
  }

  async with<T>(blob: string, work: (path: string) => Promise<T>): Promise<T> {
    await mkdir(this.#folder, { recursive: true })
    const path = join(this.#folder, `${randomBytes(12).toString('hex')}.spool`)
    try {
      await pipeline(
        await this.#store.get(blob),
        createWriteStream(path, { flags: 'wx', mode: 0o600 }),
      )
      return await work(path)
    } finally {
      await rm(path, { force: true })
    }
  }

  /** Removes what a process left that died at work. */
  async sweep(writtenBeforeMs: number): Promise<void> {
    await mkdir(this.#folder, { recursive: true })
    for await (const entry of await opendir(this.#folder)) {
      const path = join(this.#folder, entry.name)
      if (!entry.name.endsWith('.spool')) continue
      const found = await stat(path).catch(() => null)
      if (found !== null && found.mtimeMs < writtenBeforeMs) await rm(path, { force: true })
    }
  }
}
