import { Type } from 'typebox'
import type { RoutePlugin } from '#api/api-context.ts'
import { audited } from '#api/writes/audited.ts'
import { write } from '#api/writes/idempotency.ts'
import { dataOf, nullable, strict } from '#api/schemas/shared.ts'

const code = () => Type.String({ minLength: 1, maxLength: 35, examples: ['en', 'pt-BR'] })
const localeSchema = strict(
  { code: code(), fallback: nullable(code()), isDefault: Type.Boolean() },
  {
    $id: 'Locale',
    description: '`fallback`: the locale to show where an entry does not have this one.',
  },
)
const managed = { access: { permission: 'locales.write' } } as const

export const localeRoutes: RoutePlugin = (server, { content, database }) => {
  server.route({
    method: 'GET',
    url: '/api/locales',
    config: { access: 'public' },
    schema: {
      operationId: 'listLocales',
      summary: 'The locales of this site',
      tags: ['locales'],
      querystring: strict({}),
      response: { 200: dataOf(Type.Array(localeSchema)) },
    },
    handler: async (_request, reply) =>
      reply
        .header('cache-control', 'private, no-cache')
        .send({ data: await content.locales.list(database) }),
  })
  server.route({
    method: 'PUT',
    url: '/api/locales/:code',
    config: managed,
    schema: {
      operationId: 'saveLocale',
      summary: 'Add or change a locale',
      tags: ['locales'],
      params: strict({ code: code() }),
      querystring: strict({}),
      body: strict(
        { fallback: Type.Optional(nullable(code())), isDefault: Type.Optional(Type.Boolean()) },
        { $id: 'LocaleSave' },
      ),
      response: { 200: dataOf(localeSchema) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const data = {
          code: request.params.code,
          fallback: request.body.fallback ?? null,
          isDefault: request.body.isDefault ?? false,
        }
        await audited(
          request,
          db,
          (tx) => content.locales.save(tx, data),
          () => ({ action: 'locale.save', subject: `locale:${data.code}`, facts: data }),
        )
        return { status: 200, body: { data } }
      }),
  })
  server.route({
    method: 'DELETE',
    url: '/api/locales/:code',
    config: managed,
    schema: {
      operationId: 'deleteLocale',
      summary: 'Remove a locale that no entry has',
      tags: ['locales'],
      params: strict({ code: code() }),
      querystring: strict({}),
      response: { 204: Type.Null() },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { code } = request.params
        await audited(
          request,
          db,
          (tx) => content.locales.delete(tx, code),
          () => ({ action: 'locale.delete', subject: `locale:${code}`, facts: {} }),
        )
        return { status: 204 }
      }),
  })
}
