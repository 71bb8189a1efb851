import type { Command } from 'commander'
import type { Config } from '#config/config.ts'
import type { Output } from '#cli/output.ts'
import type { Assembly, Site } from '#node/site.ts'

/** What every command gets: the configuration, where to speak, and the way to the site. */
export type Context = {
  readonly config: Config
  readonly output: Output
  readonly assembly: Assembly
  /**
   * Aborts on the first SIGINT or SIGTERM: finish what is whole, report, end. The second one ends
   * the process.
   */
  readonly signal: AbortSignal
  /** Opens the site for `work` and closes it after, also when it fails. */
  readonly withSite: <T>(work: (site: Site) => Promise<T>) => Promise<T>
}

/**
 * Adds one verb to the program. `action` wraps a handler so that it runs with a Context and its
 * errors become an exit status: 0 done; 1 failed; 2 the command line or the configuration is wrong;
 * 3 done in part (a report says what was refused); 130 interrupted. A handler returns the status,
 * or nothing for 0.
 */
export type Register = (program: Command, action: Action) => void

export type Handler = (
  context: Context,
  args: readonly string[],
  options: Readonly<Record<string, unknown>>,
) => Promise<number | void>

export type Action = (handler: Handler) => (...args: unknown[]) => Promise<void>
