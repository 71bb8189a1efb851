import type { FastifyRequest } from 'fastify'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { audited } from '#api/writes/audited.ts'
import { entriesJson, entryJson } from '#api/delivery/entry-json.ts'
import { entryTag, expectedVersions } from '#api/delivery/entity-tag.ts'
import { write } from '#api/writes/idempotency.ts'
import type { WriteResponse } from '#api/writes/idempotency.ts'
import {
  createBody,
  deleteResponse,
  emptyBody,
  entriesResponse,
  entryResponse,
  entryParams,
  publishBody,
  restoreBody,
  saveBody,
  typeParams,
  unpublishBody,
} from '#api/schemas/content.ts'
import { strict } from '#api/schemas/shared.ts'
import type { Call, DeleteOutcome, EntryView } from '#content/content.ts'
import { WriteRecorder } from '#api/writes/write-recorder.ts'
import type { Queryable } from '#database/database.ts'

/**
 * Ids of entries deleted together that the audit log names; it says how many there were in all.
 */
const idsLoggedMax = 100
const config = { access: 'content', ifMatch: true } as const
const tags = ['content']
const noQuery = strict({})

function callOf(request: FastifyRequest, db: Queryable): Call {
  const { authority } = request.identity
  return db instanceof WriteRecorder
    ? { db, authority, wrote: (writer) => db.wrote(writer) }
    : { db, authority }
}

function entryWritten(entry: EntryView, status = 200): WriteResponse {
  const headers: Record<string, string> = { etag: entryTag(entry) }
  if (status === 201) headers['location'] = `/api/content/${entry.type}/${entry.id}`
  return { status, headers, json: `{"data":${entryJson(entry)}}` }
}

/** One tag stands for one version: several locales have none. */
function entriesWritten(entries: readonly EntryView[]): WriteResponse {
  return {
    status: 200,
    headers: entries.length === 1 ? { etag: entryTag(entries[0]!) } : {},
    json: `{"data":${entriesJson(entries)}}`,
  }
}

export const contentWriteRoutes: RoutePlugin = (server, context) => {
  createRoute(server, context)
  saveRoutes(server, context)
  deleteRoute(server, context)
}

function createRoute(server: Server, { content }: ApiContext): void {
  server.route({
    method: 'POST',
    url: '/api/content/:type',
    config: { access: 'content' },
    schema: {
      operationId: 'createEntry',
      summary: 'Make an entry',
      tags,
      params: typeParams,
      querystring: noQuery,
      body: createBody,
      response: { 201: entryResponse },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { id, locale, fields, publish } = request.body
        const input = {
          locale: locale ?? null,
          fields,
          ...(publish === undefined ? {} : { publish }),
          ...(id === undefined ? {} : { id: id.toLowerCase() }),
        }
        return entryWritten(
          await content.entries.create(callOf(request, db), request.params.type, input),
          201,
        )
      }),
  })
}

function saveRoutes(server: Server, { content }: ApiContext): void {
  for (const method of ['PATCH', 'PUT'] as const) {
    const merge = method === 'PATCH'
    server.route({
      method,
      url: '/api/content/:type/:id',
      config,
      schema: {
        operationId: merge ? 'changeEntry' : 'replaceEntry',
        summary: merge ? 'Change some fields of an entry' : 'Replace the fields of an entry',
        description: merge
          ? 'Fields that are left out stay as they are; null removes one.'
          : 'Fields that are left out are removed.',
        tags,
        params: entryParams,
        querystring: noQuery,
        body: saveBody,
        response: { 200: entryResponse },
      },
      handler: (request, reply) =>
        write(request, reply, async (db) => {
          const { locale, fields, publish } = request.body
          const input = {
            locale: locale ?? null,
            fields,
            merge,
            ...(publish === undefined ? {} : { publish }),
          }
          return entryWritten(
            await content.entries.save(
              callOf(request, db),
              { type: request.params.type, id: request.params.id },
              input,
              expectedVersions(request),
            ),
          )
        }),
    })
  }
}

