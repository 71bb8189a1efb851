import type { RoutePlugin } from '#api/api-context.ts'
import { auditSchema, noStore } from '#api/schemas/access.ts'
import { defaultPageSize, pageOf, pageQuery, strict } from '#api/schemas/shared.ts'

export const auditRoutes: RoutePlugin = (server, { access, config }) => {
  server.route({
    method: 'GET',
    url: '/api/audit',
    config: { access: { permission: 'audit.read' }, errors: ['E_ACCESS_INPUT'] },
    schema: {
      operationId: 'listAudit',
      summary: 'Who did what, newest first',
      tags: ['access'],
      querystring: strict(pageQuery(config.pageSizeMax)),
      response: { 200: pageOf(auditSchema) },
    },
    handler: async (request, reply) => {
      const { data, after } = await access.auditLog({
        limit: request.query.limit ?? defaultPageSize,
        after: request.query.after ?? null,
      })
      return reply.headers(noStore).send({ data, meta: { after } })
    },
  })
}
