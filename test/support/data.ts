import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

/**
 * Real content to try Stoa with lies beside the checkout, in `../shared/data`; STOA_TEST_DATA names
 * another folder.
 */
function dataFolder(): string | null {
  const named = process.env['STOA_TEST_DATA']
  if (named !== undefined) return existsSync(named) ? named : null
  for (let folder = process.cwd(); folder !== dirname(folder); folder = dirname(folder)) {
    const candidate = join(folder, 'shared', 'data')
    if (existsSync(candidate)) return candidate
  }
  return null
}

/**
 * The path of a file of real content, and the reason why a test without it is skipped: `test(name,
 * { skip })`.
 */
export function realData(name: string): { readonly path: string; readonly skip: string | false } {
  const folder = dataFolder()
  const path = folder === null ? name : join(folder, name)
  return {
    path,
    skip: existsSync(path)
      ? false
      : `${name} is not there: put it into ../shared/data, or name its folder in STOA_TEST_DATA`,
  }
}
