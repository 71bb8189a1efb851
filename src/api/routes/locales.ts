import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { cachedRead, dependOnTypesAndLocales } from '#api/delivery/cached-read.ts'
import { preconditionOf, valueTag } from '#api/delivery/entity-tag.ts'
import { audited } from '#api/writes/audited.ts'
import { write } from '#api/writes/idempotency.ts'
import { dataOf, nullable, strict } from '#api/schemas/shared.ts'
import type { Content, Locale } from '#content/content.ts'
import { LocaleNotFoundError } from '#content/errors.ts'

const code = () => Type.String({ minLength: 1, maxLength: 35, examples: ['en', 'pt-BR'] })
const localeSchema = strict(
  { code: code(), fallback: nullable(code()), isDefault: Type.Boolean() },
  {
    $id: 'Locale',
    description: '`fallback`: the locale to show where an entry does not have this one.',
  },
)
const managed = {
  access: { permission: 'locales.write' },
  ifMatch: true,
  errors: ['E_PRECONDITION'],
} as const

/** All locales, also while the database is away. */
function knownLocales(
  request: FastifyRequest,
  reply: FastifyReply,
  content: Content,
): Promise<readonly Locale[]> {
  return cachedRead(request, reply, 'locales', (db, load) => {
    dependOnTypesAndLocales(load)
    return content.locales.list(db)
  })
}

export const localeRoutes: RoutePlugin = (server, context) => {
  readRoutes(server, context)
  changeRoutes(server, context)
}

function readRoutes(server: Server, { content }: ApiContext): void {
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
    handler: async (request, reply) => {
      const data = await knownLocales(request, reply, content)
      return reply.header('cache-control', 'private, no-cache').send({ data })
    },
  })
  server.route({
    method: 'GET',
    url: '/api/locales/:code',
    config: { access: 'public' },
    schema: {
      operationId: 'getLocale',
      summary: 'One locale, and its tag',
      tags: ['locales'],
      params: strict({ code: code() }),
      querystring: strict({}),
      response: { 200: dataOf(localeSchema) },
    },
    handler: async (request, reply) => {
      const { code } = request.params
      const data = (await knownLocales(request, reply, content)).find(
        (one) => one.code.toLowerCase() === code.toLowerCase(),
      )
      if (data === undefined) throw new LocaleNotFoundError(code)
      return reply
        .headers({ 'cache-control': 'private, no-cache', etag: valueTag(data) })
        .send({ data })
    },
  })
}

function changeRoutes(server: Server, { content }: ApiContext): void {
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
          (tx) => content.locales.save(tx, data, preconditionOf(request, valueTag)),
          () => ({ action: 'locale.save', subject: `locale:${data.code}`, facts: data }),
        )
        return { status: 200, headers: { etag: valueTag(data) }, body: { data } }
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
          (tx) => content.locales.delete(tx, code, preconditionOf(request, valueTag)),
          () => ({ action: 'locale.delete', subject: `locale:${code}`, facts: {} }),
        )
        return { status: 204 }
      }),
  })
}
