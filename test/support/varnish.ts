import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '#test/support/database.ts'

const program = ['/usr/sbin/varnishd', '/usr/bin/varnishd'].find((path) => existsSync(path)) ?? null
const hasModules = ['/usr/lib', '/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu'].some(
  (folder) => existsSync(`${folder}/varnish/vmods/libvmod_xkey.so`),
)
const startDeadlineMs = 30_000
const stopDeadlineMs = 5_000

/** The reason why tests with Varnish cannot run here, or false. */
export const varnishMissing: string | false =
  program === null || !hasModules
    ? 'no Varnish here: install the packages varnish, varnish-modules and gcc'
    : false

export type Varnish = AsyncDisposable & {
  readonly host: string
  readonly origin: string
  /** Ends the process, and with it all that was kept. */
  stop(): Promise<void>
  /** On the same port, empty. */
  start(): Promise<void>
}

/** A real varnishd with this VCL, on loopback; it compiles the VCL with gcc first. */
export async function startVarnish(vcl: string, wantedPort?: number): Promise<Varnish> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-varnish-'))
  await chmod(folder, 0o777)
  await writeFile(join(folder, 'stoa.vcl'), vcl)
  const port = wantedPort ?? (await freePort())
  const origin = `http://127.0.0.1:${port}`
  let child: ChildProcess | null = null
  const stop = async (): Promise<void> => {
    const running = child
    child = null
    if (running === null || running.exitCode !== null) return
    const ended = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGTERM')
    const timer = setTimeout(() => running.kill('SIGKILL'), stopDeadlineMs)
    await ended
    clearTimeout(timer)
  }
  const start = async (): Promise<void> => {
    const args =
      `-F -n ${join(folder, 'n')} -a 127.0.0.1:${port} -T none -S none -s malloc,64m ` +
      `-f ${join(folder, 'stoa.vcl')} -p thread_pool_min=10 -j none`
    const begun = spawn(program!, args.split(' '), { stdio: ['ignore', 'pipe', 'pipe'] })
    child = begun
    let output = ''
    begun.stdout.on('data', (chunk) => (output += String(chunk)))
    begun.stderr.on('data', (chunk) => (output += String(chunk)))
    const deadline = Date.now() + startDeadlineMs
    while ((await fetch(origin, { method: 'PURGE' }).catch(() => null)) === null) {
      if (begun.exitCode !== null || Date.now() > deadline)
        throw new Error(`varnishd does not start:\n${output}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  try {
    await start()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    host: `127.0.0.1:${port}`,
    origin,
    start,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
