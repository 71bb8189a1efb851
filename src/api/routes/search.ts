import { Type } from 'typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ApiContext, RoutePlugin } from '#api/api-context.ts'
import { parseSearchQuery, parseSuggestionQuery } from '#api/delivery/query-string.ts'
import { respondCached } from '#api/delivery/response-cache.ts'
import {
  searchParameters,
  searchResponse,
  suggestionParameters,
  suggestionsResponse,
} from '#api/schemas/search.ts'
import { strict } from '#api/schemas/shared.ts'
import type { Call } from '#content/content.ts'
import type { SearchHit, SearchPage } from '#content/search/search.ts'

const config = {
  access: 'content',
  ifNoneMatch: true,
  mayBeStale: true,
  errors: ['E_QUERY_BUSY', 'E_QUERY_TOO_SLOW', 'E_LOCALE_NOT_FOUND'],
} as const

/** Search across types. Responses are kept in memory as those of lists are. */
export const searchRoutes: RoutePlugin = (server, context) => {
  server.route({
    method: 'GET',
    url: '/api/search',
    config,
    schema: {
      operationId: 'search',
      summary: 'Full-text search across types',
      description:
        'Finds what you may read, the best matches first. `where[field][op]=value` narrows it, ' +
        'as for a list: each type that is searched must have the field.',
      tags: ['content'],
      documented: { querystring: strict(searchParameters) },
      response: { 200: searchResponse, 304: Type.Null() },
    },
    handler: (request, reply) => {
      const query = parseSearchQuery(queryOf(request))
      return respond(context, request, reply, {
        perspective: query.perspective,
        render: async (call) => searchBody(await context.content.search.find(call, query)),
      })
    },
  })
  server.route({
    method: 'GET',
    url: '/api/search/suggestions',
    config,
    schema: {
      operationId: 'suggest',
      summary: 'Titles that go on from what a reader has typed',
      description: 'Published entries whose titles are searchable and that you may read.',
      tags: ['content'],
      documented: { querystring: strict(suggestionParameters) },
      response: { 200: suggestionsResponse, 304: Type.Null() },
    },
    handler: (request, reply) => {
      const query = parseSuggestionQuery(queryOf(request))
      return respond(context, request, reply, {
        perspective: 'published',
        render: async (call) =>
          JSON.stringify({ data: await context.content.search.suggest(call, query) }),
      })
    },
  })
}

type Rendering = {
  readonly perspective: 'published' | 'draft'
  readonly render: (call: Call) => Promise<string>
}

function respond(
  context: ApiContext,
  request: FastifyRequest,
  reply: FastifyReply,
  { perspective, render }: Rendering,
): Promise<FastifyReply> {
  return respondCached({
    context,
    request,
    reply,
    type: '',
    perspective,
    render: async (call) => ({ body: await render(call), perspective }),
  })
}

function queryOf({ url }: FastifyRequest): string {
  const at = url.indexOf('?')
  return at < 0 ? '' : url.slice(at + 1)
}

function searchBody({ hits, facets, after, count, countIsExact }: SearchPage): string {
  return JSON.stringify({ data: hits.map(hitJson), facets, meta: { after, count, countIsExact } })
}

function hitJson({ entry, title, slug, score, highlights }: SearchHit): object {
  const { id, type, locale, version, status, updatedAt, publishedAt } = entry
  const place = { id, type, locale, version, status, updatedAt, publishedAt }
  return { ...place, title, slug, score, highlights }
}
