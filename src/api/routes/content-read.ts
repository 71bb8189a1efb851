import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import { LargeListBudget } from '#api/delivery/large-list-budget.ts'
import { respondCached } from '#api/delivery/response-cache.ts'
import { callerOf } from '#api/http/caller.ts'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { entriesJson, entryJson, includedJson } from '#api/delivery/entry-json.ts'
import { parseListQuery, parseReadOptions } from '#api/delivery/query-string.ts'
import {
  entryResponse,
  entryParams,
  listResponse,
  localeCode,
  typeParams,
} from '#api/schemas/content.ts'
import { strict } from '#api/schemas/shared.ts'
import type { Page, ReadOptions, UnreadQuery } from '#content/content.ts'
import type { ListQuery, Perspective } from '#content/query/query.ts'

const config = { access: 'content', ifNoneMatch: true, mayBeStale: true } as const
/** Lists of more entries, or of more bytes, are made out of a budget of the caller's. */
const largeListEntries = 50
const largeListBytes = 256 * 1024
const publishedWhole: ReadOptions = {
  locale: null,
  perspective: 'published',
  fields: null,
  include: [],
}

const responseHeaders = {
  ETag: {
    description:
      'Changes with everything that the response shows. Begins with the version, so that ' +
      '`If-Match` takes it.',
    schema: { type: 'string' },
  },
  'Cache-Control': { schema: { type: 'string' } },
  Vary: { schema: { type: 'string' } },
}

/** Query parameters that both reads have, for the API's document; `query-string.ts` reads them. */
export const readParameters = {
  fields: Type.Optional(
    Type.String({ description: 'Names of fields to return, separated by commas. Absent: all.' }),
  ),
  include: Type.Optional(
    Type.String({
      description:
        'Paths along references, assets and rich text, also inside groups, lists and blocks, ' +
        'separated by commas: `category,author.employer,cover,sections.hero.image`. The ' +
        'entries and assets that they reach are in `included`, by id; an asset has `kind` ' +
        '"asset".',
    }),
  ),
  locale: Type.Optional(localeCode()),
  perspective: Type.Optional(
    Type.String({
      pattern: '^(published|draft|release:.+)$',
      default: 'published',
      description: '`published`, `draft`, or `release:ID`: as if that release were published.',
    }),
  ),
}

export const listParameters = {
  search: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 200,
      description:
        'Only entries whose searchable fields have all of these words; "words in a row" in ' +
        'quotation marks, -without one, beginnings as publi*. The best matches come first ' +
        'unless `sort` says otherwise.',
      examples: ['"long stoa" athens'],
    }),
  ),
  sort: Type.Optional(
    Type.String({
      description:
        'Fields, separated by commas, `-` before a descending one. Absent: newest first, or ' +
        'with `search` the best matches.',
      examples: ['-publishedAt,title'],
    }),
  ),
  ...readParameters,
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 20 })),
  after: Type.Optional(
    Type.String({ minLength: 1, description: '`meta.after` of the page before.' }),
  ),
  count: Type.Optional(
    Type.Boolean({ default: false, description: 'Also count all that match, as `meta.count`.' }),
  ),
}

/**
 * Delivery. The fast path of the server: no schema is run on what comes or goes, entries are
 * spliced as text, and nothing is made per request that its response does not need.
 */
export const contentReadRoutes: RoutePlugin = (server, context) => {
  listRoute(server, context)
  getRoute(server, context)
}

function listRoute(server: Server, context: ApiContext): void {
  const largeLists = new LargeListBudget(context.clock)
  server.route<{ Params: { type: string } }>({
    method: 'GET',
    url: '/api/content/:type',
    config: { ...config, errors: ['E_QUERY_BUSY'] },
    schema: {
      operationId: 'listEntries',
      summary: 'Entries of a type',
      description:
        'Filter with `where[field][op]=value`; several conditions are all required, ' +
        '`where[or][0][field][op]=value` and `where[not][field][op]=value` combine them.',
      tags: ['content'],
      documented: { params: typeParams, querystring: strict(listParameters) },
      response: {
        200: {
          description: 'OK',
          headers: responseHeaders,
          content: { 'application/json': { schema: listResponse } },
        },
        304: Type.Null(),
      },
    },
    handler: async (request, reply) => {
      const text = rawQuery(request.url)
      const respond = (made: (bytes: number) => void): Promise<FastifyReply> =>
        respondCached({
          context,
          request,
          reply,
          type: request.params.type,
          perspective: perspectiveIn(text),
          render: async (call) => {
            const unread = unreadQuery(request.params.type, text)
            const page = await context.content.entries.list(call, unread)
            const query = unread.query!
            const body = listBody(page, query)
            made(query.limit > largeListEntries || body.length > largeListBytes ? body.length : 0)
            return { body, perspective: query.perspective }
          },
        })
      return largeLists.run(callerOf(request), respond)
    },
  })
}

function getRoute(server: Server, context: ApiContext): void {
  server.route<{ Params: { type: string; id: string } }>({
    method: 'GET',
    url: '/api/content/:type/:id',
    config,
    schema: {
      operationId: 'getEntry',
      summary: 'An entry, by id or by slug',
      tags: ['content'],
      documented: { params: entryParams, querystring: strict(readParameters) },
      response: {
        200: {
          description: 'OK',
          headers: responseHeaders,
          content: { 'application/json': { schema: entryResponse } },
        },
        304: Type.Null(),
      },
    },
    handler: async (request, reply) => {
      const text = rawQuery(request.url)
      const options = text === '' ? publishedWhole : parseReadOptions(text)
      return respondCached({
        context,
        request,
        reply,
        type: request.params.type,
        perspective: options.perspective,
        render: async (call) => {
          const { entry, ...joined } = await context.content.entries.get(
            call,
            request.params.type,
            request.params.id,
            options,
          )
          const body =
            options.include.length === 0
              ? `{"data":${entryJson(entry)}}`
              : `{"data":${entryJson(entry)},"included":${includedJson(joined)}}`
          return {
            body,
            version: `${entry.locale}.${entry.version}`,
            perspective: options.perspective,
          }
        },
      })
    },
  })
}

function listBody(page: Page, query: ListQuery): string {
  const included = query.include.length === 0 ? '' : `,"included":${includedJson(page)}`
  const count = page.count === null ? '' : `,"count":${page.count}`
  const meta = `{"after":${JSON.stringify(page.after)}${count}}`
  return `{"data":${entriesJson(page.data)}${included},"meta":${meta}}`
}

/**
 * The filter's values are read as their fields want them, so content first finds the type, and says
 * whether this reader may know it.
 */
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
  if (found === undefined || found === 'published') return 'published'
  return found === 'draft' ? 'draft' : { release: found }
}

function rawQuery(url: string): string {
  const at = url.indexOf('?')
  return at < 0 ? '' : url.slice(at + 1)
}
