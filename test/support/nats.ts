import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createConnection } from 'node:net'
import { freePort } from '#test/support/database.ts'

function missing(): string | false {
  try {
    execFileSync('nats-server', ['--version'], { stdio: 'ignore' })
    return false
  } catch {
    return 'no NATS here: install the package nats-server'
  }
}

/** The reason why tests with NATS cannot run here, or false. */
export const natsMissing: string | false = missing()

export type TestNats = AsyncDisposable & {
  readonly url: string
  readonly port: number
  /** Where other servers of its NATS cluster connect to. */
  readonly route: string
  start(): Promise<void>
  kill(): Promise<void>
  hang(): void
  goOn(): void
}

const readyWithinMs = 10_000

/** A throw-away NATS on loopback. `settings`: more arguments of its command line. */
export async function startTestNats(settings: readonly string[] = []): Promise<TestNats> {
  const [port, routePort] = [await freePort(), await freePort()]
  const route = `nats://127.0.0.1:${routePort}`
  const args = ['-a', '127.0.0.1', '-p', String(port), '--cluster_name', 'test']
  let child: ChildProcess | null = null
  const kill = async (): Promise<void> => {
    const running = child
    child = null
    if (running === null) return
    const ended = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGKILL')
    await ended
  }
  const start = async (): Promise<void> => {
    child = spawn('nats-server', [...args, '--cluster', route, ...settings], { stdio: 'ignore' })
    const deadline = Date.now() + readyWithinMs
    while (!(await accepts(port))) {
      if (Date.now() > deadline) throw new Error('nats-server accepts no connections')
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  await start()
  return {
    url: `nats://127.0.0.1:${port}`,
    port,
    route,
    start,
    kill,
    hang: () => void child?.kill('SIGSTOP'),
    goOn: () => void child?.kill('SIGCONT'),
    [Symbol.asyncDispose]: kill,
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
