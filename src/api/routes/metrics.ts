import { Type } from 'typebox'
import type { RoutePlugin } from '#api/api-context.ts'

export const metricsRoutes: RoutePlugin = (server, { config }) => {
  server.route({
    method: 'GET',
    url: '/metrics',
    config: {
      access: config.metricsPublic ? 'public' : { permission: 'cluster.manage' },
      whenBusy: true,
    },
    schema: {
      operationId: 'getMetrics',
      summary: 'What this node did, for Prometheus',
      tags: ['health'],
      response: {
        200: {
          description: 'Prometheus text format',
          content: { 'text/plain': { schema: Type.String() } },
        },
      },
    },
    handler: async (_request, reply) => {
      const { metrics } = server
      return reply
        .header('cache-control', 'no-store')
        .type(metrics.registry.contentType)
        .send(await metrics.text())
    },
  })
}
