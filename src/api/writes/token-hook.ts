import type { FastifyReply, FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import type { Server } from '#api/api-context.ts'
import { deadlineError } from '#api/problems/problem.ts'
import { waitForAllNodes } from '#api/writes/receipts.ts'
import { setTokenHeader, tokenToSee } from '#api/writes/token-header.ts'

const reads: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])
/**
 * A node acknowledges a write once it has applied the write itself, so that it never shows an older
 * state afterwards. A write that it cannot see by then is not acknowledged: the client gets a 503
 * and repeats it under the same `Idempotency-Key`.
 */
const applyMs = 10_000

/**
 * The token of each write. The response leaves when this node has applied the write: a client that
 * stays with this node reads its own writes without a token, and on other nodes the token sees to
 * it. With `Prefer: wait=cluster` the response leaves when no node serves the state of before.
 */
export const writeTokens = plugin(
  async (server: Server) => {
    const { cluster } = server.api
    const { feed } = cluster
    server.addHook('onRequest', (request, _reply, done) => {
      if (request.headers['stoa-token'] !== undefined) tokenToSee(request)
      done()
    })
    server.addHook('onSend', async (request, reply, payload) => {
      if (reads.has(request.method) || reply.statusCode >= 400) return payload
      if (!(await feed.settle(applyMs))) {
        for (const name of Object.keys(reply.getHeaders())) reply.removeHeader(name)
        throw deadlineError()
      }
      const { epoch, cursor } = feed.state
      if (epoch === null || cursor === null || request.writes === null) return payload
      const token = request.writes.token({ epoch, xmax: cursor.xmax, settled: true })
      if (token === null) return payload
      setTokenHeader(request, reply, token)
      if (wantsWholeCluster(request)) {
        await waitForAllNodes(cluster, token)
        setApplied(reply)
      }
      return payload
    })
  },
  { name: 'write-tokens' },
)

function setApplied(reply: FastifyReply): void {
  reply.header('preference-applied', 'wait=cluster')
}

function wantsWholeCluster({ headers: { prefer } }: FastifyRequest): boolean {
  const preferences = [prefer ?? []].flat().flatMap((text) => text.split(','))
  return preferences.some((one) => one.trim().toLowerCase() === 'wait=cluster')
}
