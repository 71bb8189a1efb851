import type { Register } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'

const nodesMax = 64

/**
 * `stoa start`: this process becomes a node until it is told to stop, or runs several behind one
 * port.
 */
export const registerStart: Register = (program, action) => {
  program
    .command('start')
    .description(
      'start a node: the API, the page at / and, without STOA_DATABASE_URL, an embedded PostgreSQL',
    )
    .option(
      '--nodes <count>',
      'run so many nodes on this machine behind one port; SIGHUP restarts them one by one',
    )
    .action(
      action(async ({ assembly, config, signal }, _args, options) => {
        const count = options['nodes']
        if (count === undefined) await assembly.runNode(config, signal)
        else await assembly.runNodes(config, countOf(count), signal)
      }),
    )
}

function countOf(given: unknown): number {
  const count = typeof given === 'string' && /^\d{1,3}$/.test(given) ? Number(given) : Number.NaN
  if (!(count >= 1 && count <= nodesMax))
    throw new UsageError(`--nodes is a whole number from 1 to ${nodesMax}.`)
  return count
}