function deleteRoute(server: Server, { content }: ApiContext): void {
  server.route({
    method: 'DELETE',
    url: '/api/content/:type/:id',
    config,
    schema: {
      operationId: 'deleteEntry',
      summary: 'Delete an entry with all its versions',
      tags,
      params: entryParams,
      querystring: noQuery,
      response: { 200: deleteResponse },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { type, id } = request.params
        const remove = (tx: Queryable): Promise<DeleteOutcome> =>
          content.entries.delete(callOf(request, tx), { type, id }, expectedVersions(request))
        const data = await audited(request, db, remove, ({ deleted, unset }) => ({
          action: 'entry.delete',
          subject: `entry:${id}`,
          facts: {
            type,
            deleted: deleted.length,
            unset: unset.length,
            ids: deleted.slice(0, idsLoggedMax),
          },
        }))
        return { status: 200, body: { data } }
      }),
  })
}

export const contentStateRoutes: RoutePlugin = (server, context) => {
  publishRoutes(server, context)
  archiveRoutes(server, context)
  restoreRoute(server, context)
}

function publishRoutes(server: Server, { content }: ApiContext): void {
  server.route({
    method: 'POST',
    url: '/api/content/:type/:id/publish',
    config,
    schema: {
      operationId: 'publishEntry',
      summary: 'Publish the latest version, or an older one',
      tags,
      params: entryParams,
      querystring: noQuery,
      body: publishBody,
      response: { 200: entriesResponse },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { locales = null, version = null } = request.body ?? {}
        const { type, id } = request.params
        return entriesWritten(
          await content.entries.publish(
            callOf(request, db),
            { type, id },
            { locales, version },
            expectedVersions(request),
          ),
        )
      }),
  })
  server.route({
    method: 'POST',
    url: '/api/content/:type/:id/unpublish',
    config,
    schema: {
      operationId: 'unpublishEntry',
      summary: 'Take an entry offline',
      tags,
      params: entryParams,
      querystring: noQuery,
      body: unpublishBody,
      response: { 200: entriesResponse },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { type, id } = request.params
        return entriesWritten(
          await content.entries.unpublish(
            callOf(request, db),
            { type, id },
            request.body?.locales ?? null,
            expectedVersions(request),
          ),
        )
      }),
  })
}

function archiveRoutes(server: Server, { content }: ApiContext): void {
  for (const archived of [true, false]) {
    server.route({
      method: 'POST',
      url: `/api/content/:type/:id/${archived ? 'archive' : 'unarchive'}`,
      config,
      schema: {
        operationId: archived ? 'archiveEntry' : 'unarchiveEntry',
        summary: archived
          ? 'Put an entry into the archive: out of lists, not deleted'
          : 'Take an entry out of the archive',
        tags,
        params: entryParams,
        querystring: noQuery,
        body: emptyBody,
        response: { 200: entriesResponse },
      },
      handler: (request, reply) =>
        write(request, reply, async (db) => {
          const { type, id } = request.params
          return entriesWritten(
            await content.entries.archive(
              callOf(request, db),
              { type, id },
              archived,
              expectedVersions(request),
            ),
          )
        }),
    })
  }
}

function restoreRoute(server: Server, { content }: ApiContext): void {
  server.route({
    method: 'POST',
    url: '/api/content/:type/:id/restore',
    config,
    schema: {
      operationId: 'restoreVersion',
      summary: 'Make a new version with the content of an old one',
      tags,
      params: entryParams,
      querystring: noQuery,
      body: restoreBody,
      response: { 200: entryResponse },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { locale = null, version } = request.body
        const { type, id } = request.params
        return entryWritten(
          await content.entries.restore(
            callOf(request, db),
            { type, id },
            { locale, version },
            expectedVersions(request),
          ),
        )
      }),
  })
}
