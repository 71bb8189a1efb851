import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { ClusterStatus, NodeStatus } from '#nodes/cluster-status.ts'
import { freePort } from '#test/support/database.ts'
import { stoaProgram } from '#test/support/node.ts'

const deadlineMs = 90_000
const withoutSettings = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('STOA_')),
)

export type Several = AsyncDisposable & {
  readonly origin: string
  readonly dataDir: string
  signal(name: NodeJS.Signals): void
  until(text: string, times?: number): Promise<void>
  /** Resolves when all nodes serve. */
  ready(): Promise<void>
  nodes(): Promise<readonly NodeStatus[]>
  /** The process ids of the nodes. */
  children(): Promise<readonly number[]>
  stoa(...argv: string[]): Promise<string>
  /**
   * The status with which it ends; null: by a signal, which is the deadline's if it does not end.
   */
  readonly ended: Promise<number | null>
}

/** `stoa start --nodes N` as a process of its own. `program`: the Node.js that runs it. */
export async function startSeveral(
  count: number,
  environment: Readonly<Record<string, string>>,
  program: string = process.execPath,
): Promise<Several> {
  const dataDir = await mkdtemp(join(tmpdir(), 'stoa-several-'))
  const port = await freePort()
  const env = {
    ...withoutSettings,
    STOA_DATA: dataDir,
    STOA_PORT: String(port),
    STOA_STARTER: 'false',
    STOA_NODE: 'box',
    STOA_DRAIN_GRACE_MS: '500',
    ...environment,
  }
  const child = spawn(program, [stoaProgram, 'start', '--nodes', String(count)], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  child.stdout.on('data', (chunk) => (output += String(chunk)))
  child.stderr.on('data', (chunk) => (output += String(chunk)))
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  const until = async (text: string, times = 1): Promise<void> => {
    const deadline = Date.now() + deadlineMs
    while (output.split(text).length <= times) {
      assert.ok(
        child.exitCode === null && child.signalCode === null && Date.now() < deadline,
        `did not print "${text}":\n${output}`,
      )
      await sleep(25)
    }
  }
  const stoa = async (...argv: string[]): Promise<string> =>
    (await promisify(execFile)(process.execPath, [stoaProgram, ...argv], { env })).stdout
  return {
    origin: `http://127.0.0.1:${port}`,
    dataDir,
    signal: (name) => void child.kill(name),
    until,
    ready: () => until('all nodes are ready'),
    stoa,
    nodes: async () => (JSON.parse(await stoa('status', '--json')) as ClusterStatus).nodes,
    children: async () =>
      (await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8'))
        .trim()
        .split(' ')
        .filter(Boolean)
        .map(Number),
    ended,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), deadlineMs)
      await ended
      clearTimeout(timer)
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}
