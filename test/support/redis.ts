import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '#test/support/database.ts'

/** Another server of the same protocol, as Valkey's: STOA_TEST_REDIS=/path/valkey-server. */
const program = process.env['STOA_TEST_REDIS'] ?? 'redis-server'

function missing(): string | false {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' })
    return false
  } catch {
    return 'no Redis here: install the package redis-server'
  }
}

/** The reason why tests with Redis cannot run here, or false. */
export const redisMissing: string | false = missing()

export type TestRedis = AsyncDisposable & {
  readonly url: string
  readonly port: number
  start(): Promise<void>
  stop(): Promise<void>
  /** Ends it at once, as when the machine fails. */
  kill(): Promise<void>
  hang(): void
  goOn(): void
}

export type TestRedisOptions = {
  /** More arguments of its command line. */
  readonly settings?: readonly string[]
  readonly port?: number
  /** It is a sentinel with this file of settings. */
  readonly sentinel?: string
}

const readyWithinMs = 10_000

/**
 * A throw-away Redis on loopback, in memory; it can be stopped and started again on its port,
 * empty, and be made to hang.
 */
export async function startTestRedis(options: TestRedisOptions = {}): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-redis-'))
  const port = options.port ?? (await freePort())
  const settings = ['--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no']
  const args =
    options.sentinel === undefined
      ? ['--port', String(port), ...settings, ...(options.settings ?? [])]
      : [options.sentinel, '--sentinel', '--port', String(port)]
  let child: ChildProcess | null = null
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const running = child
    child = null
    if (running === null) return
    const ended = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGCONT')
    running.kill(signal)
    await ended
  }
  const start = async (): Promise<void> => {
    child = spawn(program, args, { stdio: 'ignore' })
    const deadline = Date.now() + readyWithinMs
    while (!(await accepts(port))) {
      if (Date.now() > deadline) throw new Error('redis-server accepts no connections')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  await start()
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    start,
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    hang: () => void child?.kill('SIGSTOP'),
    goOn: () => void child?.kill('SIGCONT'),
    [Symbol.asyncDispose]: async () => {
      await end('SIGKILL')
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port }, () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
