import { createReadStream } from 'node:fs'
import { mkdtemp, open, opendir, readFile, rm, stat } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createGunzip } from 'node:zlib'
import { ImportSourceError } from '#cli/import/errors.ts'
import { readTar } from '#cli/import/untar.ts'

/** A page is read whole into memory; longer files are refused with a reason. */
const pageBytesMax = 16 * 1_024 * 1_024
/** Paths are kept in memory, some 300 bytes for each. */
const filesMax = 1_000_000
/**
 * So much of an unpacked archive stays in memory: asking the disk for each small page would take
 * longer than parsing it.
 */
const memoryBytesMax = 32 * 1_024 * 1_024
/**
 * What the pages of one archive may take on the disk: a small archive can unpack to more than the
 * disk holds.
 */
const spoolBytesMax = 16 * 1_024 * 1_024 * 1_024
/** Folders are walked no deeper: a loop of mounts ends here. */
const depthMax = 64

/** Symbolic links that are listed. */
const linksMax = 10_000
/** Endings of other files that are counted apart. */
const endingsMax = 50

const pageName = /\.(?:md|mdx|markdown)$/i

export type SourceFile = {
  /** With `/`, relative to the folder or inside the archive. */
  readonly path: string
  /** In any order and as often as wanted. */
  readonly read: () => Promise<
    { readonly ok: true; readonly text: string } | { readonly ok: false; readonly reason: string }
  >
}

/**
 * Where pages come from: their paths, in order, and a way to each page's text. Hidden files are
 * left out.
 */
export type PageSource = AsyncDisposable & {
  readonly name: string
  readonly isArchive: boolean
  readonly files: readonly SourceFile[]
  readonly passedOver: PassedOver
}

/** Files of the source that are no pages. */
export class PassedOver {
  /** Symbolic links, which are not followed: they can lead to any file of this machine. */
  readonly links: string[] = []
  /** Other files by the ending of their names. */
  readonly others = new Map<string, number>()

  other(path: string): void {
    const ending = /\.[A-Za-z0-9]{1,10}$/.exec(path)?.[0].toLowerCase() ?? 'without an ending'
    const known = this.others.has(ending) || this.others.size < endingsMax
    const key = known ? ending : 'others'
    this.others.set(key, (this.others.get(key) ?? 0) + 1)
  }

  link(path: string): void {
    if (this.links.length < linksMax) this.links.push(path)
  }
}

/**
 * Opens a folder, or a `.tar`, `.tar.gz` or `.tgz` file. Throws `ImportSourceError` where there is
 * neither, and where there are more than `filesMax` pages. Null when `signal` aborts.
 */
export async function openPageSource(
  path: string,
  signal: AbortSignal,
): Promise<PageSource | null> {
  const info = await stat(path).catch((cause: unknown) => {
    throw new ImportSourceError(
      `${path} cannot be read; give a folder of Markdown files or a .tar.gz of one.`,
      { path },
      { cause },
    )
  })
  if (!info.isDirectory() && !/\.(?:tar|tar\.gz|tgz)$/i.test(path))
    throw new ImportSourceError(`${path} is neither a folder nor a .tar, .tar.gz or .tgz file.`, {
      path,
    })
  const spool = info.isDirectory() ? null : await Spool.open()
  const files: SourceFile[] = []
  const passedOver = new PassedOver()
  try {
    const pages = spool === null ? walk(path, '', passedOver) : archived(path, spool, passedOver)
    for await (const file of pages) {
      if (signal.aborted) {
        await spool?.close()
        return null
      }
      if (files.length >= filesMax)
        throw new ImportSourceError(
          `${path} has more than ${filesMax} pages; import it in parts.`,
          { path },
        )
      files.push(file)
    }
  } catch (error) {
    await spool?.close()
    throw error
  }
  files.sort((left, right) => (left.path < right.path ? -1 : 1))
  return {
    name: path,
    isArchive: spool !== null,
    files,
    passedOver,
    [Symbol.asyncDispose]: async () => spool?.close(),
  }
}

/**
 * The pages of an archive one after the other, the first ones in memory and the rest in a temporary
 * file, so that they can be read in any order. The file has no name any more once it is open:
 * however this process ends, nothing of it stays.
 */
class Spool {
  readonly #file: FileHandle
  #length = 0
  #inMemory = 0

  private constructor(file: FileHandle) {
    this.#file = file
  }

  static async open(): Promise<Spool> {
    const folder = await mkdtemp(join(tmpdir(), 'stoa-pages-'))
    try {
      return new Spool(await open(join(folder, 'pages'), 'w+'))
    } finally {
      await rm(folder, { recursive: true })
    }
  }

