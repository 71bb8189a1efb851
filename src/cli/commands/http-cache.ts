import type { CommandOptions, Context, Register } from '#cli/command.ts'
import { graceSDefault, varnishVcl } from '#http-cache/varnish-vcl.ts'
import { UsageError } from '#lib/usage-error.ts'

const graceMaxS = 86_400
const nodesMax = 100

/** `stoa http-cache vcl`: what a Varnish in front of the nodes needs. */
export const registerHttpCache: Register = (program, action) => {
  const command = program
    .command('http-cache')
    .description('the shared cache in front of the nodes, which STOA_HTTP_CACHE_URL names')
  command
    .command('vcl')
    .description('print the VCL of a Varnish in front of the nodes; it has the key that purges')
    .option(
      '--backend <host:port...>',
      'the address of a node, as Varnish reaches it; several times',
    )
    .option(
      '--grace <seconds>',
      `how long to serve what was kept while no node responds (default: ${graceSDefault})`,
    )
    .action(action(printVcl))
}

async function printVcl(
  { withSite, output, config }: Context,
  _args: readonly string[],
  options: CommandOptions,
): Promise<void> {
  const nodes = nodesIn(options['backend'], config.port)
  const graceS = graceIn(options['grace'])
  await withSite(async ({ purgeKey }) => {
    const vcl = varnishVcl({ nodes, purgeKey, graceS })
    output.result({ vcl })
    output.line(vcl.trimEnd())
  })
}

function nodesIn(given: unknown, port: number): readonly string[] {
  const nodes = Array.isArray(given) ? (given as string[]) : [`127.0.0.1:${port}`]
  if (nodes.length > nodesMax) throw new UsageError(`--backend can be used ${nodesMax} times.`)
  for (const node of nodes)
    if (!/^(?:[\w.-]+|\[[\da-f:]+\]):\d{1,5}$/i.test(node))
      throw new UsageError('--backend must be a host and a port, such as 10.0.0.1:4000.')
  return nodes
}

function graceIn(given: unknown): number {
  if (given === undefined) return graceSDefault
  const seconds = typeof given === 'string' && /^\d{1,6}$/.test(given) ? Number(given) : Number.NaN
  if (!(seconds <= graceMaxS))
    throw new UsageError(`--grace must be a whole number of seconds from 0 to ${graceMaxS}.`)
  return seconds
}
