import type { ChildProcess } from 'node:child_process'
import { readFile, readlink, realpath, rm } from 'node:fs/promises'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Binaries } from '#embedded-postgres/binaries.ts'
import { runCommand, startDetached } from '#embedded-postgres/command.ts'
import { birthOf } from '#embedded-postgres/folder-lock.ts'
import type { SystemUser } from '#embedded-postgres/system-user.ts'
import { diskFullError, EmbeddedDatabaseError, isDiskFull } from '#embedded-postgres/errors.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * Recovery after a crash replays at most `max_wal_size` (1 GB) of log, which slow disks need a
 * while for.
 */
const readyDeadlineMs = 300_000
const readyPollMs = 10
const readyReportMs = 5_000
/** It only names the socket: nothing listens on a port. */
export const socketPort = 5_432
/** The last processes of a killed server need a moment to notice and leave. */
const leftoverDeadlineMs = 20_000
const leftoverPauseMs = 50
/**
 * A fast shutdown writes a checkpoint; after this time the server is stopped without one, and
 * recovers at its next start.
 */
const fastShutdownMs = 30_000
const immediateShutdownMs = 10_000
/**
 * A server that dies is started again at most this often within the window.
 */
const revivalsMax = 5
const revivalWindowMs = 60_000
const outputLinesKept = 20

export type ServerOptions = {
  readonly binaries: Binaries
  readonly user: SystemUser | null
  readonly data: string
  /** The value of `-D`; see `dataArgument`. */
  readonly dataArgument: string
  readonly logger: Logger
}

/**
 * The settings make a server that is durable and small at rest: memory is taken as it is used, and
 * background workers are few. It listens on a socket in its own data folder, which no other account
 * may enter: so no other program can take its place while it is away, and receive passwords or
 * content.
 */
function settings(major: number): Record<string, string> {
  return {
    listen_addresses: '',
    port: String(socketPort),
    // The server's working directory is its data folder.
    unix_socket_directories: '.',
    unix_socket_permissions: '0700',
    fsync: 'on',
    full_page_writes: 'on',
    synchronous_commit: 'on',
    // Elsewhere the default reaches the disk; on macOS only this does.
    ...(process.platform === 'darwin' ? { wal_sync_method: 'fsync_writethrough' } : {}),
    max_connections: '100',
    shared_buffers: '128MB',
    max_worker_processes: '4',
    max_parallel_workers: '2',
    // Parallel plans need shared memory files, of which containers have little.
    max_parallel_workers_per_gather: '0',
    max_logical_replication_workers: '0',
    autovacuum_max_workers: '2',
    random_page_cost: '1.1',
    jit: 'off',
    ...(major >= 18 ? { io_method: 'sync' } : {}),
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_destination: 'stderr',
    logging_collector: 'off',
    log_line_prefix: '',
    log_min_messages: 'log',
    log_checkpoints: 'off',
  }
}

/**
 * One postmaster, from its start to its end. Modes: `idle` → start() → `running`; a running one
 * that dies by itself is started again; stop() → `stopped`, for ever.
 */
export class ServerProcess {
  readonly #options: ServerOptions
  readonly #revivals: number[] = []
  #mode: 'idle' | 'running' | 'stopped' = 'idle'
  #child: ChildProcess | null = null
  #watchdog: ChildProcess | null = null
  #reviving: Promise<void> | null = null
  #output: string[] = []

  constructor(options: ServerOptions) {
    this.#options = options
  }

  /** Resolves once connections are accepted. Errors: `EmbeddedDatabaseError`. */
  async start(): Promise<void> {
    await this.#begin()
    this.#mode = 'running'
  }

  async #begin(): Promise<void> {
    const leftoverUntil = performance.now() + leftoverDeadlineMs
    for (;;) {
      await removeSocket(this.#options.data)
      const failure = await this.#attempt()
      if (failure === null) return
      const leftover = /pre-existing shared memory block|postmaster\.pid" already exists/
      if (!leftover.test(failure) || performance.now() > leftoverUntil) throw startError(failure)
      await sleep(leftoverPauseMs)
    }
  }

