import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { TSchema } from 'typebox'
import type { Identity } from '#access/access.ts'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { cachedRead, dependOnTypesAndLocales } from '#api/delivery/cached-read.ts'
import { contentTypeSchema } from '#api/schemas/content-type.ts'
import { preconditionOf, tagOf } from '#api/delivery/entity-tag.ts'
import { RequestInvalidError } from '#api/problems/errors.ts'
import { write } from '#api/writes/idempotency.ts'
import { typeName } from '#api/schemas/content.ts'
import { dataOf, strict } from '#api/schemas/shared.ts'
import type { Content, Precondition, TypeState } from '#content/content.ts'
import { contentActions } from '#content/authority.ts'
import type { ContentType, Field } from '#content/content-type.ts'
import { TypeConflictError, TypeNotFoundError } from '#content/errors.ts'

const tags = ['types']
const nameParams = strict({ name: typeName() })
const typeSchema = contentTypeSchema('response') as TSchema
const planSchema = strict(
  {
    change: Type.Union([Type.Literal('create'), Type.Literal('update'), Type.Literal('none')]),
    steps: Type.Array(
      strict({
        what: Type.Union([
          Type.Literal('addField'),
          Type.Literal('changeField'),
          Type.Literal('removeField'),
          Type.Literal('addIndex'),
          Type.Literal('removeIndex'),
        ]),
        name: Type.String(),
        losesData: Type.Boolean(),
        blocked: Type.Boolean({
          description: 'The change is refused until entries were changed; `note` says which.',
        }),
        note: Type.String(),
      }),
    ),
  },
  { $id: 'TypePlan' },
)
const settlingSchema = strict({
  settled: Type.Boolean({
    description:
      'False: entries are still being brought to this revision. Until then, filters of grants ' +
      'do not cover those that are waiting, and queries by new filterable fields do not find ' +
      'them.',
  }),
  versionsWaiting: Type.Integer({
    minimum: 0,
    description: 'Versions that are waiting; counted to 10,000.',
  }),
})
const managed = { access: { permission: 'types.write' }, ifMatch: true } as const

/**
 * A type is shown to callers that may do anything with its entries, and to those who shape types.
 */
export function maySeeType(identity: Identity, name: string): boolean {
  return (
    identity.can('types.write') ||
    contentActions.some((action) => identity.authority.grant(action, name) !== null)
  )
}

type Stored = { readonly definition: ContentType; readonly revision: number }

/** A type that was deleted and made anew has the old revisions again, and not the old tags. */
function typeTag({ definition, revision }: Stored): string {
  return tagOf(JSON.stringify(definition), String(revision))
}

