import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { ApiConfig, RoutePlugin } from '#api/api-context.ts'
import { notModified, tagOf } from '#api/entity-tag.ts'
import { entriesJson, entryJson, includedJson } from '#api/entry-json.ts'
import { isAnonymous } from '#api/identity.ts'
import { parseListQuery, parseReadOptions } from '#api/query-string.ts'
import { entryAnswer, entryParams, listAnswer, localeCode, typeParams } from '#api/routes/content-schemas.ts'
import { strict } from '#api/schemas.ts'
import type { Call, Page, ReadOptions, UnreadQuery } from '#content/content.ts'
import type { ListQuery, Perspective } from '#content/query/query.ts'

const json = 'application/json; charset=utf-8'
const config = { access: 'content', ifNoneMatch: true } as const
const publishedWhole: ReadOptions = { locale: null, perspective: 'published', fields: null, include: [] }

const answerHeaders = {
  etag: { description: 'Changes with everything that the answer shows. Begins with the version, so that `If-Match` takes it.', schema: { type: 'string' } },
  'cache-control': { schema: { type: 'string' } },
  vary: { schema: { type: 'string' } },
}

/** Query parameters that both reads have, for the API's document; `query-string.ts` reads them. */
export const readParameters = {
  fields: Type.Optional(Type.String({ description: 'Names of fields to return, separated by commas. Absent: all.' })),
  include: Type.Optional(Type.String({ description: 'Paths along reference fields, separated by commas: `category,author.employer`. What they reach is in `included`.' })),
  locale: Type.Optional(localeCode()),
  perspective: Type.Optional(Type.String({ pattern: '^(published|draft|release:.+)$', default: 'published', description: '`published`, `draft`, or `release:ID`: as if that release were published.' })),
}

export const listParameters = {
  sort: Type.Optional(Type.String({ description: 'Fields, separated by commas, `-` before a descending one. Absent: newest first.', examples: ['-publishedAt,title'] })),
  ...readParameters,
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 20 })),
  after: Type.Optional(Type.String({ minLength: 1, description: '`meta.after` of the page before.' })),
  count: Type.Optional(Type.Boolean({ default: false, description: 'Also count all that match, as `meta.count`.' })),
}

/**
 * Delivery. The fast path of the server: no schema is run on what comes or goes, entries are spliced as text, and nothing
 * is made per request that is not needed to answer it.
 */
export const contentReadRoutes: RoutePlugin = (server, context) => {
  const published = publicCacheControl(context.config)
  server.route<{ Params: { type: string } }>({
    method: 'GET',
    url: '/api/content/:type',
    config,
    schema: {
      operationId: 'listEntries',
      summary: 'Entries of a type',
      description: 'Filter with `where[field][op]=value`; several conditions are all required, `where[or][0][field][op]=value` and `where[not][field][op]=value` combine them.',
      tags: ['content'],
      documented: { params: typeParams, querystring: strict(listParameters) },
      response: { 200: { description: 'OK', headers: answerHeaders, content: { 'application/json': { schema: listAnswer } } }, 304: Type.Null() },
    },
    handler: async (request, reply) => {
      const call: Call = { db: context.database, authority: request.identity.authority }
      const unread = unreadQuery(request.params.type, rawQuery(request.url))
      const page = await context.content.entries.list(call, unread)
      const query = unread.query!
      const body = listBody(page, query)
      return answer(request, reply, body, tagOf(body), isAnonymous(request.identity) && query.perspective === 'published' ? published : 'private, no-store')
    },
  })
  server.route<{ Params: { type: string; id: string } }>({
    method: 'GET',
    url: '/api/content/:type/:id',
    config,
    schema: {
      operationId: 'getEntry',
      summary: 'An entry, by id or by slug',
      tags: ['content'],
      documented: { params: entryParams, querystring: strict(readParameters) },
      response: { 200: { description: 'OK', headers: answerHeaders, content: { 'application/json': { schema: entryAnswer } } }, 304: Type.Null() },
    },
    handler: async (request, reply) => {
      const call: Call = { db: context.database, authority: request.identity.authority }
      const text = rawQuery(request.url)
      const options = text === '' ? publishedWhole : parseReadOptions(text)
      const { entry, included } = await context.content.entries.get(call, request.params.type, request.params.id, options)
      const body = options.include.length === 0 ? `{"data":${entryJson(entry)}}` : `{"data":${entryJson(entry)},"included":${includedJson(included)}}`
      return answer(request, reply, body, tagOf(body, entry.version), isAnonymous(request.identity) && options.perspective === 'published' ? published : 'private, no-store')
    },
  })
}

function answer(request: FastifyRequest, reply: FastifyReply, body: string, tag: string, cacheControl: string): FastifyReply {
  reply.header('etag', tag).header('cache-control', cacheControl).header('vary', 'Authorization, Cookie')
  if (notModified(request, tag)) return reply.code(304).send()
  return reply.header('content-type', json).send(body)
}

function listBody(page: Page, query: ListQuery): string {
  const included = query.include.length === 0 ? '' : `,"included":${includedJson(page.included)}`
  const count = page.count === null ? '' : `,"count":${page.count}`
  return `{"data":${entriesJson(page.data)}${included},"meta":{"after":${page.after === null ? 'null' : JSON.stringify(page.after)}${count}}}`
}

/** The filter's values are read as their fields want them, so content first finds the type, and says whether this reader may know it. */
function unreadQuery(type: string, text: string): UnreadQuery & { query?: ListQuery } {
  const unread: UnreadQuery & { query?: ListQuery } = {
    type,
    perspective: perspectiveIn(text),
    read: (readable) => (unread.query = parseListQuery(text, readable)),
  }
  return unread
}

function perspectiveIn(text: string): Perspective {
  const found = /(?:^|&)perspective=([^&]*)/.exec(text)?.[1]
  return found === undefined || found === 'published' ? 'published' : 'draft'
}

function rawQuery(url: string): string {
  const at = url.indexOf('?')
  return at < 0 ? '' : url.slice(at + 1)
}

/** Browsers ask again each time; shared caches answer for a moment, then refresh behind the reader's back. */
function publicCacheControl({ sharedCacheS, staleWhileRevalidateS }: ApiConfig): string {
  return `public, max-age=0, must-revalidate, s-maxage=${sharedCacheS}, stale-while-revalidate=${staleWhileRevalidateS}`
}
