import { createReadStream } from 'node:fs'
import { lstat, opendir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { manifestName, unfinishedName } from '#cli/export/archive-sink.ts'
import { ImportSourceError } from '#cli/import/errors.ts'
import { openTarStream } from '#cli/import/page-source.ts'
import { readTar } from '#cli/import/untar.ts'

/**
 * The parts of an export in the order in which they are written and read: what others need comes
 * first.
 */
const order = [
  manifestName,
  'locales.json',
  'types/',
  'roles/',
  'blobs/',
  'assets/',
  'entries/',
  'releases/',
]
/** Bytes of an entry with its whole history. */
const textBytesMax = 256 * 1_024 * 1_024

export type ArchiveFile = {
  readonly path: string
  readonly bytes: number
  readonly text: () => Promise<string>
  /** At most once, and instead of `text`. */
  readonly stream: () => Readable
}

/**
 * An export as it lies in a folder or a tar; can be gone through several times, always in the order
 * of the format.
 */
export type ArchiveSource = { readonly name: string; files(): AsyncIterable<ArchiveFile> }

/** Returns which part of the format a path belongs to; -1: none. */
export function rankOf(path: string): number {
  return order.findIndex((part) => (part.endsWith('/') ? path.startsWith(part) : path === part))
}

export async function openArchiveSource(path: string): Promise<ArchiveSource> {
  const info = await stat(path).catch((cause: unknown) => {
    throw new ImportSourceError(
      `${path} cannot be read; give the folder or the .tar file that "stoa export" wrote.`,
      { path },
      { cause },
    )
  })
  if (!info.isDirectory()) return { name: path, files: () => archived(path) }
  const has = async (name: string): Promise<boolean> =>
    (await lstat(join(path, name)).catch(() => null)) !== null
  if (await has(unfinishedName))
    throw new ImportSourceError(
      `${path} is an export that did not end; run "stoa export" to it again.`,
      { path },
    )
  if (!(await has(manifestName)))
    throw new ImportSourceError(`${path} is no export: it has no ${manifestName}.`, { path })
  return { name: path, files: () => inFolder(path) }
}

async function* archived(path: string): AsyncGenerator<ArchiveFile> {
  let rank = 0
  for await (const { path: name, bytes, content } of readTar(openTarStream(path))) {
    const next = rankOf(name)
    if (next < 0)
      throw new ImportSourceError(`${path} is no export: it has a file ${name}.`, { path, name })
    if (next < rank)
      throw new ImportSourceError(
        `${path}: the files are not in the order of the format; pack it with "stoa export", ` +
          `or import the folder.`,
        { path, name },
      )
    rank = next
    yield {
      path: name,
      bytes,
      text: async () => whole(content, bytes, name),
      stream: () => Readable.from(content),
    }
  }
}

async function* inFolder(folder: string): AsyncGenerator<ArchiveFile> {
  for (const part of order) {
    if (part.endsWith('/')) yield* below(folder, part.slice(0, -1))
    else {
      const info = await lstat(join(folder, part)).catch(() => null)
      if (info?.isSymbolicLink() === true) throw linkError(part)
      if (info !== null) yield fileOf(folder, part, info.size)
    }
  }
}

async function* below(folder: string, path: string): AsyncGenerator<ArchiveFile> {
  const names: { name: string; isFolder: boolean }[] = []
  const listing = await opendir(join(folder, path)).catch(() => null)
  if (listing === null) return
  for await (const item of listing) {
    if (item.isSymbolicLink()) throw linkError(`${path}/${item.name}`)
    if (!item.name.endsWith('.partial'))
      names.push({ name: item.name, isFolder: item.isDirectory() })
  }
  names.sort((left, right) => (left.name < right.name ? -1 : 1))
  for (const { name, isFolder } of names) {
    const inner = `${path}/${name}`
    if (isFolder) yield* below(folder, inner)
    else yield fileOf(folder, inner, (await stat(join(folder, inner))).size)
  }
}

/** No export has symbolic links, and one could make any file of this machine public. */
function linkError(path: string): ImportSourceError {
  return new ImportSourceError(`${path} is a symbolic link, which no export has.`, { path })
}

function fileOf(folder: string, path: string, bytes: number): ArchiveFile {
  const place = join(folder, path)
  return {
    path,
    bytes,
    text: async () => {
      checkSize(bytes, path)
      return readFile(place, 'utf8')
    },
    stream: () => createReadStream(place),
  }
}

async function whole(content: AsyncIterable<Buffer>, bytes: number, path: string): Promise<string> {
  checkSize(bytes, path)
  const parts: Buffer[] = []
  for await (const part of content) parts.push(part)
  return Buffer.concat(parts).toString('utf8')
}

function checkSize(bytes: number, path: string): void {
  if (bytes > textBytesMax)
    throw new ImportSourceError(`${path} has ${bytes} bytes; at most ${textBytesMax} are read.`, {
      path,
      bytes,
    })
}