  /**
   * Ends the server in order, within `fastShutdownMs` + `immediateShutdownMs`. Safe to call twice.
   */
  async stop(): Promise<void> {
    this.#mode = 'stopped'
    await this.#reviving
    const child = this.#child
    if (child !== null) {
      child.ref()
      await stopPostmaster(
        child.pid!,
        async () => child.exitCode !== null || child.signalCode !== null,
        this.#options.logger,
      )
    }
    this.#dismissWatchdog()
  }

  async #attempt(): Promise<string | null> {
    const { binaries, user, data, dataArgument } = this.#options
    const args = Object.entries(settings(binaries.major)).flatMap(([name, value]) => [
      '-c',
      `${name}=${value}`,
    ])
    const child = startDetached(join(binaries.folder, 'postgres'), ['-D', dataArgument, ...args], {
      user,
      cwd: data,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#output = []
    if (child.stderr === null) throw new Error('asked for a pipe')
    createInterface({ input: child.stderr }).on('line', (line) => this.#logLine(line))
    const end: { reason: string | null } = { reason: null }
    child.once('error', (error) => (end.reason = error.message))
    child.once('close', (code, signal) => {
      end.reason ??=
        this.#output.findLast((line) => /FATAL|PANIC/.test(line)) ??
        this.#output.at(-1) ??
        `it ended with ${signal ?? code}`
      this.#ended(child, end.reason)
    })
    const startedAt = performance.now()
    let reportAt = startedAt + readyReportMs
    while (end.reason === null) {
      if (await this.#isReady(child.pid)) {
        this.#accept(child)
        return null
      }
      const now = performance.now()
      if (now > startedAt + readyDeadlineMs) {
        child.kill('SIGKILL')
        return `it was not ready after ${readyDeadlineMs / 1000} s`
      }
      if (now > reportAt) {
        this.#options.logger.info(
          { seconds: Math.round((now - startedAt) / 1000), lastLine: this.#output.at(-1) },
          'the database is still starting',
        )
        reportAt = now + readyReportMs
      }
      await sleep(readyPollMs)
    }
    return end.reason
  }

  async #isReady(pid: number | undefined): Promise<boolean> {
    const lines = await postmasterFile(this.#options.data)
    return lines !== null && lines[0] === String(pid) && lines[7]?.trim() === 'ready'
  }

  #accept(child: ChildProcess): void {
    this.#child = child
    child.unref()
    if (child.stderr instanceof Socket) child.stderr.unref()
    this.#dismissWatchdog()
    this.#watchdog = startWatchdog(child.pid!, this.#options)
  }

  #ended(child: ChildProcess, reason: string): void {
    if (this.#child !== child) return
    this.#child = null
    if (this.#mode !== 'running') return
    const now = performance.now()
    this.#revivals.push(now)
    const recent = this.#revivals.filter((atMs) => atMs > now - revivalWindowMs)
    this.#revivals.splice(0, this.#revivals.length, ...recent)
    const { logger } = this.#options
    if (recent.length > revivalsMax) {
      logger.error(
        { reason, times: recent.length },
        'the embedded database keeps dying and is left stopped; restart Stoa when the cause ' +
          'is gone',
      )
      return
    }
    logger.error({ reason }, 'the embedded database died and is started again')
    this.#reviving = this.#begin().then(
      () => logger.info({}, 'the embedded database is back'),
      (error: unknown) =>
        logger.error(
          { err: error },
          'the embedded database could not be started again; restart Stoa',
        ),
    )
  }

  #logLine(line: string): void {
    this.#output.push(line)
    if (this.#output.length > outputLinesKept) this.#output.shift()
    const { logger } = this.#options
    if (line.startsWith('PANIC')) logger.error({ line }, 'the database panicked')
    else if (line.startsWith('FATAL') || line.startsWith('WARNING'))
      logger.warn({ line }, 'the database warns')
    else logger.debug({ line }, 'the database says')
  }

  #dismissWatchdog(): void {
    this.#watchdog?.stdin?.end('done\n')
    this.#watchdog = null
  }
}

