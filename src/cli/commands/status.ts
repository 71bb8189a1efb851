import { setTimeout as sleep } from 'node:timers/promises'
import type { Context, Register } from '#cli/command.ts'
import type { Output } from '#cli/output.ts'
import type { Config } from '#config/config.ts'
import { DatabaseTimeoutError, DatabaseUnavailableError } from '#database/errors.ts'
import { jobTotals, parkedProblem } from '#jobs/job-admin.ts'
import type { JobTotals } from '#jobs/job-admin.ts'
import type { StoaError } from '#lib/stoa-error.ts'
import type { ClusterAccess } from '#node/site.ts'
import { clusterStatus, partNames, statusMethod } from '#nodes/cluster-status.ts'
import type { ClusterStatus, NodeStatus, PartName, PartReports } from '#nodes/cluster-status.ts'

const callTimeoutMs = 2_500
/** A database that is away is reported after this, whatever the timeout of the nodes is. */
const databaseTimeoutMs = 1_500
/** A node takes up to 2 s to find out that its database does not respond. */
const localTimeoutMs = 2_500
const watchIntervalMs = 2_000
const clearScreen = '\u001b[H\u001b[2J'

/**
 * `stoa status`: the nodes in the database, and the report of each live one. It runs on any machine
 * that has the configuration, and without the database it shows the node of this machine.
 */
export const registerStatus: Register = (program, action) => {
  program
    .command('status')
    .description('list the nodes with their addresses, leaderships and health')
    .option('--watch', 'repeat until interrupted')
    .addHelpText('after', '\nExit status: 0 done; 1 the database cannot be reached.')
    .action(
      action(async (context, _args, options) => {
        if (options['watch'] === true) return watch(context)
        try {
          await using cluster = await openQuickly(context)
          printStatus(context.output, await readStatus(cluster))
          return 0
        } catch (error) {
          if (!isAway(error)) throw error
          await printProblem(context, error)
          return 1
        }
      }),
    )
}

function isAway(error: unknown): error is DatabaseUnavailableError | DatabaseTimeoutError {
  return error instanceof DatabaseUnavailableError || error instanceof DatabaseTimeoutError
}

function openQuickly({ assembly, config }: Context): Promise<ClusterAccess | null> {
  const timeoutMs = Math.min(config.databaseTimeoutMs, databaseTimeoutMs)
  return assembly.openCluster({ ...config, databaseTimeoutMs: timeoutMs })
}

type Status = ClusterStatus & { readonly jobs: JobTotals | null }

async function readStatus(cluster: ClusterAccess | null): Promise<Status> {
  if (cluster === null) return { nodes: [], degraded: [], jobs: null }
  const { database } = cluster
  const [status, jobs] = await Promise.all([
    clusterStatus(database, () => cluster.ask(statusMethod, { deadlineMs: callTimeoutMs })),
    jobTotals(database),
  ])
  const problems = jobs === null ? [] : parkedProblem(jobs)
  return { ...status, degraded: [...status.degraded, ...problems], jobs }
}

/** Repeats also while the database is away: that is when one watches. */
async function watch(context: Context): Promise<void> {
  const { output } = context
  // The command also ends with the reader of its output: `stoa status --watch | head`.
  const unread = new AbortController()
  process.stdout.once('error', () => unread.abort())
  const signal = AbortSignal.any([context.signal, unread.signal])
  let cluster: ClusterAccess | null = null
  try {
    while (!signal.aborted) {
      try {
        cluster ??= await openQuickly(context)
        const status = await readStatus(cluster)
        clear(output)
        printStatus(output, status)
      } catch (error) {
        if (!isAway(error)) throw error
        clear(output)
        await printProblem(context, error)
        // The next try finds the nodes anew, as those of an embedded database that was restarted.
        await cluster?.[Symbol.asyncDispose]()
        cluster = null
      }
      await sleep(watchIntervalMs, undefined, { signal }).catch(() => {
        // An interrupt is the way to end the command.
      })
    }
  } finally {
    await cluster?.[Symbol.asyncDispose]()
  }
}

function clear({ json }: Output): void {
  if (process.stdout.isTTY && !json) process.stdout.write(clearScreen)
}

type LocalNode = { readonly url: string; readonly state: string }

