import { readFile } from 'node:fs/promises'
import { Type } from 'typebox'
import type { RoutePlugin } from '#api/api-context.ts'
import { notModified, tagOf } from '#api/delivery/entity-tag.ts'
import { describeRoutes } from '#api/openapi/document.ts'
import type { OpenApi } from '#api/openapi/document.ts'
import { describeTypes } from '#api/openapi/type-paths.ts'
import { errorsPage } from '#api/problems/problem.ts'
import { strict } from '#api/schemas/shared.ts'
import type { Identity } from '#access/access.ts'

/** Documents kept, one per kind of reader; roles are few. */
const keptMax = 20
const errorsFile = new URL('../../../docs/reference/errors.md', import.meta.url)

type Kept = { readonly revisions: string; readonly body: string; readonly tag: string }

/**
 * The API's own description. It changes with the content types, and shows each reader what is there
 * for them.
 */
export const openApiRoutes: RoutePlugin = (server, { content, database, version }) => {
  let base: OpenApi | null = null
  const kept = new Map<string, Kept>()
  server.route({
    method: 'GET',
    url: '/openapi.json',
    config: { access: 'public', ifNoneMatch: true },
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
      const types = await content.types.list(database)
      const revisions = types
        .map(({ definition, revision }) => `${definition.name}:${revision}`)
        .join()
      const reader = readerOf(identity)
      let found = kept.get(reader)
      if (found?.revisions !== revisions) {
        base ??= describeRoutes(server.documented, version)
        const body = JSON.stringify(
          describeTypes(
            base,
            types.map(({ definition }) => definition),
            identity,
          ),
        )
        found = { revisions, body, tag: tagOf(body) }
        if (kept.size >= keptMax) kept.clear()
        kept.set(reader, found)
      }
      reply.headers({ etag: found.tag, 'cache-control': 'no-cache', vary: 'Authorization, Cookie' })
      if (notModified(request, found.tag)) return reply.code(304).send()
      return reply.type('application/json; charset=utf-8').send(found.body)
    },
  })
  server.route({
    method: 'GET',
    url: errorsPage,
    config: { access: 'public' },
    schema: {
      operationId: 'getErrorsPage',
      summary: 'Every error code: what it means, what to do',
      tags: ['documentation'],
      querystring: strict({}),
      response: {
        200: { description: 'Markdown', content: { 'text/markdown': { schema: Type.String() } } },
      },
    },
    handler: async (_request, reply) =>
      reply
        .header('cache-control', 'public, max-age=600')
        .type('text/markdown; charset=utf-8')
        .send(await readFile(errorsFile, 'utf8')),
  })
}

/**
 * All that the document is made from: which actions on which types, and on which fields. What may
 * be read is not enough, since it shows what may be written too.
 */
function readerOf(identity: Identity): string {
  return JSON.stringify(
    identity.describe().content.map(({ type, action, fields }) => [type, action, fields]),
  )
}
