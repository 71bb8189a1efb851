import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import type { ContentType } from '#content/content-type.ts'
import { UsageError } from '#lib/usage-error.ts'

/** A definition itself is limited to a quarter of a megabyte. */
const fileCharactersMax = 1_000_000
const filesMax = 1_000

const fileNames = /\.(?:json|ya?ml)$/

export type TypeFile = { readonly file: string; readonly definition: ContentType }

/** Names of the files in a folder that may hold a content type. */
export async function typeFileNames(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => fileNames.test(name)).sort()
}

/**
 * Prints a definition as the text of a file. The keys keep their own order, which reads better than
 * the alphabet, and the same type always gives the same text.
 */
export function printTypeFile(definition: ContentType): string {
  const { name, label, ...rest } = definition
  return `${JSON.stringify({ name, label, ...rest }, null, 2)}\n`
}

/** Reads every type file of a folder. Errors: `UsageError`. */
export async function readTypeFiles(folder: string): Promise<TypeFile[]> {
  const names = await typeFileNames(folder).catch((cause: unknown) => {
    const message = `${folder} cannot be read; name the folder that "stoa types pull" wrote.`
    throw new UsageError(message, { folder }, { cause })
  })
  if (names.length === 0 || names.length > filesMax) {
    const count = names.length === 0 ? 'no' : `more than ${filesMax}`
    throw new UsageError(`${folder} has ${count} .json, .yaml or .yml files.`, { folder })
  }
  const fileByType = new Map<string, string>()
  const files: TypeFile[] = []
  for (const name of names) {
    const file = join(folder, name)
    const definition = parseTypeFile(file, await readFile(file, 'utf8'))
    const other = fileByType.get(definition.name)
    if (other !== undefined) {
      const message = `${file} and ${other} both define the type "${definition.name}".`
      throw new UsageError(message, { file, other })
    }
    fileByType.set(definition.name, file)
    files.push({ file, definition })
  }
  return files
}

/** Checks only that there is a name; the model checks the definition itself. */
function parseTypeFile(file: string, text: string): ContentType {
  if (text.length > fileCharactersMax) {
    const message = `${file} has more than ${fileCharactersMax} characters; no content type does.`
    throw new UsageError(message, { file })
  }
  try {
    const value: unknown = file.endsWith('.json')
      ? JSON.parse(text)
      : parse(text, { maxAliasCount: 50 })
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new Error('it is not an object')
    if (!('name' in value) || typeof value.name !== 'string') throw new Error('it has no name')
    return value as unknown as ContentType
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n', 1)[0] : String(error)
    throw new UsageError(`${file} is not a content type: ${reason}`, { file }, { cause: error })
  }
}
