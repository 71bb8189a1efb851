import { randomBytes } from 'node:crypto'
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  open,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Binaries } from '#embedded-postgres/binaries.ts'
import { runCommand } from '#embedded-postgres/command.ts'
import type { SystemUser } from '#embedded-postgres/system-user.ts'
import { diskFullError, EmbeddedDatabaseError, isDiskFull } from '#embedded-postgres/errors.ts'

/**
 * The folder holds `data/`, the database files with the server's socket, which PostgreSQL's account
 * owns; and, owned by the node, `url` (how to connect, with the password, readable by the owner
 * alone), `manifest.json` (the program that made the files), `owner.json` (the lock) and `making/`
 * (a first start in progress).
 */
export type DataFiles = { readonly folder: string; readonly data: string }

/** This role owns the database, and is no superuser. */
const roleName = 'stoa'
const databaseName = 'stoa'
/** No one knows its password: it acts only in single-user mode, on the files themselves. */
const superuserName = 'postgres'
/** The system's limit for the path of a socket, on macOS 104, less the socket's own name. */
const socketFolderBytesMax = 80
const initdbDeadlineMs = 120_000
const passwordBytes = 24

type Manifest = {
  readonly format: 1
  readonly postgres: {
    readonly kind: Binaries['kind']
    readonly version: string
    readonly major: number
  }
  readonly createdAt: string
}

export async function openDataFiles(folder: string): Promise<DataFiles> {
  await mkdir(folder, { recursive: true, mode: 0o711 })
  const real = await realpath(folder)
  return { folder: real, data: join(real, 'data') }
}

/**
 * The major version of the database files as they say themselves, or null where there are none yet.
 */
export async function majorOf(files: DataFiles): Promise<number | null> {
  const version = await readText(join(files.data, 'PG_VERSION'))
  if (version !== null) return Number.parseInt(version, 10)
  const present = await stat(files.data).catch(() => null)
  if (present === null) return null
  throw new EmbeddedDatabaseError(
    `${files.data} is there but holds no database (no PG_VERSION): move it away, then start again.`,
    {
      reason: 'notADatabase',
    },
  )
}

/** An ordinary user cannot open files that a start as root, or another user, has made. */
export async function refuseForeignData(files: DataFiles): Promise<void> {
  const present = await stat(files.data).catch(() => null)
  const me = process.geteuid?.() ?? 0
  if (present === null || me === 0 || present.uid === me) return
  throw new EmbeddedDatabaseError(
    `${files.data} belongs to the user with id ${present.uid}, and Stoa now runs as ${me}: ` +
      'start it as before, or as root ' +
      `run: chown -R ${me} ${files.folder}`,
    { reason: 'foreignData', owner: present.uid },
  )
}

export async function readManifest(files: DataFiles): Promise<Manifest | null> {
  const text = await readText(join(files.folder, 'manifest.json'))
  return text === null ? null : (JSON.parse(text) as Manifest)
}

export async function writeManifest(files: DataFiles, binaries: Binaries): Promise<void> {
  const { kind, version, major } = binaries
  const manifest: Manifest = {
    format: 1,
    postgres: { kind, version, major },
    createdAt: new Date().toISOString(),
  }
  await writeDurably(
    join(files.folder, 'manifest.json'),
    `${JSON.stringify(manifest, null, 2)}\n`,
    0o644,
  )
}

export type Access = {
  readonly password: string
  /** The folder of the server's socket. */
  readonly host: string
}

export async function readAccess(files: DataFiles): Promise<Access | null> {
  const text = await readText(join(files.folder, 'url'))
  if (text === null) return null
  const { password, searchParams } = new URL(text.trim())
  return { password, host: searchParams.get('host') ?? '' }
}

export async function writeAccess(files: DataFiles, access: Access): Promise<string> {
  const url = urlOf(access)
  await writeDurably(join(files.folder, 'url'), `${url}\n`, 0o600)
  return url
}

/** The host in front is only there for the syntax: every client prefers the parameter. */
export function urlOf({ password, host }: Access): string {
  const parameters = new URLSearchParams({ host })
  return `postgres://${roleName}:${password}@localhost/${databaseName}?${parameters.toString()}`
}

/**
 * The folder of the server's socket as clients name it. A path that is too long for a socket is
 * reached through a link in a folder of this account alone, which `remove` takes away.
 */
export async function socketFolder(
  data: string,
): Promise<{ readonly path: string; remove(): Promise<void> }> {
  if (Buffer.byteLength(data) <= socketFolderBytesMax)
    return { path: data, remove: async () => undefined }
  const folder = await mkdtemp(join(tmpdir(), 'stoa-'))
  await symlink(data, join(folder, 'data'))
  return {
    path: join(folder, 'data'),
    remove: async () => rm(folder, { recursive: true, force: true }),
  }
}

function newPassword(): string {
  return randomBytes(passwordBytes).toString('base64url')
}

/**
 * The name under which PostgreSQL finds its files. An account that may not enter a folder above (a
 * checkout below /root) still reaches its working directory, which the node sets before it drops
 * root: so the files can stay where they belong.
 */
