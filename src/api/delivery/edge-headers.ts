import plugin from 'fastify-plugin'
import type { Server } from '#api/api-context.ts'
import { asOfHeader, AsOfText } from '#http-cache/as-of.ts'

const isKeptStatus: ReadonlySet<number> = new Set([200, 206, 304])

/**
 * The headers for the HTTP cache of this site. A response that has tags (`request.edge`) carries
 * them and how new it is; each other one says that the HTTP cache must not keep it, since nothing
 * would ever purge it. One that may be stale must not be kept either.
 */
export const edgeHeaders = plugin(
  async (server: Server) => {
    const { cluster, httpCache } = server.api
    server.decorateRequest('asOf', '')
    server.decorateRequest('edge', null)
    if (httpCache === null) return
    const asOf = new AsOfText()
    // At the arrival: whatever the node reads or finds from now on is at least as new.
    server.addHook('onRequest', (request, _reply, done) => {
      request.asOf = asOf.text(cluster.feed.state)
      done()
    })
    server.addHook('onSend', (request, reply, payload, done) => {
      const isStale = String(reply.getHeader('cache-status') ?? '').includes('detail=stale')
      const isKept =
        request.edge !== null &&
        request.asOf !== '' &&
        !isStale &&
        isKeptStatus.has(reply.statusCode)
      const pairs = isKept ? [...request.edge!, asOfHeader, request.asOf] : httpCache.notKept
      for (let at = 0; at < pairs.length; at += 2) reply.header(pairs[at]!, pairs[at + 1]!)
      done(null, payload)
    })
  },
  { name: 'edge-headers' },
)
