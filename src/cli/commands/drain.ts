import { setTimeout as sleep } from 'node:timers/promises'
import type { Register } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'
import { askToDrain, whereabouts } from '#nodes/cluster-status.ts'
import { DrainDeadlineError, NodeNotFoundError } from '#nodes/errors.ts'

const timeoutDefaultS = 120
const timeoutMaxS = 86_400
const lookEveryMs = 250

/**
 * `stoa drain NODE`: asks a node to finish and leave, wherever it runs, and waits until it is gone.
 */
export const registerDrain: Register = (program, action) => {
  program
    .command('drain <node>')
    .description(
      'ask a node, by name or id, to finish what it does and leave; waits until it is gone',
    )
    .option(
      '--timeout <seconds>',
      `how long to wait; the node goes on draining after that (default: ${timeoutDefaultS})`,
    )
    .action(
      action(async ({ assembly, config, output, signal }, [node = ''], options) => {
        const timeoutS = timeoutOf(options['timeout'])
        await using cluster = await assembly.openCluster(config)
        if (cluster === null)
          throw new NodeNotFoundError('No node runs on this database.', { node })
        const asked = await askToDrain(cluster.database, node)
        output.line(`${asked.name} was asked to drain.`)
        const began = performance.now()
        for (;;) {
          const where = await whereabouts(cluster.database, asked.id)
          if (where !== 'there') {
            const seconds = Math.round((performance.now() - began) / 100) / 10
            output.result({ ...asked, outcome: where, seconds })
            output.line(
              where === 'left'
                ? `${asked.name} has left after ${seconds} s.`
                : `${asked.name} is not heard of any more: it did not leave in order.`,
            )
            return where === 'left' ? 0 : 1
          }
          if (signal.aborted) return 130
          if (performance.now() - began > timeoutS * 1_000)
            throw new DrainDeadlineError(
              `${asked.name} has not left within ${timeoutS} s; it goes on draining.`,
              asked,
            )
          await sleep(lookEveryMs)
        }
      }),
    )
}

function timeoutOf(given: unknown): number {
  if (given === undefined) return timeoutDefaultS
  const seconds = typeof given === 'string' && /^\d{1,5}$/.test(given) ? Number(given) : Number.NaN
  if (!(seconds >= 1 && seconds <= timeoutMaxS))
    throw new UsageError(`--timeout is a whole number of seconds from 1 to ${timeoutMaxS}.`)
  return seconds
}
