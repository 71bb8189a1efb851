import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ClusterParts } from '#api/api-context.ts'
import { setTokenHeader } from '#api/writes/token-header.ts'
import { waitForAllNodes } from '#api/writes/receipts.ts'

const reads: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])
/**
 * Past this a write is answered although this node has not applied it yet: the token will see to
 * it.
 */
const settleMs = 500

/**
 * The `onSend` hook of writes. The response goes out when this node itself has applied the write, so
 * that whoever stays with it reads their own writes without a token; on other nodes, the token does
 * it. With `Prefer: wait=cluster` it goes out when no node can answer from before the write any
 * more.
 */
export function tokenHook(
  cluster: ClusterParts,
): (request: FastifyRequest, reply: FastifyReply, payload: unknown) => Promise<unknown> {
  const { feed } = cluster
  return async (request, reply, payload) => {
    if (reads.has(request.method) || reply.statusCode >= 400) return payload
    const settled = await feed.settle(settleMs)
    const { epoch, cursor } = feed.state
    const token =
      epoch !== null && cursor !== null
        ? (request.writes?.token({ epoch, xmax: cursor.xmax, settled }) ?? null)
        : null
    if (token === null) return payload
    setTokenHeader(request, reply, token)
    if (waitsForCluster(request)) {
      await waitForAllNodes(cluster, token)
      reply.header('preference-applied', 'wait=cluster')
    }
    return payload
  }
}

function waitsForCluster({ headers: { prefer } }: FastifyRequest): boolean {
  return (
    prefer !== undefined &&
    [prefer]
      .flat()
      .some((text) => text.split(',').some((one) => one.trim().toLowerCase() === 'wait=cluster'))
  )
}
