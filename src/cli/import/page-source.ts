import { createReadStream } from 'node:fs'
import { opendir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createGunzip } from 'node:zlib'
import { ImportSourceError } from '#cli/import/errors.ts'
import { readTar } from '#cli/import/untar.ts'

/** A page is read whole into memory; longer files are refused with a reason. */
const pageBytesMax = 16 * 1_024 * 1_024
/** Folders are walked no deeper: a loop of mounts ends here. */
const depthMax = 64

const pageName = /\.(?:md|mdx|markdown)$/i

export type SourceFile = {
  /** With `/`, relative to the folder or inside the archive. */
  readonly path: string
  readonly read: () => Promise<{ readonly ok: true; readonly text: string } | { readonly ok: false; readonly reason: string }>
}

/** Where pages come from. `files` can be gone through several times, always in the same order; hidden files are left out. */
export type PageSource = {
  readonly name: string
  files(): AsyncIterable<SourceFile>
}

/** A folder, or a `.tar`, `.tar.gz` or `.tgz` file. Throws `ImportSourceError` where there is neither. */
export async function openPageSource(path: string): Promise<PageSource> {
  const info = await stat(path).catch((cause: unknown) => {
    throw new ImportSourceError(`${path} cannot be read; give a folder of Markdown files or a .tar.gz of one.`, { path }, { cause })
  })
  if (info.isDirectory()) return { name: path, files: () => walk(path, '', 0) }
  if (!/\.(?:tar|tar\.gz|tgz)$/i.test(path)) throw new ImportSourceError(`${path} is neither a folder nor a .tar, .tar.gz or .tgz file.`, { path })
  return { name: path, files: () => archived(path) }
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

async function* archived(path: string): AsyncGenerator<SourceFile> {
  try {
    for await (const entry of readTar(openTarStream(path))) {
      const segments = entry.path.split('/').filter((segment) => segment !== '' && segment !== '.')
      if (!pageName.test(entry.path) || segments.some((segment) => segment.startsWith('.') || segment === '__MACOSX')) continue
      const read: SourceFile['read'] = async () => {
        if (entry.bytes > pageBytesMax) return tooLong(entry.bytes)
        const parts: Buffer[] = []
        for await (const part of entry.content) parts.push(part)
        return decode(Buffer.concat(parts))
      }
      yield { path: segments.join('/'), read }
    }
  } catch (error) {
    if (error instanceof ImportSourceError) throw error
    throw new ImportSourceError(`${path} cannot be unpacked: ${error instanceof Error ? error.message : String(error)}.`, { path }, { cause: error })
  }
}

async function* walk(root: string, below: string, depth: number): AsyncGenerator<SourceFile> {
  if (depth > depthMax) return
  const names: { name: string; isFolder: boolean }[] = []
  for await (const item of await opendir(join(root, below))) {
    if (item.name.startsWith('.') || item.name === 'node_modules') continue
    if (item.isDirectory() || (item.isFile() && pageName.test(item.name))) names.push({ name: item.name, isFolder: item.isDirectory() })
  }
  names.sort((left, right) => (left.name < right.name ? -1 : 1))
  for (const { name, isFolder } of names) {
    const path = below === '' ? name : `${below}/${name}`
    if (isFolder) yield* walk(root, path, depth + 1)
    else yield { path, read: () => readPage(join(root, path)) }
  }
}

async function readPage(path: string): ReturnType<SourceFile['read']> {
  try {
    const { size } = await stat(path)
    return size > pageBytesMax ? tooLong(size) : decode(await readFile(path))
  } catch (error) {
    return { ok: false, reason: `The file cannot be read: ${error instanceof Error ? error.message : String(error)}` }
  }
}

function tooLong(bytes: number): { ok: false; reason: string } {
  return { ok: false, reason: `The file has ${bytes} bytes; a page has at most ${pageBytesMax}.` }
}

function decode(bytes: Buffer): { ok: true; text: string } | { ok: false; reason: string } {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return text.includes('\0') ? { ok: false, reason: 'The file has U+0000 in it; it is no text.' } : { ok: true, text }
  } catch {
    // The decoder says only that it is wrong, not where.
    return { ok: false, reason: 'The file is not UTF-8.' }
  }
}
