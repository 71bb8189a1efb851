import type { Context, Register } from '#cli/command.ts'
import type { Output } from '#cli/output.ts'
import type { Database } from '#database/database.ts'
import { JobNotFoundError } from '#jobs/errors.ts'
import { cancelJob, jobStates, listJobs, readJob, retryJob } from '#jobs/job-admin.ts'
import type { JobState, JobView } from '#jobs/job-admin.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import { UsageError } from '#lib/usage-error.ts'

const listedDefault = 50
const listedMax = 1_000

/** `stoa jobs list|show|retry|cancel`. */
export const registerJobs: Register = (program, action) => {
  const jobs = program
    .command('jobs')
    .description('durable work of the cluster, and what is parked')
  jobs
    .command('list')
    .description('list jobs, the newest first')
    .option('--state <state>', `one of ${jobStates.join(', ')}`)
    .option('--kind <kind>', 'jobs of one kind')
    .option('--limit <count>', `at most so many (default: ${listedDefault})`)
    .action(
      action(async (context, _args, options) =>
        withDatabase(context, async (database) => {
          const found = await listJobs(database, {
            state: stateFrom(options['state']),
            kind: typeof options['kind'] === 'string' ? options['kind'] : null,
            after: null,
            limit: limitFrom(options['limit']),
          })
          context.output.result({ jobs: found })
          context.output.table([
            ['ID', 'KIND', 'STATE', 'ATTEMPT', 'DUE', 'NODE', 'FAILURE'],
            ...found.map(rowOf),
          ])
        }),
      ),
    )
  const one = (
    verb: 'show' | 'retry' | 'cancel',
    description: string,
    work: (database: Database, id: string) => Promise<JobView>,
  ): void => {
    jobs
      .command(`${verb} <id>`)
      .description(description)
      .action(
        action(async (context, [id = '']) =>
          withDatabase(context, async (database) =>
            printJob(context.output, await work(database, id)),
          ),
        ),
      )
  }
  const queue = new JobQueue(null)
  one('show', 'show one job', readJob)
  one('retry', 'make a parked or waiting job due now, with all its attempts anew', (database, id) =>
    retryJob(database, queue, id),
  )
  one('cancel', 'cancel a job: nothing of it commits from now on', (database, id) =>
    cancelJob(database, queue, id),
  )
}

/** Jobs that a command frees are found by the nodes within seconds. */
async function withDatabase(
  { assembly, config }: Context,
  work: (database: Database) => Promise<void>,
): Promise<void> {
  await using cluster = await assembly.openCluster(config)
  if (cluster === null) throw new JobNotFoundError('No node has run on this database yet.', {})
  await work(cluster.database)
}

function printJob(output: Output, job: JobView): void {
  output.result(job)
  for (const [name, value] of Object.entries(job))
    if (value !== null)
      output.line(`${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`)
}

function rowOf({ id, kind, state, attempt, dueAt, node, failure }: JobView): string[] {
  return [
    id,
    kind,
    state,
    String(attempt),
    dueAt,
    node ?? '–',
    failure === null ? '' : `${failure.message} (${failure.code})`,
  ]
}

function stateFrom(given: unknown): JobState | null {
  if (given === undefined) return null
  const state = jobStates.find((one) => one === given)
  if (state === undefined) throw new UsageError(`--state must be one of ${jobStates.join(', ')}.`)
  return state
}

function limitFrom(given: unknown): number {
  if (given === undefined) return listedDefault
  const limit = typeof given === 'string' && /^\d{1,4}$/.test(given) ? Number(given) : Number.NaN
  if (!(limit >= 1 && limit <= listedMax))
    throw new UsageError(`--limit must be a whole number from 1 to ${listedMax}.`)
  return limit
}
