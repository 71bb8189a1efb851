import { Command, Option } from 'commander'
import type { Action, Context, Register } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'
import { createOutput } from '#cli/output.ts'
import type { Assembly } from '#node/site.ts'
import { hidePassword, loadConfig, settingNames } from '#config/config.ts'
import type { Config } from '#config/config.ts'
import { ConfigError } from '#config/errors.ts'
import type { SettingName } from '#config/settings.ts'
import { settings } from '#config/settings.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { StoaError } from '#lib/stoa-error.ts'

/**
 * Every verb, in the order of `stoa --help`, and how to load it: a node that starts has no use for
 * the importers.
 */
const verbs: Readonly<Record<string, () => Promise<Register>>> = {
  start: async () => (await import('#cli/commands/start.ts')).registerStart,
  status: async () => (await import('#cli/commands/status.ts')).registerStatus,
  drain: async () => (await import('#cli/commands/drain.ts')).registerDrain,
  config: async () => (await import('#cli/commands/config.ts')).registerConfig,
  import: async () => (await import('#cli/commands/import.ts')).registerImport,
  export: async () => (await import('#cli/commands/export.ts')).registerExport,
  types: async () => (await import('#cli/commands/content-types.ts')).registerTypes,
  user: async () => (await import('#cli/commands/user.ts')).registerUser,
  token: async () => (await import('#cli/commands/token.ts')).registerToken,
}

/** How wide help is where there is no terminal. */
const helpColumns = 80

export type Process = {
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly folder: string
  /** `columns`: the width of the terminal that it is, if it is one. */
  readonly stdout: NodeJS.WritableStream & { readonly columns?: number }
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean }
  readonly version: string
}

/**
 * Runs one command line to its end and returns its exit status; see command.ts for what each means.
 */
export async function runCommandLine(
  argv: readonly string[],
  assembly: Assembly,
  on: Process,
  signal: AbortSignal,
): Promise<number> {
  let status = 0
  let config: Config | null = null
  const program = new Command('stoa')
    .description('Stoa, a content platform that stands on many nodes.')
    .option('--json', 'print the result as one JSON document on standard output')
    .version(on.version)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void on.stdout.write(text),
      writeErr: (text) => void on.stderr.write(text),
      getOutHelpWidth: () => on.stdout.columns ?? helpColumns,
    })
    .showSuggestionAfterError()
  for (const name of settingNames) {
    program.addOption(new Option(`${settings[name].flag} <value>`, settings[name].help).hideHelp())
  }
  program.addHelpText(
    'after',
    '\nEvery setting can be given as a flag, before or after the command; "stoa config --help-texts" lists them.',
  )

  const action: Action =
    (handler) =>
    async (...raw) => {
      const command = raw.at(-1) as Command
      const global = program.opts<Record<string, unknown>>()
      const context = await makeContext(global, assembly, on, signal)
      config = context.config
      // With those of the commands above: commander gives an option that both have, as `import` and
      // `import markdown` do, to the upper one.
      const result = await handler(
        context,
        command.processedArgs.flat() as string[],
        command.optsWithGlobals(),
      )
      status = result ?? 0
    }
  for (const register of await commandsFor(argv)) register(program, action)

  try {
    await program.parseAsync(argv, { from: 'user' })
    return signal.aborted && status !== 0 ? 130 : status
  } catch (error) {
    return complain(error, on, config)
  }
}

/**
 * The verbs that the command line may mean: those it names, or all where it asks for help or names
 * none.
 */
async function commandsFor(argv: readonly string[]): Promise<Register[]> {
  const named = Object.keys(verbs).filter((verb) => argv.includes(verb))
  const all = named.length === 0 || ['help', '-h', '--help'].some((word) => argv.includes(word))
  return Promise.all((all ? Object.keys(verbs) : named).map((verb) => verbs[verb]!()))
}

async function makeContext(
  global: Readonly<Record<string, unknown>>,
  assembly: Assembly,
  on: Process,
  signal: AbortSignal,
): Promise<Context> {
  const flags: Partial<Record<SettingName, string>> = {}
  for (const name of settingNames) {
    const value = global[name]
    if (typeof value === 'string') flags[name] = value
  }
  const config = await loadConfig(flags, on.environment, on.folder)
  return {
    config,
    assembly,
    signal,
    output: createOutput({ json: global['json'] === true, stdout: on.stdout, stderr: on.stderr }),
    withSite: async (work) => {
      await using site = await assembly.openSite(config)
      return await work(site)
    },
  }
}

function complain(error: unknown, on: Process, config: Config | null): number {
  // Commander has already told its own errors, and throws for --help with status 0.
  if (error instanceof Error && 'exitCode' in error && typeof error.exitCode === 'number')
    return error.exitCode === 0 ? 0 : 2
  if (error instanceof StoaError) {
    const which =
      error instanceof DatabaseUnavailableError && config?.databaseUrl
        ? ` The database is ${hidePassword(config.databaseUrl)}; "stoa config" says where that was set.`
        : ''
    on.stderr.write(`stoa: ${error.message}${which} (${error.code})\n`)
    return error instanceof ConfigError || error instanceof UsageError ? 2 : 1
  }
  on.stderr.write(
    `stoa: this is a defect, please report it:\n${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
  )
  return 1
}
