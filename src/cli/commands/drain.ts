import { setTimeout as sleep } from 'node:timers/promises'
import type { CommandOptions, Context, Register } from '#cli/command.ts'
import { UsageError } from '#lib/usage-error.ts'
import { askToDrain, whereabouts } from '#nodes/cluster-status.ts'
import { DrainDeadlineError, NodeNotFoundError } from '#nodes/errors.ts'

const timeoutDefaultS = 120
const timeoutMaxS = 86_400
const pollIntervalMs = 250

/** `stoa drain NODE`: asks a node to finish and leave, and waits until it has left. */
export const registerDrain: Register = (program, action) => {
  program
    .command('drain <node>')
    .description('ask a node, by name or id, to finish its requests and leave; wait until it has')
    .option(
      '--timeout <seconds>',
      `how long to wait; the node keeps draining after that (default: ${timeoutDefaultS})`,
    )
    .action(action(drain))
}

async function drain(
  { assembly, config, output, signal }: Context,
  [node = '']: readonly string[],
  options: CommandOptions,
): Promise<number> {
  const timeoutS = parseTimeout(options['timeout'])
  await using cluster = await assembly.openCluster(config)
  if (cluster === null) throw new NodeNotFoundError('No node runs on this database.', { node })
  const asked = await askToDrain(cluster.database, node)
  output.line(`${asked.name} was asked to drain.`)
  const startedMs = performance.now()
  for (;;) {
    const outcome = await whereabouts(cluster.database, asked.id)
    const elapsedMs = performance.now() - startedMs
    if (outcome !== 'there') {
      const seconds = Math.round(elapsedMs / 100) / 10
      output.result({ ...asked, outcome, seconds })
      output.line(
        outcome === 'left'
          ? `${asked.name} has left after ${seconds} s.`
          : `${asked.name} has gone silent: it did not leave in order.`,
      )
      return outcome === 'left' ? 0 : 1
    }
    if (signal.aborted) return 130
    if (elapsedMs > timeoutS * 1_000)
      throw new DrainDeadlineError(
        `${asked.name} has not left within ${timeoutS} s; it keeps draining.`,
        asked,
      )
    await sleep(pollIntervalMs)
  }
}

function parseTimeout(given: unknown): number {
  if (given === undefined) return timeoutDefaultS
  const seconds = typeof given === 'string' && /^\d{1,5}$/.test(given) ? Number(given) : Number.NaN
  if (!(seconds >= 1 && seconds <= timeoutMaxS))
    throw new UsageError(`--timeout must be a whole number of seconds from 1 to ${timeoutMaxS}.`)
  return seconds
}
