import { Type } from 'typebox'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { entriesJson, entryJson } from '#api/delivery/entry-json.ts'
import { LargeListBudget } from '#api/delivery/large-list-budget.ts'
import { callerOf } from '#api/http/caller.ts'
import { versionTag } from '#api/delivery/entity-tag.ts'
import { write } from '#api/writes/idempotency.ts'
import {
  entriesResponse,
  entryResponse,
  entryParams,
  localeCode,
  localeQuery,
  scheduleBody,
  scheduledSchema,
  typeName,
  versionNumber,
  versionSummarySchema,
} from '#api/schemas/content.ts'
import { dataOf, defaultPageSize, idParam, nullable, strict } from '#api/schemas/shared.ts'

const config = { access: 'content' } as const
const json = 'application/json; charset=utf-8'
const noStore = 'private, no-store'

/** The versions of an entry are for readers of drafts, which content decides. */
export const contentVersionRoutes: RoutePlugin = (server, context) => {
  listRoute(server, context)
  versionRoute(server, context)
  localesRoute(server, context)
}

function listRoute(
  server: Server,
  { content, database, config: { pageSizeMax } }: ApiContext,
): void {
  server.route({
    method: 'GET',
    url: '/api/content/:type/:id/versions',
    config,
    schema: {
      operationId: 'listVersions',
      summary: 'The versions of an entry, newest first',
      tags: ['versions'],
      params: entryParams,
      querystring: strict({
        locale: Type.Optional(localeCode()),
        limit: Type.Optional(
          Type.Integer({ minimum: 1, maximum: pageSizeMax, default: defaultPageSize }),
        ),
        before: Type.Optional(versionNumber()),
      }),
      response: {
        200: strict({
          data: Type.Array(versionSummarySchema),
          meta: strict({ before: nullable(versionNumber()) }),
        }),
      },
    },
    handler: async (request, reply) => {
      const { locale = null, limit = defaultPageSize, before = null } = request.query
      const { type, id } = request.params
      const call = { db: database, authority: request.identity.authority }
      // One more than asked for says whether there is another page.
      const found = await content.entries.versions(
        call,
        { type, id },
        {
          locale,
          limit: limit + 1,
          before,
        },
      )
      const data = found.slice(0, limit)
      const next = found.length > limit ? (data.at(-1)?.version ?? null) : null
      return reply.header('cache-control', noStore).send({ data, meta: { before: next } })
    },
  })
}

function versionRoute(server: Server, { content, database }: ApiContext): void {
  server.route({
    method: 'GET',
    url: '/api/content/:type/:id/versions/:version',
    config,
    schema: {
      operationId: 'getVersion',
      summary: 'An entry as it was in one version',
      tags: ['versions'],
      params: strict({ type: typeName(), id: idParam(), version: versionNumber() }),
      querystring: localeQuery,
      response: { 200: entryResponse },
    },
    handler: async (request, reply) => {
      const { type, id, version } = request.params
      const call = { db: database, authority: request.identity.authority }
      const entry = await content.entries.version(
        call,
        { type, id },
        {
          locale: request.query.locale ?? null,
          version,
        },
      )
      return reply
        .headers({ 'cache-control': noStore, etag: versionTag(entry.version) })
        .type(json)
        .send(`{"data":${entryJson(entry)}}`)
    },
  })
}

function localesRoute(server: Server, { content, database, clock }: ApiContext): void {
  const largeReads = new LargeListBudget(clock)
  server.route({
    method: 'GET',
    url: '/api/content/:type/:id/locales',
    config: { ...config, errors: ['E_QUERY_LIMIT'] },
    schema: {
      operationId: 'getEntryLocales',
      summary: 'An entry in every locale that it has',
      tags: ['content'],
      params: entryParams,
      querystring: strict({
        perspective: Type.Optional(
          Type.Union([Type.Literal('published'), Type.Literal('draft')], { default: 'published' }),
        ),
      }),
      response: { 200: entriesResponse },
    },
    handler: async (request, reply) => {
      const { type, id } = request.params
      const { perspective = 'published' } = request.query
      const call = { db: database, authority: request.identity.authority }
      const body = await largeReads.run(callerOf(request), async (made) => {
        const entries = await content.entries.locales(call, { type, id }, perspective)
        const text = `{"data":${entriesJson(entries)}}`
        made(text.length)
        return text
      })
      return reply.header('cache-control', noStore).type(json).send(body)
    },
  })
}

/** The scheduled actions of an entry. */
export const scheduleRoutes: RoutePlugin = (server, context) => {
  addRoute(server, context)
  waitingRoutes(server, context)
}

function addRoute(server: Server, { content }: ApiContext): void {
  server.route({
    method: 'POST',
    url: '/api/content/:type/:id/schedule',
    config,
    schema: {
      operationId: 'scheduleAction',
      summary: 'Publish or unpublish at a time',
      tags: ['schedule'],
      params: entryParams,
      querystring: strict({}),
      body: scheduleBody,
      response: { 201: dataOf(scheduledSchema) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { locale = null, action, version = null, dueAt } = request.body
        const { type, id } = request.params
        const data = await content.schedule.add(
          { db, authority: request.identity.authority },
          type,
          id,
          { locale, action, version, dueAt },
        )
        return {
          status: 201,
          headers: {
            location: `/api/content/${encodeURIComponent(type)}/${data.entryId}/schedule`,
          },
          body: { data },
        }
      }),
  })
}

function waitingRoutes(server: Server, { content, database }: ApiContext): void {
  server.route({
    method: 'GET',
    url: '/api/content/:type/:id/schedule',
    config,
    schema: {
      operationId: 'listSchedule',
      summary: 'What is scheduled for an entry',
      tags: ['schedule'],
      params: entryParams,
      querystring: strict({}),
      response: { 200: dataOf(Type.Array(scheduledSchema)) },
    },
    handler: async (request, reply) => {
      const { type, id } = request.params
      const data = await content.schedule.list(
        { db: database, authority: request.identity.authority },
        type,
        id,
      )
      return reply.header('cache-control', noStore).send({ data })
    },
  })
  server.route({
    method: 'DELETE',
    url: '/api/content/:type/:id/schedule/:scheduleId',
    config,
    schema: {
      operationId: 'cancelScheduled',
      summary: 'Call off a scheduled action',
      tags: ['schedule'],
      params: strict({ type: typeName(), id: idParam(), scheduleId: idParam() }),
      querystring: strict({}),
      response: { 200: dataOf(scheduledSchema) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { type, id, scheduleId } = request.params
        return {
          status: 200,
          body: {
            data: await content.schedule.cancel(
              { db, authority: request.identity.authority },
              type,
              id,
              scheduleId,
            ),
          },
        }
      }),
  })
}
