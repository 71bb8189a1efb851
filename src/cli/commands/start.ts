import type { Register } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'

const nodesMax = 64

/** `stoa start`: runs a node in this process, or several node processes behind one port. */
export const registerStart: Register = (program, action) => {
  program
    .command('start')
    .description(
      'start a node: the API, the pages and, without STOA_DATABASE_URL, an embedded PostgreSQL',
    )
    .option(
      '--nodes <count>',
      'run this many nodes on this machine behind one port; SIGHUP restarts them one by one',
    )
    .action(
      action(async ({ assembly, config, signal }, _args, options) => {
        const count = options['nodes']
        if (count === undefined) await assembly.runNode(config, signal)
        else await assembly.runNodes(config, parseCount(count), signal)
      }),
    )
}

function parseCount(given: unknown): number {
  const count = typeof given === 'string' && /^\d{1,3}$/.test(given) ? Number(given) : Number.NaN
  if (!(count >= 1 && count <= nodesMax))
    throw new UsageError(`--nodes must be a whole number from 1 to ${nodesMax}.`)
  return count
}