function typePrecondition(request: FastifyRequest, name: string): Precondition<Stored> {
  const seen = Number(/"(\d{1,9})/.exec(request.headers['if-match'] ?? '')?.[1] ?? 0)
  return preconditionOf(
    request,
    typeTag,
    (current) => new TypeConflictError(name, seen, current?.revision ?? 0),
  )
}

function shown({ definition, revision }: Stored): object {
  return { ...definition, revision }
}

/**
 * Whole for who shapes types; for the others with the fields that they may see or write in some
 * way, and nothing that names another.
 */
function shownTo(identity: Identity, { definition, revision }: Stored): object {
  const grants = contentActions
    .map((action) => identity.authority.grant(action, definition.name))
    .filter((grant) => grant !== null)
  if (identity.can('types.write') || grants.some(({ fields }) => fields === null))
    return shown({ definition, revision })
  const own = new Set(definition.fields.map((field) => field.name))
  const visible = new Set(grants.flatMap(({ fields }) => fields ?? []))
  const mayName = (name: string): boolean => visible.has(name) || !own.has(name)
  const { fields, titleField, indexes, ...rest } = definition
  const seen = fields
    .filter((field) => visible.has(field.name))
    .map((field) =>
      field.kind === 'slug' && field.from !== undefined && !mayName(field.from)
        ? withoutFrom(field)
        : field,
    )
  return {
    ...rest,
    fields: seen,
    ...(titleField === undefined || !mayName(titleField) ? {} : { titleField }),
    ...(indexes === undefined
      ? {}
      : {
          indexes: indexes.filter((names) =>
            names.every((name) => mayName(name.replace(/^-/, ''))),
          ),
        }),
    revision,
  }
}

function withoutFrom({ from: _from, ...field }: Field & { readonly kind: 'slug' }): Field {
  return field
}

/** All types, also while the database is away. */
function knownTypes(
  request: FastifyRequest,
  reply: FastifyReply,
  content: Content,
): Promise<readonly Stored[]> {
  return cachedRead(request, reply, 'types', (db, load) => {
    dependOnTypesAndLocales(load)
    return content.types.list(db)
  })
}

export const typeReadRoutes: RoutePlugin = (server, { cluster, content, database }) => {
  /** While the database is away, a type is as far as it was. */
  let states: readonly TypeState[] = []

  server.route({
    method: 'GET',
    url: '/api/types',
    config: { access: 'public' },
    schema: {
      operationId: 'listTypes',
      summary: 'The content types that you may use',
      tags,
      querystring: strict({}),
      response: { 200: dataOf(Type.Array(typeSchema)) },
    },
    handler: async (request, reply) => {
      const types = await knownTypes(request, reply, content)
      const data = types
        .filter((type) => maySeeType(request.identity, type.definition.name))
        .map((type) => shownTo(request.identity, type))
      return reply.header('cache-control', 'private, no-cache').send({ data })
    },
  })
  server.route({
    method: 'GET',
    url: '/api/types/:name',
    config: { access: 'public' },
    schema: {
      operationId: 'getType',
      summary: 'A content type',
      tags,
      params: nameParams,
      querystring: strict({}),
      response: { 200: strict({ data: typeSchema, meta: settlingSchema }) },
    },
    handler: async (request, reply) => {
      const { name } = request.params
      if (!maySeeType(request.identity, name)) throw new TypeNotFoundError(name)
      const types = await knownTypes(request, reply, content)
      const type = types.find(({ definition }) => definition.name === name)
      if (type === undefined) throw new TypeNotFoundError(name)
      if (cluster.cache.leased) states = await content.types.states(database)
      const state = states.find((one) => one.name === name)
      return reply.headers({ 'cache-control': 'private, no-cache', etag: typeTag(type) }).send({
        data: shownTo(request.identity, type),
        meta: {
          settled: state?.settled ?? true,
          versionsWaiting: state?.versionsWaiting ?? 0,
        },
      })
    },
  })
}

export const typeWriteRoutes: RoutePlugin = (server, context) => {
  saveRoute(server, context)
  deleteRoute(server, context)
}

function saveRoute(server: Server, { access, content, database }: ApiContext): void {
  server.route({
    method: 'PUT',
    url: '/api/types/:name',
    config: managed,
    schema: {
      operationId: 'saveType',
      summary: 'Make or change a content type; with `dryRun=true`: only say what that would do',
      description: 'The lock is `If-Match`, or the `revision` that the definition was read with.',
      tags,
      params: nameParams,
      querystring: strict({
        dryRun: Type.Optional(Type.Boolean()),
        allowLoss: Type.Optional(
          Type.Boolean({ description: 'Go on although values of entries will be lost.' }),
        ),
      }),
      body: contentTypeSchema('input'),
      response: { 200: dataOf(Type.Union([typeSchema, planSchema])), 201: dataOf(typeSchema) },
    },
    handler: async (request, reply) => {
      const { name } = request.params
      const { revision: seen = null, ...rest } = request.body as Partial<ContentType> & {
        revision?: number
      }
      const definition = { ...rest, name: rest.name ?? name } as ContentType
      if (definition.name !== name)
        throw new RequestInvalidError({
          in: 'body',
          path: '/name',
          message: `must be ${name}, as in the path`,
        })
      if (request.query.dryRun === true)
        return reply
          .header('cache-control', 'no-store')
          .send({ data: await content.types.plan(database, definition) })
      return write(request, reply, async (db) => {
        const saved = await content.types.save(db, definition, {
          expected: seen,
          precondition: typePrecondition(request, name),
          allowLoss: request.query.allowLoss ?? false,
        })
        const created = saved.revision === 1
        // Not in one transaction: a type that is saved in another transaction is settled
        // later.
        await access.audit(db, request.identity, {
          action: 'type.save',
          subject: `type:${name}`,
          facts: { revision: saved.revision, fields: definition.fields.map((field) => field.name) },
        })
        const headers = {
          etag: typeTag(saved),
          ...(created ? { location: `/api/types/${name}` } : {}),
        }
        return { status: created ? 201 : 200, headers, body: { data: shown(saved) } }
      })
    },
  })
}

function deleteRoute(server: Server, { access, content }: ApiContext): void {
  server.route({
    method: 'DELETE',
    url: '/api/types/:name',
    config: managed,
    schema: {
      operationId: 'deleteType',
      summary: 'Remove a content type that has no entries',
      tags,
      params: nameParams,
      querystring: strict({}),
      response: { 204: Type.Null() },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { name } = request.params
        await content.types.delete(db, name, typePrecondition(request, name))
        await access.audit(db, request.identity, {
          action: 'type.delete',
          subject: `type:${name}`,
          facts: {},
        })
        return { status: 204 }
      }),
  })
}
