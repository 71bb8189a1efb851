import { access, constants, mkdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import { DataFolderError } from '#node/errors.ts'
import type { Config } from '#config/config.ts'

/**
 * The path of the folder for everything that is local to this node, made if it is missing. Errors:
 * `DataFolderError`.
 */
export async function openDataFolder({ data }: Config): Promise<string> {
  const folder = resolve(data)
  try {
    await mkdir(folder, { recursive: true })
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK)
  } catch (error) {
    throw new DataFolderError(folder, error)
  }
  return folder
}
