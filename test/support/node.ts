import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '#test/support/database.ts'

const startDeadlineMs = 60_000
const stopDeadlineMs = 20_000

export type RunningNode = AsyncDisposable & {
  readonly origin: string
  readonly dataDir: string
  readonly environment: Readonly<Record<string, string>>
  readonly process: ChildProcess
  /** The first match in what the node printed so far or will print before the deadline. */
  printed(pattern: RegExp): Promise<RegExpExecArray>
  /** Everything that it has printed. */
  output(): string
  /**
   * The status with which it ends by itself, without a signal; after a deadline it is killed. Null:
   * by a signal.
   */
  ended(): Promise<number | null>
  stop(): Promise<number | null>
}

export const stoaProgram = join(import.meta.dirname, '..', '..', 'bin', 'stoa.js')

/**
 * A real node: `stoa start` as a process of its own, in an empty data folder with an embedded
 * database unless the environment names one.
 */
export async function startNode(options: {
  readonly environment?: Readonly<Record<string, string>>
  readonly dataDir?: string
}): Promise<RunningNode> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'stoa-node-')))
  const port = await freePort()
  const environment = { STOA_DATA: dataDir, STOA_PORT: String(port), ...options.environment }
  const child = spawn(process.execPath, [stoaProgram, 'start'], {
    env: { ...withoutSettings, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  child.stdout.on('data', (chunk) => (output += String(chunk)))
  child.stderr.on('data', (chunk) => (output += String(chunk)))
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  const origin = `http://127.0.0.1:${environment.STOA_PORT}`
  const endsWithin = async (): Promise<number | null> => {
    const timer = setTimeout(() => child.kill('SIGKILL'), stopDeadlineMs)
    const code = await ended
    clearTimeout(timer)
    return code
  }
  const stop = (): Promise<number | null> => {
    child.kill('SIGTERM')
    return endsWithin()
  }
  const waitFor = async <T>(attempt: () => Promise<T | null>): Promise<T> => {
    const end = Date.now() + startDeadlineMs
    for (;;) {
      const result = await attempt()
      if (result !== null) return result
      if (child.exitCode !== null || Date.now() > end)
        throw new Error(`the node did not do what was waited for; it printed:\n${output}`)
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  }
  // A node that only runs jobs is never ready for requests.
  const health = options.environment?.['STOA_WORK'] === 'jobs' ? 'live' : 'ready'
  try {
    await waitFor(async () =>
      (await fetch(`${origin}/healthz/${health}`).catch(() => null))?.status === 200 ? true : null,
    )
  } catch (error) {
    await stop()
    throw error
  }
  return {
    origin,
    dataDir,
    environment,
    process: child,
    output: () => output,
    ended: endsWithin,
    printed: (pattern) => waitFor(async () => pattern.exec(output)),
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop()
      if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true })
    },
  }
}

/** The environment without Stoa's settings, but for those of the tests. */
export const withoutSettings: Readonly<Record<string, string | undefined>> = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !name.startsWith('STOA_') || name.startsWith('STOA_TEST_'),
  ),
)

export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'stoa-test-'))
  return { path, [Symbol.asyncDispose]: async () => rm(path, { recursive: true, force: true }) }
}
