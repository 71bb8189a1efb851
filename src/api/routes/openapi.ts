import { Type } from 'typebox'
import type { RoutePlugin } from '#api/api-context.ts'
import { respondCached } from '#api/delivery/response-cache.ts'
import { describeRoutes } from '#api/openapi/document.ts'
import type { OpenApi } from '#api/openapi/document.ts'
import { describeTypes } from '#api/openapi/type-paths.ts'
import { strict } from '#api/schemas/shared.ts'
import type { Call } from '#content/content.ts'
import { dependOnModel } from '#content/query/dependencies.ts'

/**
 * The description of the API. It shows each reader the types and fields that their grants reach. It
 * is made and compressed once for all readers with the same grants, and again when a content type
 * changes.
 */
export const openApiRoutes: RoutePlugin = (server, context) => {
  const { content, version } = context
  let base: OpenApi | null = null
  server.route({
    method: 'GET',
    url: '/openapi.json',
    config: { access: 'public', ifNoneMatch: true, mayBeStale: true },
    schema: {
      operationId: 'getOpenApi',
      summary: 'This document',
      tags: ['documentation'],
      querystring: strict({}),
      response: {
        200: Type.Object({
          openapi: Type.String(),
          info: Type.Object({}),
          paths: Type.Object({}),
          components: Type.Object({}),
        }),
        304: Type.Null(),
      },
    },
    handler: async (request, reply) => {
      const { identity } = request
      const render = async (call: Call) => {
        if (call.depends !== undefined) dependOnModel(call.depends)
        const types = (await content.types.list(call.db)).map(({ definition }) => definition)
        base ??= describeRoutes(server.documented, version)
        const body = JSON.stringify(describeTypes(base, types, identity))
        return { body, perspective: 'published' } as const
      }
      return respondCached({
        context,
        request,
        reply,
        type: '',
        perspective: 'published',
        render,
        byRights: true,
      })
    },
  })
}
