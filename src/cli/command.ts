import type { Command } from 'commander'
import type { Output } from '#cli/output.ts'
import type { Config, ConfigReading } from '#config/config.ts'
import type { Assembly, Site, OpenSiteOptions } from '#node/site.ts'

/** Everything that a command works with. */
export type Context = {
  readonly config: Config
  /** The configuration as given; it has problems only for actions that accept them. */
  readonly reading: ConfigReading
  readonly output: Output
  readonly assembly: Assembly
  /**
   * Aborts on the first SIGINT or SIGTERM: the command then finishes its current step, reports and
   * ends. The second signal ends the process.
   */
  readonly signal: AbortSignal
  /** Opens the site for `work` and closes it afterwards, also when `work` fails. */
  readonly withSite: <T>(work: (site: Site) => Promise<T>, options?: OpenSiteOptions) => Promise<T>
}

/**
 * Adds one command to the program. `action` gives its handler a Context and turns errors into an
 * exit status: 0 done; 1 failed; 2 the command line or the configuration is wrong; 3 done in part
 * (a report lists the rest); 130 interrupted. A handler returns the status, or nothing for 0.
 */
export type Register = (program: Command, action: Action) => void

export type CommandOptions = Readonly<Record<string, unknown>>

export type Handler = (
  context: Context,
  args: readonly string[],
  options: CommandOptions,
) => Promise<number | void>

export type ActionRules = {
  /** The handler also runs with a configuration that has problems. */
  readonly invalidConfig?: boolean
}

export type Action = (
  handler: Handler,
  rules?: ActionRules,
) => (...args: unknown[]) => Promise<void>