async function printProblem(
  { assembly, output, config }: Context,
  error: StoaError,
): Promise<void> {
  const [local, parts] = await Promise.all([
    readLocalNode(config),
    assembly.partsFromHere({ ...config, databaseTimeoutMs }),
  ])
  output.result({ problem: { code: error.code, message: error.message }, local, parts })
  output.line(`! ${error.message} (${error.code})`)
  for (const line of partLines([{ name: 'this machine', parts }])) output.line(line)
  output.line(
    local === null
      ? `No node responds on this machine at ${localUrl(config)}.`
      : `The node on this machine, ${local.url}: ${local.state}`,
  )
}

function localUrl({ host, port }: Config): string {
  const address = host === '0.0.0.0' || host === '::' ? 'localhost' : host
  return `http://${address.includes(':') ? `[${address}]` : address}:${port}`
}

type Readiness = {
  readonly detail?: string
  readonly parts?: Readonly<Record<string, { readonly state: string; readonly detail: string }>>
}

/** The readiness of the node on this machine, which needs no database; null: there is none. */
async function readLocalNode(config: Config): Promise<LocalNode | null> {
  const url = localUrl(config)
  try {
    const signal = AbortSignal.timeout(localTimeoutMs)
    const response = await fetch(`${url}/healthz/ready`, { signal })
    const { detail, parts = {} } = (await response.json()) as Readiness
    const states = Object.entries(parts).map(([name, part]) => `${name} ${part.detail}`)
    const ready = response.ok ? 'ready' : 'not ready'
    return { url, state: `${ready}; ${response.ok ? states.join(', ') : (detail ?? '')}` }
  } catch {
    return null
  }
}

function printStatus(output: Output, status: Status): void {
  output.result(status)
  if (status.nodes.length === 0) {
    output.line('No node runs on this database.')
    return
  }
  output.table([
    ['NODE', 'ADDRESS', 'STATE', 'VERSION', 'UP', 'LAG', 'HITS', 'CACHED', 'LEADS'],
    ...status.nodes.map(rowOf),
  ])
  const seen = status.nodes.flatMap(({ name, report }) =>
    report === null ? [] : [{ name, parts: report.parts }],
  )
  for (const line of partLines(seen)) output.line(line)
  if (status.jobs !== null) {
    const { waiting, running, parked } = status.jobs
    output.line(`jobs: ${waiting} waiting, ${running} running, ${parked} parked`)
  }
  for (const line of status.degraded) output.line(`! ${line}`)
}

function rowOf({ name, address, report, duties, ...node }: NodeStatus): string[] {
  const cache = report?.cache ?? null
  const lagMs = report?.feedLagMs ?? null
  const hitRate = cache?.hitRate ?? null
  return [
    name,
    address ?? '–',
    node.state === 'silent' ? `silent ${duration(node.seenMsAgo)}` : node.state,
    node.version,
    duration(Date.now() - Date.parse(node.startedAt)),
    lagMs === null ? '–' : `${Math.round(lagMs)} ms`,
    hitRate === null ? '–' : `${(hitRate * 100).toFixed(1)} %`,
    cache === null ? '–' : `${cache.entries} (${(cache.bytes / 1_048_576).toFixed(1)} MiB)`,
    duties.join(' ') || '–',
  ]
}

const partLabels: Readonly<Record<PartName, string>> = {
  database: 'database',
  standby: 'standby for reads',
  link: 'Cluster Link',
  secondLevel: 'second cache level',
  fileStore: 'file store',
}

type SeenParts = { readonly name: string; readonly parts: PartReports }

/** One line for each service: up, or where it is down; then its addresses and versions. */
function partLines(places: readonly SeenParts[]): string[] {
  if (places.length === 0) return []
  return partNames.map((part) => {
    const reports = places.flatMap(({ name, parts }) => {
      const one = parts[part] ?? null
      return one === null ? [] : [{ name, ...one }]
    })
    if (reports.length === 0) return `${partLabels[part]}: not configured`
    const down = reports.filter(({ state }) => state === 'down').map(({ name }) => name)
    const versions = different(reports.map(({ version }) => version))
    const facts = [
      down.length === 0 ? 'up' : `down on ${down.join(', ')}`,
      ...different(reports.map(({ address }) => address)),
      ...(versions.length === 0 ? [] : [`version ${versions.join(' and ')}`]),
    ]
    return `${partLabels[part]}: ${facts.join('; ')}`
  })
}

function different(texts: readonly (string | null)[]): string[] {
  return [...new Set(texts.filter((text) => text !== null))]
}

function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000))
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`
  return `${Math.round(seconds / 86_400)} d`
}
