import { readFile } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { runCommandLine } from '#cli/program.ts'
import type { Assembly } from '#node/site.ts'

const manifest = new URL('../package.json', import.meta.url)

/** Loads the node itself only for commands that need it: the others answer at once. */
const assembly: Assembly = {
  openSite: async (config) => (await import('#node/start.ts')).openSiteForCommand(config),
  openCluster: async (config) => (await import('#node/cluster-access.ts')).openCluster(config),
  runNode: async (config, signal) => (await import('#node/start.ts')).runNode(config, signal),
  runNodes: async (config, count, signal) =>
    (await import('#supervisor/supervisor.ts')).superviseNodes(config, count, signal),
}

/** Runs one command line in this process; the exit status is set when everything has ended. */
export async function main(argv: readonly string[]): Promise<void> {
  const stopping = new AbortController()
  const onSignal = (signal: NodeJS.Signals): void => {
    // The second signal is impatient: what was acknowledged is safe, so ending at once loses
    // nothing.
    if (stopping.signal.aborted) process.exit(signal === 'SIGINT' ? 130 : 143)
    stopping.abort()
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  let lost: Error | null = null
  // `stoa … | head`, or a window that was closed: whoever read the output has seen enough, and the
  // work goes on to its end without them.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') lost = error
  })
  // There is nobody left to tell.
  process.stderr.on('error', () => undefined)
  const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string }
  const on = {
    environment: process.env,
    folder: process.cwd(),
    stdout: process.stdout,
    stderr: process.stderr,
    version,
  }
  process.exitCode = await runCommandLine(argv, assembly, on, stopping.signal)
  // What could not be written is told a moment after.
  await setImmediate()
  if (lost !== null) complain(lost)
  process.off('SIGINT', onSignal)
  process.off('SIGTERM', onSignal)
}

/** The result is lost, for example to a full disk. */
function complain({ message }: Error): void {
  process.stderr.write(`stoa: The output could not be written: ${message}.\n`)
  if (process.exitCode === 0) process.exitCode = 1
}
