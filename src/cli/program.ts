import { Command, Option } from 'commander'
import type { Action, Context, Register } from '#cli/command.ts'
import { createOutput } from '#cli/output.ts'
import { hidePassword, loadConfig, requireValid, settingNames } from '#config/config.ts'
import type { ConfigReading } from '#config/config.ts'
import { ConfigError } from '#config/errors.ts'
import type { SettingName } from '#config/settings.ts'
import { settings } from '#config/settings.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { UsageError } from '#lib/usage-error.ts'
import type { Assembly } from '#node/site.ts'

/**
 * Every command in the order of `stoa --help`, with its module. Modules are loaded on demand, so
 * that a starting node does not load the importers.
 */
const commands: Readonly<Record<string, () => Promise<Register>>> = {
  start: async () => (await import('#cli/commands/start.ts')).registerStart,
  status: async () => (await import('#cli/commands/status.ts')).registerStatus,
  doctor: async () => (await import('#cli/commands/doctor.ts')).registerDoctor,
  jobs: async () => (await import('#cli/commands/jobs.ts')).registerJobs,
  drain: async () => (await import('#cli/commands/drain.ts')).registerDrain,
  'http-cache': async () => (await import('#cli/commands/http-cache.ts')).registerHttpCache,
  config: async () => (await import('#cli/commands/config.ts')).registerConfig,
  import: async () => (await import('#cli/commands/import.ts')).registerImport,
  export: async () => (await import('#cli/commands/export.ts')).registerExport,
  files: async () => (await import('#cli/commands/files.ts')).registerFiles,
  search: async () => (await import('#cli/commands/search.ts')).registerSearch,
  types: async () => (await import('#cli/commands/content-types.ts')).registerTypes,
  user: async () => (await import('#cli/commands/user.ts')).registerUser,
  token: async () => (await import('#cli/commands/token.ts')).registerToken,
}

/** Width of the help where standard output is no terminal. */
const helpColumns = 80

export type CommandLine = {
  readonly argv: readonly string[]
  readonly assembly: Assembly
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly folder: string
  /** `columns` is the width of the terminal; undefined where there is none. */
  readonly stdout: NodeJS.WritableStream & { readonly columns?: number }
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean }
  readonly version: string
  readonly signal: AbortSignal
}

/**
 * Runs one command line to its end and returns its exit status; `Register` in command.ts says what
 * each status means.
 */
export async function runCommandLine(line: CommandLine): Promise<number> {
  const { argv, signal } = line
  let status = 0
  let databaseUrl: string | null = null
  const program = createProgram(line)
  const action: Action =
    (handler, { invalidConfig = false } = {}) =>
    async (...raw) => {
      const command = raw.at(-1) as Command
      const global = program.opts<Record<string, unknown>>()
      const reading = await loadConfig(flagsOf(global), line.environment, line.folder)
      databaseUrl = reading.config.databaseUrl
      if (!invalidConfig) requireValid(reading)
      const context = contextOf(line, reading, global['json'] === true)
      // Commander gives an option that both `import` and `import markdown` have to the upper
      // command, so the handler needs the options of both.
      const args = command.processedArgs.flat() as string[]
      status = (await handler(context, args, command.optsWithGlobals())) ?? 0
    }
  for (const register of await commandsFor(argv)) register(program, action)

  try {
    await program.parseAsync(argv, { from: 'user' })
    return signal.aborted && status !== 0 ? 130 : status
  } catch (error) {
    return reportError(error, line, databaseUrl)
  }
}

function createProgram(line: CommandLine): Command {
  const program = new Command('stoa')
    .description('Stoa, a content platform that stands on many nodes.')
    .option('--json', 'print the result as one JSON document on standard output')
    .version(line.version)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void line.stdout.write(text),
      writeErr: (text) => void line.stderr.write(text),
      getOutHelpWidth: () => line.stdout.columns ?? helpColumns,
    })
    .showSuggestionAfterError()
  for (const name of settingNames) {
    program.addOption(new Option(`${settings[name].flag} <value>`, settings[name].help).hideHelp())
  }
  return program.addHelpText(
    'after',
    '\nEvery setting is also a flag, before or after the command; ' +
      '"stoa config --help-texts" lists them.',
  )
}

/**
 * The commands that the command line may mean: those that it names, or all of them where it asks
 * for help or names none.
 */
async function commandsFor(argv: readonly string[]): Promise<Register[]> {
  const named = Object.keys(commands).filter((name) => argv.includes(name))
  const all = named.length === 0 || ['help', '-h', '--help'].some((word) => argv.includes(word))
  return Promise.all((all ? Object.keys(commands) : named).map((name) => commands[name]!()))
}

function flagsOf(options: Readonly<Record<string, unknown>>): Partial<Record<SettingName, string>> {
  const flags: Partial<Record<SettingName, string>> = {}
  for (const name of settingNames) {
    const value = options[name]
    if (typeof value === 'string') flags[name] = value
  }
  return flags
}

function contextOf(line: CommandLine, reading: ConfigReading, json: boolean): Context {
  const { assembly, signal, stdout, stderr } = line
  return {
    config: reading.config,
    reading,
    assembly,
    signal,
    output: createOutput({ json, stdout, stderr }),
    withSite: async (work, options) => {
      await using site = await assembly.openSite(reading.config, options)
      return await work(site)
    },
  }
}

/** Writes the error for people and returns the exit status. */
function reportError(error: unknown, { stderr }: CommandLine, databaseUrl: string | null): number {
  // Commander has already printed its own errors, and throws for --help with status 0.
  if (error instanceof Error && 'exitCode' in error && typeof error.exitCode === 'number')
    return error.exitCode === 0 ? 0 : 2
  if (error instanceof StoaError) {
    const url =
      error instanceof DatabaseUnavailableError && databaseUrl !== null
        ? ` The database is ${hidePassword(databaseUrl)}; "stoa config" shows where that was set.`
        : ''
    stderr.write(`stoa: ${error.message}${url} (${error.code})\n`)
    return error instanceof ConfigError || error instanceof UsageError ? 2 : 1
  }
  const trace = error instanceof Error ? (error.stack ?? error.message) : String(error)
  stderr.write(`stoa: this is a defect, please report it:\n${trace}\n`)
  return 1
}
