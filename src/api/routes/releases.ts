import { Type } from 'typebox'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { audited } from '#api/writes/audited.ts'
import { write } from '#api/writes/idempotency.ts'
import { localeCode, typeName, versionNumber } from '#api/schemas/content.ts'
import {
  dataOf,
  defaultPageSize,
  idParam,
  nullable,
  pageOf,
  pageQuery,
  strict,
  text,
  timestamp,
} from '#api/schemas/shared.ts'
import type { Release } from '#content/content.ts'
import type { Queryable } from '#database/database.ts'

/** Items that one request may add. */
const itemsMax = 1_000

const action = () => Type.Union([Type.Literal('publish'), Type.Literal('unpublish')])
const releaseItem = strict(
  {
    entryId: Type.String({ format: 'uuid' }),
    type: typeName(),
    locale: Type.String(),
    action: action(),
    version: nullable(versionNumber()),
  },
  {
    $id: 'ReleaseItem',
    description: '`version` is pinned: later saves do not change what the release publishes.',
  },
)
const releaseSchema = strict(
  {
    id: Type.String({ format: 'uuid' }),
    name: Type.String(),
    state: Type.Union([Type.Literal('open'), Type.Literal('published'), Type.Literal('undone')]),
    createdAt: timestamp(),
    publishedAt: nullable(timestamp()),
    items: Type.Array(releaseItem),
  },
  { $id: 'Release' },
)
const itemInput = strict(
  {
    entryId: Type.String({ format: 'uuid' }),
    locale: localeCode('A locale of this site.'),
    action: action(),
    version: Type.Optional(nullable(versionNumber())),
  },
  { $id: 'ReleaseItemInput' },
)
const config = { access: { permission: 'releases.write' } } as const
const tags = ['releases']
const params = strict({ id: idParam() })
const noQuery = strict({})
const response = dataOf(releaseSchema)
const noStore = 'private, no-store'

export const releaseRoutes: RoutePlugin = (server, context) => {
  readRoutes(server, context)
  changeRoutes(server, context)
}

function readRoutes(
  server: Server,
  { content, database, config: { pageSizeMax } }: ApiContext,
): void {
  server.route({
    method: 'GET',
    url: '/api/releases',
    config: { ...config, errors: ['E_VALIDATION'] },
    schema: {
      operationId: 'listReleases',
      summary: 'Releases, newest first',
      tags,
      querystring: strict(pageQuery(pageSizeMax)),
      response: { 200: pageOf(releaseSchema) },
    },
    handler: async (request, reply) => {
      const { limit = defaultPageSize, after = null } = request.query
      const page = await content.releases.list(
        { db: database, authority: request.identity.authority },
        { limit, after },
      )
      return reply
        .header('cache-control', noStore)
        .send({ data: page.data, meta: { after: page.after } })
    },
  })
  server.route({
    method: 'GET',
    url: '/api/releases/:id',
    config,
    schema: {
      operationId: 'getRelease',
      summary: 'A release with its items',
      tags,
      params,
      querystring: noQuery,
      response: { 200: response },
    },
    handler: async (request, reply) => {
      const data = await content.releases.get(
        { db: database, authority: request.identity.authority },
        request.params.id,
      )
      return reply.header('cache-control', noStore).send({ data })
    },
  })
}

function changeRoutes(server: Server, { content }: ApiContext): void {
  server.route({
    method: 'POST',
    url: '/api/releases',
    config,
    schema: {
      operationId: 'createRelease',
      summary: 'Begin a release',
      tags,
      querystring: noQuery,
      body: strict({ name: text(200, 1) }),
      response: { 201: response },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const data = await content.releases.create(
          { db, authority: request.identity.authority },
          request.body.name,
        )
        return { status: 201, headers: { location: `/api/releases/${data.id}` }, body: { data } }
      }),
  })
  server.route({
    method: 'DELETE',
    url: '/api/releases/:id',
    config,
    schema: {
      operationId: 'deleteRelease',
      summary: 'Give up a release that is still open',
      tags,
      params,
      querystring: noQuery,
      response: { 204: Type.Null() },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { id } = request.params
        await audited(
          request,
          db,
          (tx) => content.releases.delete({ db: tx, authority: request.identity.authority }, id),
          () => ({ action: 'release.delete', subject: `release:${id}`, facts: {} }),
        )
        return { status: 204 }
      }),
  })
}

export const releaseItemRoutes: RoutePlugin = (server, context) => {
  itemRoutes(server, context)
  stateRoutes(server, context)
}

function itemRoutes(server: Server, { content }: ApiContext): void {
  server.route({
    method: 'POST',
    url: '/api/releases/:id/items',
    config,
    schema: {
      operationId: 'putReleaseItems',
      summary: 'Add items, or replace those of the same entry and locale',
      tags,
      params,
      querystring: noQuery,
      body: strict({ items: Type.Array(itemInput, { minItems: 1, maxItems: itemsMax }) }),
      response: { 200: response },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const items = request.body.items.map((item) => ({
          ...item,
          entryId: item.entryId.toLowerCase(),
          version: item.version ?? null,
        }))
        return {
          status: 200,
          body: {
            data: await content.releases.put(
              { db, authority: request.identity.authority },
              request.params.id,
              items,
            ),
          },
        }
      }),
  })
  server.route({
    method: 'DELETE',
    url: '/api/releases/:id/items/:entryId/:locale',
    config,
    schema: {
      operationId: 'removeReleaseItem',
      summary: 'Take an item out',
      tags,
      params: strict({
        id: idParam(),
        entryId: idParam(),
        locale: localeCode('A locale of this site.'),
      }),
      querystring: noQuery,
      response: { 200: response },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { id, entryId, locale } = request.params
        return {
          status: 200,
          body: {
            data: await content.releases.remove({ db, authority: request.identity.authority }, id, {
              entryId,
              locale,
            }),
          },
        }
      }),
  })
}

function stateRoutes(server: Server, { content }: ApiContext): void {
  for (const what of ['publish', 'undo'] as const) {
    server.route({
      method: 'POST',
      url: `/api/releases/:id/${what}`,
      config,
      schema: {
        operationId: `${what}Release`,
        summary:
          what === 'publish'
            ? 'Publish all items in one transaction'
            : 'Put back what each item replaced, in one transaction',
        tags,
        params,
        querystring: noQuery,
        body: nullable(strict({})),
        response: { 200: response },
      },
      handler: (request, reply) =>
        write(request, reply, async (db) => {
          const { id } = request.params
          const run = (tx: Queryable): Promise<Release> =>
            content.releases[what]({ db: tx, authority: request.identity.authority }, id)
          const data = await audited(request, db, run, ({ name, items }) => ({
            action: `release.${what}`,
            subject: `release:${id}`,
            facts: { name, items: items.length },
          }))
          return { status: 200, body: { data } }
        }),
    })
  }
}
