import type { ChildProcess } from 'node:child_process'
import { readFile, readlink, realpath, rm } from 'node:fs/promises'
import { createServer, Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Binaries } from '#embedded-postgres/binaries.ts'
import { runCommand, startDetached } from '#embedded-postgres/command.ts'
import { birthOf } from '#embedded-postgres/folder-lock.ts'
import type { SystemUser } from '#embedded-postgres/system-user.ts'
import { EmbeddedDatabaseError } from '#embedded-postgres/errors.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * Recovery after a crash replays at most `max_wal_size` (1 GB) of log, which slow disks need a
 * while for.
 */
const readyDeadlineMs = 300_000
const readyPollMs = 10
const readyReportMs = 5_000
/** Ports tried when another program takes the one just found free. */
const portAttemptsMax = 5
const portPauseMs = 500
/** The last processes of a killed server need a moment to notice and leave. */
const leftoverDeadlineMs = 20_000
const leftoverPauseMs = 50
/**
 * A fast shutdown writes a checkpoint; past this the server is told to stop without one, and
 * recovers at its next start.
 */
const fastShutdownMs = 30_000
const immediateShutdownMs = 10_000
/**
 * A server that dies is started again this often within the window; more is a fault for people to
 * look at.
 */
const revivalsMax = 5
const revivalWindowMs = 60_000
const outputLinesKept = 20

export type ServerOptions = {
  readonly binaries: Binaries
  readonly user: SystemUser | null
  readonly data: string
  /** What `-D` is given; see `dataArgument`. */
  readonly dataArgument: string
  readonly logger: Logger
}

/**
 * Durable, on loopback only, and small at rest: memory is taken as it is used, background workers
 * are few.
 */
function settings(port: number, major: number): Record<string, string> {
  return {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
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
 * that dies by itself is started again on the same port; stop() → `stopped`, for ever.
 */
export class ServerProcess {
  readonly #options: ServerOptions
  readonly #revivals: number[] = []
  #mode: 'idle' | 'running' | 'stopped' = 'idle'
  #child: ChildProcess | null = null
  #watchdog: ChildProcess | null = null
  #reviving: Promise<void> | null = null
  #port = 0
  #output: string[] = []

  constructor(options: ServerOptions) {
    this.#options = options
  }

  /**
   * Starts on `preferredPort` if it is free, else on any. Resolves with the port once connections
   * are accepted.
   */
  async start(preferredPort: number | null): Promise<number> {
    this.#port = await this.#begin(preferredPort ?? (await freePort()), 'anyPort')
    this.#mode = 'running'
    return this.#port
  }

  async #begin(firstPort: number, choice: 'anyPort' | 'samePort'): Promise<number> {
    let port = firstPort
    const leftoverUntil = performance.now() + leftoverDeadlineMs
    for (let attempt = 1; ;) {
      const failure = await this.#attempt(port)
      if (failure === null) return port
      if (
        /could not bind|Address already in use|could not create any TCP/.test(failure) &&
        attempt < portAttemptsMax
      ) {
        attempt += 1
        if (choice === 'anyPort') port = await freePort()
        else await sleep(portPauseMs)
      } else if (
        /pre-existing shared memory block|postmaster\.pid" already exists/.test(failure) &&
        performance.now() < leftoverUntil
      ) {
        await sleep(leftoverPauseMs)
      } else {
        throw new EmbeddedDatabaseError(`The embedded database does not start: ${failure}`, {
          reason: 'server',
        })
      }
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

  async #attempt(port: number): Promise<string | null> {
    const { binaries, user, data, dataArgument } = this.#options
    const args = Object.entries(settings(port, binaries.major)).flatMap(([name, value]) => [
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
    createInterface({ input: child.stderr }).on('line', (line) => this.#heard(line))
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
        'the embedded database keeps dying and is left stopped; restart Stoa when the cause is gone',
      )
      return
    }
    logger.error({ reason }, 'the embedded database died and is started again')
    this.#reviving = this.#begin(this.#port, 'samePort').then(
      () => logger.info({}, 'the embedded database is back'),
      (error: unknown) =>
        logger.error(
          { err: error },
          'the embedded database could not be started again; restart Stoa',
        ),
    )
  }

  #heard(line: string): void {
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
    'if read -r word; then exit 0; fi; read -r pid < postmaster.pid && [ "$pid" = "$1" ] && kill -INT "$1"'
  const watchdog = startDetached('/bin/sh', ['-c', script, 'stoa-watchdog', String(pid)], {
    user: options.user,
    cwd: options.data,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  watchdog.once('error', (error) =>
    options.logger.warn(
      { err: error },
      'nothing will stop the database should this process be killed',
    ),
  )
  watchdog.stdin?.on('error', () => {
    // It is gone already, which is what writing to it asks for.
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
      // Somebody else's process: a server on these files would run as the user that owns them.
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

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}
