import { once } from 'node:events'
import { chmod } from 'node:fs/promises'
import { connect } from 'node:net'
import { join, resolve } from 'node:path'
import { findBinaries } from '#embedded-postgres/binaries.ts'
import {
  dataArgument,
  majorOf,
  makeDatabase,
  openDataFiles,
  readAccess,
  readManifest,
  refuseForeignData,
  resetPassword,
  socketFolder,
  urlOf,
  writeAccess,
  writeManifest,
} from '#embedded-postgres/data-files.ts'
import type { Access } from '#embedded-postgres/data-files.ts'
import { lockFolder } from '#embedded-postgres/folder-lock.ts'
import { ServerProcess, socketPort, stopLeftover } from '#embedded-postgres/server-process.ts'
import { chooseSystemUser } from '#embedded-postgres/system-user.ts'
import { diskFullError, EmbeddedDatabaseError, isDiskFull } from '#embedded-postgres/errors.ts'
import type { Logger } from '#lib/logger.ts'

/** For a connection on this machine to be accepted. */
const probeMs = 2_000

export type EmbeddedPostgresOptions = {
  /**
   * Stoa's data folder (`.stoa`); the database lives in its subfolder `postgres`. Made if it is
   * missing.
   */
  readonly dataDir: string
  readonly logger: Logger
  /**
   * A folder with `postgres` and `initdb` to use instead of those found; STOA_POSTGRES_BIN when
   * left out.
   */
  readonly binFolder?: string
}

export interface EmbeddedPostgres extends AsyncDisposable {
  /**
   * For `PostgresDatabase`. Holds the password. Stays the same until `stop`, also when the server
   * had to be restarted.
   */
  readonly url: string
  /** Stops the server in order (at most 50 s; usually well under one). Safe to call twice. */
  stop(): Promise<void>
}

/**
 * Starts the PostgreSQL that comes with Stoa on the files in `dataDir`, making them first where
 * there are none. It listens on a socket in a folder of its own account, with a random password,
 * and is as durable as any. If this process is killed, a watchdog stops the server, and the next
 * start recovers.
 *
 * Errors: `DataFolderInUseError` (another node runs on this folder), `EmbeddedDatabaseError` (it
 * cannot start here; `facts.reason` says why: no binaries, another major version, files of another
 * user …).
 */
export async function startEmbeddedPostgres(
  options: EmbeddedPostgresOptions,
): Promise<EmbeddedPostgres> {
  if (process.platform === 'win32') {
    throw new EmbeddedDatabaseError(
      'The embedded database is not available on Windows: set STOA_DATABASE_URL to a PostgreSQL.',
      { reason: 'windows' },
    )
  }
  const logger = options.logger.child({ part: 'database' })
  try {
    return await startLocked(options, logger)
  } catch (error) {
    if (isDiskFull(String(error))) throw diskFullError('The embedded database does not start')
    throw error
  }
}

async function startLocked(
  options: EmbeddedPostgresOptions,
  logger: Logger,
): Promise<EmbeddedPostgres> {
  const files = await openDataFiles(join(resolve(options.dataDir), 'postgres'))
  const lock = await lockFolder(files.folder)
  try {
    const running = await start(
      files,
      options.binFolder ?? (process.env['STOA_POSTGRES_BIN'] || null),
      logger,
    )
    let stopped: Promise<void> | null = null
    const stop = async (): Promise<void> => {
      stopped ??= stopServer(running, lock)
      await stopped
    }
    return { url: running.url, stop, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await lock.release()
    throw error
  }
}

async function stopServer(
  { server, socket }: Running,
  lock: { release(): Promise<void> },
): Promise<void> {
  try {
    await server.stop()
    await socket.remove()
  } finally {
    await lock.release()
  }
}

type Running = {
  readonly url: string
  readonly server: ServerProcess
  readonly socket: { remove(): Promise<void> }
}

async function start(
  files: Awaited<ReturnType<typeof openDataFiles>>,
  binFolder: string | null,
  logger: Logger,
): Promise<Running> {
  const startedAt = performance.now()
  await refuseForeignData(files)
  const major = await majorOf(files)
  const user = await chooseSystemUser(files.folder, files.data)
  if (user !== null) await chmod(files.folder, 0o711)
  const binaries = await findBinaries({
    binFolder,
    major,
    user,
    copiesFolder: files.folder,
    logger,
  })
  const manifest = await readManifest(files)
  if (manifest !== null && manifest.postgres.kind !== binaries.kind) {
    logger.warn(
      { madeBy: manifest.postgres, runsOn: binaries.version, kind: binaries.kind },
      'the database files were made by another build of the same PostgreSQL',
    )
  }
  if (major === null) {
    logger.info(
      { folder: files.folder, version: binaries.version, user: user?.name },
      'making the embedded database, once',
    )
    await makeDatabase(files, binaries, user)
  } else {
    await stopLeftover(files.data, logger)
  }
  const access = (await readAccess(files)) ?? (await resetPassword(files, binaries, user))
  const server = new ServerProcess({
    binaries,
    user,
    data: files.data,
    dataArgument: await dataArgument(files.data, user),
    logger,
  })
  const socket = await socketFolder(files.data)
  try {
    await server.start()
    if (manifest === null) await writeManifest(files, binaries)
    const url = await writeAccess(files, { ...access, host: socket.path })
    logger.info(
      { version: binaries.version, ms: Math.round(performance.now() - startedAt) },
      'the embedded database is ready',
    )
    return { url, server, socket }
  } catch (error) {
    await server.stop()
    await socket.remove()
    throw error
  }
}

/**
 * The URL of the embedded database that a node runs on the files in `dataDir`, for a command beside
 * that node: after `DataFolderInUseError`. Null when it was never started. It may not be running.
 * Errors: `EmbeddedDatabaseError` where the files may not be read.
 */
export async function urlOfRunning(dataDir: string): Promise<string | null> {
  const access = await accessTo(dataDir)
  return access === null ? null : urlOf(access)
}

/** The same, and null also when nothing listens there: the server ends with its node. */
export async function urlOfListening(dataDir: string): Promise<string | null> {
  const access = await accessTo(dataDir)
  return access === null || !(await listens(access.host)) ? null : urlOf(access)
}

/** True if the data folder has an embedded database, be it running or not. Makes no folder. */
export async function hasDatabase(dataDir: string): Promise<boolean> {
  return (await accessTo(dataDir)) !== null
}

/** Makes no folder, so that looking leaves nothing behind. */
async function accessTo(dataDir: string): Promise<Access | null> {
  const folder = join(resolve(dataDir), 'postgres')
  try {
    return await readAccess({ folder, data: join(folder, 'data') })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
    throw new EmbeddedDatabaseError(
      `${folder} cannot be read (${code}): run this command as the user that the node runs ` +
        `as, and with its STOA_DATA.`,
      { reason: 'unreadable' },
      { cause: error },
    )
  }
}

async function listens(host: string): Promise<boolean> {
  const socket = connect({ path: join(host, `.s.PGSQL.${socketPort}`) })
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(probeMs) })
    return true
  } catch {
    // Refused, or there is no socket: there is no server.
    return false
  } finally {
    socket.destroy()
  }
}