/**
 * A shell that waits for the end of a pipe from this process: should the node be killed, so that it
 * cannot stop its server, the shell does. It makes sure that it still is the same server.
 */
function startWatchdog(pid: number, options: ServerOptions): ChildProcess {
  const script =
    'if read -r word; then exit 0; fi; read -r pid < postmaster.pid && [ "$pid" = "$1" ] && ' +
    'kill -INT "$1"'
  const watchdog = startDetached('/bin/sh', ['-c', script, 'stoa-watchdog', String(pid)], {
    user: options.user,
    cwd: options.data,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  watchdog.once('error', (error) =>
    options.logger.warn(
      { err: error },
      'the database will go on running if this process is killed',
    ),
  )
  watchdog.stdin?.on('error', () => {
    // It has ended already, which is what writing to it asks for.
  })
  if (watchdog.stdin instanceof Socket) watchdog.stdin.unref()
  watchdog.unref()
  return watchdog
}

/**
 * Deals with a server that a killed node left running in `data`: stops it in order, so that the
 * start that follows is an ordinary one. Call it only while holding the folder's lock.
 */
export async function stopLeftover(data: string, logger: Logger): Promise<void> {
  const lines = await postmasterFile(data)
  const pid = Number(lines?.[0])
  if (!Number.isInteger(pid) || pid <= 0) return
  const birth = await birthOf(pid)
  if (birth === null) return
  if (!(await servesFolder(pid, data))) {
    logger.info(
      { pid },
      'removing a lock file of the database whose process id now belongs to another program',
    )
    await rm(join(data, 'postmaster.pid'), { force: true })
    return
  }
  logger.warn({ pid }, 'stopping the database server that a killed node left behind')
  await stopPostmaster(pid, async () => (await birthOf(pid)) !== birth, logger)
}

async function servesFolder(pid: number, data: string): Promise<boolean> {
  if (process.platform === 'linux') {
    try {
      return (await readlink(`/proc/${pid}/cwd`)) === (await realpath(data))
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      if (code === 'ENOENT' || code === 'ESRCH') return false
      // A server on these files would run as the user that owns them, whose process may be read.
      if (code === 'EACCES') return false
      throw error
    }
  }
  const { output } = await runCommand('ps', ['-o', 'command=', '-p', String(pid)], {
    user: null,
    cwd: '/',
    deadlineMs: 10_000,
  })
  return output.includes('postgres') && output.includes(data)
}

async function stopPostmaster(
  pid: number,
  isGone: () => Promise<boolean>,
  logger: Logger,
): Promise<void> {
  const steps = [
    ['SIGINT', fastShutdownMs],
    ['SIGQUIT', immediateShutdownMs],
    ['SIGKILL', immediateShutdownMs],
  ] as const
  for (const [signal, deadlineMs] of steps) {
    try {
      process.kill(pid, signal)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return
      throw error
    }
    const until = performance.now() + deadlineMs
    while (performance.now() < until) {
      if (await isGone()) return
      await sleep(readyPollMs)
    }
    logger.warn({ pid, signal, deadlineMs }, 'the database server did not stop within its deadline')
  }
  throw new EmbeddedDatabaseError(`The database server with process id ${pid} cannot be stopped.`, {
    reason: 'unstoppable',
    pid,
  })
}

async function postmasterFile(data: string): Promise<string[] | null> {
  try {
    return (await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

/**
 * Removes what a killed server left: its lock names a process whose id may have been given to
 * another program. The folder's lock, and `stopLeftover`, make sure that no server uses it.
 */
async function removeSocket(data: string): Promise<void> {
  for (const name of [`.s.PGSQL.${socketPort}`, `.s.PGSQL.${socketPort}.lock`])
    await rm(join(data, name), { force: true })
}

/** The last words of the server, with what to do where that is known. */
function startError(failure: string): EmbeddedDatabaseError {
  if (isDiskFull(failure)) return diskFullError('The embedded database does not start')
  return new EmbeddedDatabaseError(`The embedded database does not start: ${failure}`, {
    reason: 'server',
  })
}