export async function dataArgument(data: string, user: SystemUser | null): Promise<string> {
  if (user === null) return data
  const { status } = await runCommand('/bin/sh', ['-c', 'cd "$1"', 'sh', data], {
    user,
    cwd: '/',
    deadlineMs: 10_000,
  })
  if (status === 0) return data
  if (process.platform === 'linux' && (await stat('/proc/self/cwd').catch(() => null)) !== null)
    return '/proc/self/cwd'
  throw new EmbeddedDatabaseError(
    `The account ${user.name}, under which PostgreSQL has to run, cannot enter ${data}: set ` +
      `STOA_DATA to a folder that all accounts may enter.`,
    { reason: 'unreachableData' },
  )
}

/**
 * Makes the database files beside their place and moves them there when they are whole and on disk:
 * a start that is killed leaves nothing half-made.
 */
export async function makeDatabase(
  files: DataFiles,
  binaries: Binaries,
  user: SystemUser | null,
): Promise<void> {
  const making = join(files.folder, 'making')
  const data = join(making, 'data')
  await rm(making, { recursive: true, force: true })
  await mkdir(data, { recursive: true, mode: 0o700 })
  await writeDurably(join(making, 'password'), `${newPassword()}\n`, 0o600)
  if (user !== null)
    for (const path of [making, data, join(making, 'password')])
      await chown(path, user.uid, user.gid)
  await chmod(making, 0o700)
  const argument = await dataArgument(data, user)
  const initdb = join(binaries.folder, 'initdb')
  const options = { user, cwd: data, deadlineMs: initdbDeadlineMs }
  const made = await runCommand(initdb, initdbArguments(argument, binaries), options)
  if (made.status !== 0) throw initdbFailed(made.output)
  const access = { password: newPassword(), host: files.data }
  await runSingle({ data, binaries, user }, [
    `create role ${roleName} login password '${access.password}'`,
    `create database ${databaseName} owner ${roleName}`,
  ])
  // Cheaper in one go than file by file as initdb makes them.
  const synced = await runCommand(initdb, ['-D', argument, '--sync-only'], options)
  if (synced.status !== 0) throw initdbFailed(synced.output)
  await writeAccess(files, access)
  await rename(data, files.data)
  await syncFolder(files.folder)
  await rm(making, { recursive: true, force: true })
}

function initdbArguments(argument: string, binaries: Binaries): string[] {
  return [
    '-D',
    argument,
    '-U',
    superuserName,
    '-A',
    'scram-sha-256',
    `--pwfile=${argument}/../password`,
    '-E',
    'UTF8',
    ...localeArguments(binaries.major),
    '--no-sync',
  ]
}

type Files = {
  readonly data: string
  readonly binaries: Binaries
  readonly user: SystemUser | null
}

/** Runs commands on the files of a server that does not run, as the superuser. */
async function runSingle({ data, binaries, user }: Files, commands: string[]): Promise<void> {
  const argument = await dataArgument(data, user)
  const { status, output } = await runCommand(
    join(binaries.folder, 'postgres'),
    ['--single', '-D', argument, 'postgres'],
    { user, cwd: data, deadlineMs: initdbDeadlineMs, input: `${commands.join('\n')}\n` },
  )
  if (status !== 0 || output.includes('ERROR:')) throw initdbFailed(output)
}

function initdbFailed(output: string): EmbeddedDatabaseError {
  if (isDiskFull(output)) return diskFullError('The embedded database could not be made')
  return new EmbeddedDatabaseError(
    `The embedded database could not be made: ${output.split('\n').slice(-4).join(' ')}`,
    { reason: 'initdb' },
  )
}

/**
 * Strings sort by code point, and letters of every alphabet have their cases, the same on every
 * platform.
 */
function localeArguments(major: number): string[] {
  if (major >= 17) return ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
  return [
    '--lc-collate=C',
    process.platform === 'linux' ? '--lc-ctype=C.UTF-8' : '--lc-ctype=en_US.UTF-8',
    '--lc-messages=C',
    '--lc-monetary=C',
    '--lc-numeric=C',
    '--lc-time=C',
  ]
}

/** Gives a stopped server a new password, where the file that held the old one has been lost. */
export async function resetPassword(
  files: DataFiles,
  binaries: Binaries,
  user: SystemUser | null,
): Promise<Access> {
  const access = { password: newPassword(), host: files.data }
  const command = `alter role ${roleName} with password '${access.password}'`
  await runSingle({ data: files.data, binaries, user }, [command])
  await writeAccess(files, access)
  return access
}

async function readText(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

async function writeDurably(path: string, text: string, mode: number): Promise<void> {
  const making = `${path}.making`
  await rm(making, { force: true })
  const file = await open(making, 'wx', mode)
  try {
    await file.writeFile(text)
    await file.sync()
    // Root leaves the folder's owner able to start Stoa as an ordinary user again.
    const { uid, gid } = await stat(dirname(path))
    if (process.geteuid?.() === 0) await file.chown(uid, gid)
  } finally {
    await file.close()
  }
  await rename(making, path)
  await syncFolder(dirname(path))
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
