import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { extname } from 'node:path'

const folder = new URL('static/', import.meta.url)
const contentTypes: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
}

export type StaticFile = {
  readonly contentType: string
  readonly etag: string
  readonly bytes: Buffer
}

/**
 * Loads the files of the pages into memory: they are few and small, and no path of a request
 * reaches the file system.
 */
export async function loadStaticFiles(): Promise<ReadonlyMap<string, StaticFile>> {
  const names = await readdir(folder)
  const files = names.map(async (name): Promise<[string, StaticFile]> => {
    const bytes = await readFile(new URL(name, folder))
    const etag = `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`
    return [
      name,
      { contentType: contentTypes[extname(name)] ?? 'application/octet-stream', etag, bytes },
    ]
  })
  return new Map(await Promise.all(files))
}
