import { access, constants, mkdir, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { DataFolderError } from '#node/errors.ts'
import type { Config } from '#config/config.ts'

/**
 * The path of the folder for everything that is local to this node, made if it is missing. Errors:
 * `DataFolderError`.
 */
export async function openDataFolder({ data }: Config): Promise<string> {
  const folder = resolve(data)
  try {
    await makeFolder(folder)
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    throw new DataFolderError(folder, error)
  }
  return folder
}

/**
 * Makes the folder and its missing parents. The recursive `mkdir` of Node.js is not used: it never
 * returns for a path below /proc, and reports a read-only file system as a missing folder.
 */
async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null
    if (code === 'EEXIST' && (await stat(folder)).isDirectory()) return
    if (code !== 'ENOENT' || dirname(folder) === folder) throw error
    await makeFolder(dirname(folder))
    await mkdir(folder)
  }
}
