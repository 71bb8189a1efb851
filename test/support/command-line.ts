import assert from 'node:assert/strict'
import { Writable } from 'node:stream'
import { runCommandLine } from '#cli/program.ts'
import type { Assembly } from '#node/site.ts'

/** The result of one command line, as a shell would see it. */
export type Outcome = { readonly status: number; readonly stdout: string; readonly stderr: string }

export type CommandLineOptions = {
  /** Replaces the parts of the assembly that the command may use; the others fail the test. */
  readonly assembly?: Partial<Assembly>
  readonly environment?: Readonly<Record<string, string>>
  readonly folder?: string
  readonly signal?: AbortSignal
}

const unusable: Assembly = {
  openSite: async () => assert.fail('this command needs no site'),
  openFiles: async () => assert.fail('this command needs no files'),
  openCluster: async () => assert.fail('this command needs no cluster'),
  diagnose: async () => assert.fail('this command needs no doctor'),
  partsFromHere: async () => assert.fail('this command needs no parts'),
  runNode: async () => assert.fail('this command needs no node'),
  runNodes: async () => assert.fail('this command needs no nodes'),
}

/** Runs one command line in this process and collects its output. */
export async function runStoa(
  argv: readonly string[],
  options: CommandLineOptions = {},
): Promise<Outcome> {
  const texts = { stdout: '', stderr: '' }
  const sink = (name: 'stdout' | 'stderr'): Writable =>
    new Writable({
      write: (chunk, _encoding, done) => {
        texts[name] += String(chunk)
        done()
      },
    })
  const status = await runCommandLine({
    argv,
    assembly: { ...unusable, ...options.assembly },
    environment: options.environment ?? {},
    folder: options.folder ?? '/nonexistent',
    version: '1.2.3',
    stdout: sink('stdout'),
    stderr: sink('stderr'),
    signal: options.signal ?? new AbortController().signal,
  })
  return { status, ...texts }
}
