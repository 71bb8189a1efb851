import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { ApiContext, RoutePlugin } from '#api/api-context.ts'
import { RouteNotFoundError } from '#api/problems/errors.ts'
import { isAnonymous } from '#api/http/identity.ts'
import { firstAdministratorPage, referencePage, signInPage } from '#api/pages/account.ts'
import { homePage } from '#api/pages/home.ts'
import type { HomeFacts } from '#api/pages/home.ts'
import { contentSecurityPolicy } from '#api/pages/layout.ts'
import { readPage, titleOf } from '#api/pages/read.ts'
import { loadStaticFiles } from '#api/pages/static-files.ts'
import type { Call, EntryView } from '#content/content.ts'
import type { ListQuery } from '#content/query/query.ts'

/** The page shows no more types than this, each asked for its newest entries. */
const typesMax = 30
const latestMax = 8

export type PageFacts = {
  readonly version: string
  readonly node: string
  readonly startedAtMs: number
  readonly publicUrl: string | null
}

type Fields = Readonly<Record<string, unknown>>

const htmlResponse = {
  200: { description: 'A page for people', content: { 'text/html': { schema: Type.String() } } },
}
const file = { schema: Type.String() }
const fileResponse = {
  200: {
    description: 'The file',
    content: { 'text/css': file, 'text/javascript': file, 'image/svg+xml': file },
  },
  304: Type.Null(),
}

/**
 * `/` and the other pages for people. They show what the API shows: each reads as the one who asks.
 */
export function pageRoutes(facts: PageFacts): RoutePlugin {
  return async (server, context) => {
    const files = await loadStaticFiles()
    const page = (
      url: string,
      operationId: string,
      summary: string,
      handler: (request: FastifyRequest) => Promise<string> | string,
    ): void => {
      server.route({
        method: 'GET',
        url,
        config: { access: 'public' },
        schema: { operationId, summary, tags: ['pages'], response: htmlResponse },
        handler: async (request, reply) => sendPage(reply, await handler(request)),
      })
    }
    page(
      '/',
      'getHomePage',
      'What runs here, which content it holds, how to sign in',
      async (request) => homePage(await homeFacts(request, context, facts)),
    )
    page('/reference', 'getReferencePage', 'The API reference, to try requests from', (request) =>
      referencePage(nameOf(request)),
    )
    page('/sign-in', 'getSignInPage', 'The form to sign in', () => signInPage())
    page(
      '/first-administrator',
      'getFirstAdministratorPage',
      'The form behind the one-time link in the log',
      async () => firstAdministratorPage({ needed: await needsAdministrator(context) }),
    )
    server.route<{ Params: { type: string; id: string } }>({
      method: 'GET',
      url: '/read/:type/:id',
      config: { access: 'public' },
      schema: {
        operationId: 'getReadPage',
        summary: 'One published entry for people',
        tags: ['pages'],
        response: htmlResponse,
      },
      handler: async (request, reply) => sendPage(reply, await read(request, context)),
    })
    server.route<{ Params: { name: string } }>({
      method: 'GET',
      url: '/static/:name',
      config: { access: 'public', whenBusy: true },
      schema: {
        operationId: 'getPageFile',
        summary: 'A file that the pages need',
        tags: ['pages'],
        response: fileResponse,
      },
      handler: (request, reply) => {
        const file = files.get(request.params.name)
        if (file === undefined) throw new RouteNotFoundError('There is nothing at this path.')
        reply
          .header('etag', file.etag)
          .header('cache-control', 'public, max-age=60, stale-while-revalidate=600')
        if (request.headers['if-none-match'] === file.etag) return reply.code(304).send()
        return reply.type(file.contentType).send(file.bytes)
      },
    })
  }
}

function sendPage(reply: FastifyReply, page: string): FastifyReply {
  return reply
    .header('content-security-policy', contentSecurityPolicy)
    .header('cache-control', 'no-cache')
    .header('vary', 'Cookie, Authorization')
    .type('text/html; charset=utf-8')
    .send(page)
}

function nameOf(request: FastifyRequest): string | null {
  return isAnonymous(request.identity) ? null : request.identity.authority.actor.name
}

async function homeFacts(
  request: FastifyRequest,
  context: ApiContext,
  facts: PageFacts,
): Promise<HomeFacts> {
  const call: Call = { db: context.database, authority: request.identity.authority }
  const known = await context.content.types.list(context.database)
  const readable = known
    .filter(({ definition }) => call.authority.grant('read', definition.name) !== null)
    .slice(0, typesMax)
  const perType = await Promise.all(
    readable.map(async ({ definition }) => {
      const page = await context.content.entries.list(call, newest(definition.name))
      return { definition, count: page.count ?? 0, entries: page.data }
    }),
  )
  return {
    version: facts.version,
    node: facts.node,
    upSinceIso: new Date(facts.startedAtMs).toISOString(),
    signedInAs: nameOf(request),
    needsAdministrator: await needsAdministrator(context),
    types: perType.map(({ definition, count }) => ({
      name: definition.name,
      label: definition.label,
      published: count,
    })),
    latest: perType
      .flatMap(({ definition, entries }) =>
        entries.map((entry) => ({
          entry,
          title: titleOf(definition, fieldsOf(entry)) ?? entry.id,
        })),
      )
      .sort((a, b) => (b.entry.publishedAt ?? '').localeCompare(a.entry.publishedAt ?? ''))
      .slice(0, latestMax)
      .map(({ entry, title }) => ({
        type: entry.type,
        id: entry.id,
        title,
        publishedAt: entry.publishedAt ?? '',
      })),
    origin: facts.publicUrl ?? `${request.protocol}://${request.host}`,
  }
}

async function needsAdministrator({ access }: ApiContext): Promise<boolean> {
  return (await access.users.list({ limit: 1, after: null })).data.length === 0
}

function newest(type: string): ListQuery {
  return {
    type,
    filter: null,
    sort: [{ field: 'publishedAt', descending: true }],
    fields: null,
    include: [],
    locale: null,
    perspective: 'published',
    limit: latestMax,
    after: null,
    count: true,
  }
}

function fieldsOf(entry: EntryView): Fields {
  return JSON.parse(entry.fieldsJson) as Fields
}

async function read(
  request: FastifyRequest<{ Params: { type: string; id: string } }>,
  context: ApiContext,
): Promise<string> {
  const call: Call = { db: context.database, authority: request.identity.authority }
  const { type, id } = request.params
  const options = { locale: null, perspective: 'published', fields: null, include: [] } as const
  const { entry } = await context.content.entries.get(call, type, id, options)
  const { definition } = await context.content.types.get(context.database, type)
  return readPage({
    definition,
    fields: fieldsOf(entry),
    publishedAt: entry.publishedAt,
    locale: entry.locale,
    signedInAs: nameOf(request),
  })
}
