import { setTimeout as sleep } from 'node:timers/promises'
import type { Context, Register } from '#cli/command.ts'
import type { Output } from '#cli/output.ts'
import type { ClusterAccess } from '#node/site.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { clusterStatus, statusMethod } from '#nodes/cluster-status.ts'
import type { ClusterStatus, NodeStatus } from '#nodes/cluster-status.ts'

const askDeadlineMs = 2_500
const watchIntervalMs = 2_000
const clearScreen = '\u001b[H\u001b[2J'

/**
 * `stoa status`: the nodes, by the database's word and their own, from any machine that has the
 * configuration.
 */
export const registerStatus: Register = (program, action) => {
  program
    .command('status')
    .description('show the nodes: where they are, what they lead, how they are')
    .option('--watch', 'go on showing it until interrupted')
    .action(
      action(async (context, _args, options) => {
        if (options['watch'] === true) return watch(context)
        await using cluster = await context.assembly.openCluster(context.config)
        show(context, await look(cluster))
      }),
    )
}

async function look(cluster: ClusterAccess | null): Promise<ClusterStatus> {
  return cluster === null
    ? { nodes: [], degraded: [] }
    : clusterStatus(cluster.database, async () =>
        cluster.ask(statusMethod, { deadlineMs: askDeadlineMs }),
      )
}

/** Once it has seen the nodes it goes on through whatever happens: that is what one watches for. */
async function watch(context: Context): Promise<void> {
  const { output, assembly, config } = context
  // It ends with its reader too: `stoa status --watch | head`.
  const unread = new AbortController()
  process.stdout.once('error', () => unread.abort())
  const signal = AbortSignal.any([context.signal, unread.signal])
  let cluster: ClusterAccess | null = null
  let seen = false
  try {
    while (!signal.aborted) {
      try {
        cluster ??= await assembly.openCluster(config)
        const status = await look(cluster)
        clear(output)
        show(context, status)
        seen = true
      } catch (error) {
        if (!seen || !(error instanceof StoaError)) throw error
        clear(output)
        output.result({ problem: { code: error.code, message: error.message } })
        output.line(`! ${error.message}`)
        // An embedded database comes back elsewhere.
        await cluster?.[Symbol.asyncDispose]()
        cluster = null
      }
      await sleep(watchIntervalMs, undefined, { signal }).catch(() => {
        // Interrupted: that is the way to end it.
      })
    }
  } finally {
    await cluster?.[Symbol.asyncDispose]()
  }
}

function clear({ json }: Output): void {
  if (process.stdout.isTTY && !json) process.stdout.write(clearScreen)
}

function show({ output }: Context, status: ClusterStatus): void {
  output.result(status)
  if (status.nodes.length === 0) {
    output.line('No node runs on this database.')
    return
  }
  output.table([
    ['NODE', 'ADDRESS', 'STATE', 'VERSION', 'UP', 'LAG', 'HITS', 'CACHED', 'LEADS'],
    ...status.nodes.map(rowOf),
  ])
  for (const line of status.degraded) output.line(`! ${line}`)
}

function rowOf({
  name,
  address,
  state,
  version,
  startedAt,
  report,
  duties,
  seenMsAgo,
}: NodeStatus): string[] {
  const cache = report?.cache ?? null
  return [
    name,
    address ?? '–',
    state === 'silent' ? `silent ${duration(seenMsAgo)}` : state,
    version,
    duration(Date.now() - Date.parse(startedAt)),
    report?.feedLagMs === null || report === null ? '–' : `${Math.round(report.feedLagMs)} ms`,
    cache === null || cache.hitRate === null ? '–' : `${(cache.hitRate * 100).toFixed(1)} %`,
    cache === null ? '–' : `${cache.entries} (${(cache.bytes / 1_048_576).toFixed(1)} MiB)`,
    duties.join(' ') || '–',
  ]
}

function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000))
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800
    ? `${Math.round(seconds / 3_600)} h`
    : `${Math.round(seconds / 86_400)} d`
}