  /** Returns a way to read it again. */
  async add(content: Buffer): Promise<() => Promise<Buffer>> {
    if (this.#inMemory + content.length <= memoryBytesMax) {
      this.#inMemory += content.length
      return async () => content
    }
    const at = this.#length
    if (at + content.length > spoolBytesMax)
      throw new ImportSourceError(
        `The pages of the archive unpack to more than ${spoolBytesMax} bytes; import it in parts.`,
        { bytesMax: spoolBytesMax },
      )
    await this.#file.write(content, 0, content.length, at)
    this.#length += content.length
    return async () => {
      const bytes = Buffer.allocUnsafe(content.length)
      const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, at)
      return bytes.subarray(0, bytesRead)
    }
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

/** The bytes of a tar, unpacked where its name says that it is packed. */
export function openTarStream(path: string): AsyncIterable<Buffer> {
  const file = createReadStream(path, { highWaterMark: 256 * 1_024 })
  if (!/z$/i.test(path)) return file
  const gunzip = createGunzip({ chunkSize: 256 * 1_024 })
  file.on('error', (error) => gunzip.destroy(error))
  gunzip.on('close', () => file.destroy())
  return file.pipe(gunzip)
}

async function* archived(
  path: string,
  spool: Spool,
  passedOver: PassedOver,
): AsyncGenerator<SourceFile> {
  try {
    for await (const entry of readTar(openTarStream(path))) {
      const segments = entry.path.split('/').filter((segment) => segment !== '' && segment !== '.')
      if (segments.some((segment) => segment.startsWith('.') || segment === '__MACOSX')) continue
      if (!pageName.test(entry.path)) {
        passedOver.other(entry.path)
        continue
      }
      if (entry.bytes > pageBytesMax) {
        const reason = tooLong(entry.bytes)
        yield { path: segments.join('/'), read: async () => reason }
        continue
      }
      const parts: Buffer[] = []
      for await (const part of entry.content) parts.push(part)
      yield { path: segments.join('/'), read: readerOf(await spool.add(Buffer.concat(parts))) }
    }
  } catch (error) {
    if (error instanceof ImportSourceError) throw error
    throw new ImportSourceError(
      `${path} cannot be unpacked: ${error instanceof Error ? error.message : String(error)}.`,
      { path },
      { cause: error },
    )
  }
}

function readerOf(bytes: () => Promise<Buffer>): SourceFile['read'] {
  return async () => decode(await bytes())
}

async function* walk(
  root: string,
  below: string,
  passedOver: PassedOver,
): AsyncGenerator<SourceFile> {
  if (below.split('/').length > depthMax) return
  const names: { name: string; isFolder: boolean }[] = []
  for await (const item of await opendir(join(root, below))) {
    if (item.name.startsWith('.') || item.name === 'node_modules') continue
    const path = below === '' ? item.name : `${below}/${item.name}`
    if (item.isSymbolicLink()) passedOver.link(path)
    else if (item.isFile() && !pageName.test(item.name)) passedOver.other(path)
    else if (item.isDirectory() || item.isFile())
      names.push({ name: item.name, isFolder: item.isDirectory() })
  }
  names.sort((left, right) => (left.name < right.name ? -1 : 1))
  for (const { name, isFolder } of names) {
    const path = below === '' ? name : `${below}/${name}`
    if (isFolder) yield* walk(root, path, passedOver)
    else yield { path, read: () => readPage(join(root, path)) }
  }
}

async function readPage(path: string): ReturnType<SourceFile['read']> {
  try {
    const { size } = await stat(path)
    return size > pageBytesMax ? tooLong(size) : decode(await readFile(path))
  } catch (error) {
    return {
      ok: false,
      reason: `The file cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    }
  }
}

function tooLong(bytes: number): { ok: false; reason: string } {
  return { ok: false, reason: `The file has ${bytes} bytes; a page has at most ${pageBytesMax}.` }
}

function decode(bytes: Buffer): { ok: true; text: string } | { ok: false; reason: string } {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return text.includes('\0')
      ? { ok: false, reason: 'The file has U+0000 in it; it is no text.' }
      : { ok: true, text }
  } catch {
    // The decoder says only that it is wrong, not where.
    return { ok: false, reason: 'The file is not UTF-8.' }
  }
}

/** Files being read at a time: enough to hide what a disk takes, few enough to stay small. */
const readAheadMax = 16

/** The contents of files in their order, read a little ahead. */
export async function* readAhead<Item>(
  items: readonly Item[],
  fileOf: (item: Item) => SourceFile,
): AsyncGenerator<{
  readonly item: Item
  readonly content: Awaited<ReturnType<SourceFile['read']>>
}> {
  const reading: ReturnType<SourceFile['read']>[] = []
  for (const [index, item] of items.entries()) {
    while (reading.length < readAheadMax && index + reading.length < items.length)
      reading.push(fileOf(items[index + reading.length]!).read())
    yield { item, content: await reading.shift()! }
  }
}
