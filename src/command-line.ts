import { readFile } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { runCommandLine } from '#cli/program.ts'
import type { Assembly } from '#node/site.ts'

const manifest = new URL('../package.json', import.meta.url)

/** Loads the node only for the commands that need it, so that the others start quickly. */
const assembly: Assembly = {
  openSite: async (config, options) =>
    (await import('#node/start.ts')).openSiteForCommand(config, options),
  openFiles: async (config) => (await import('#node/start.ts')).openFilesForCommand(config),
  openCluster: async (config) => (await import('#node/cluster-access.ts')).openCluster(config),
  diagnose: async (config) => (await import('#node/doctor.ts')).diagnoseFromOutside(config),
  partsFromHere: async (config) => (await import('#node/parts.ts')).partsFromHere(config),
  runNode: async (config, signal) => (await import('#node/start.ts')).runNode(config, signal),
  runNodes: async (config, count, signal) =>
    (await import('#supervisor/supervisor.ts')).superviseNodes(config, count, signal),
}

/** Runs one command line in this process and sets the exit status at its end. */
export async function main(argv: readonly string[]): Promise<void> {
  const stopping = new AbortController()
  const onSignal = (signal: NodeJS.Signals): void => {
    // A second signal ends the process at once. That loses nothing that was acknowledged.
    if (stopping.signal.aborted) process.exit(signal === 'SIGINT' ? 130 : 143)
    stopping.abort()
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  let writeError: Error | null = null
  // The reader of a pipe (`stoa … | head`) or a closed window takes the output away. The command
  // still runs to its end.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') writeError = error
  })
  // An error on standard error cannot be reported anywhere.
  process.stderr.on('error', () => undefined)
  const { version } = JSON.parse(await readFile(manifest, 'utf8')) as { version: string }
  process.exitCode = await runCommandLine({
    argv,
    assembly,
    environment: process.env,
    folder: process.cwd(),
    stdout: process.stdout,
    stderr: process.stderr,
    version,
    signal: stopping.signal,
  })
  // The error of a write is emitted a moment after the write.
  await setImmediate()
  if (writeError !== null) reportLostOutput(writeError)
  process.off('SIGINT', onSignal)
  process.off('SIGTERM', onSignal)
}

/** Reports that the result was lost, for example to a full disk. */
function reportLostOutput({ message }: Error): void {
  process.stderr.write(`stoa: The output could not be written: ${message}.\n`)
  if (process.exitCode === 0) process.exitCode = 1
}
