import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { firstAdministratorPage, referencePage, signInPage } from '#api/pages/account.ts'
import { homePage } from '#api/pages/home.ts'
import type { HomeContent, NodeFacts } from '#api/pages/home.ts'
import { htmlResponse } from '#api/pages/html.ts'
import { nameOf, readPageData, sendPage } from '#api/pages/page-data.ts'
import { titleOf } from '#api/pages/read.ts'
import { loadStaticFiles } from '#api/pages/static-files.ts'
import { RouteNotFoundError } from '#api/problems/errors.ts'
import { documentationRoutes } from '#api/routes/documentation.ts'
import { readPageRoute } from '#api/routes/read-page.ts'
import type { Call } from '#content/content.ts'
import { dependOnModel } from '#content/query/dependencies.ts'
import type { ListQuery } from '#content/query/query.ts'
import { MarkdownRenderer } from '#rendering/markdown-renderer.ts'

/** The home page shows at most this many types, and reads the newest entries of each. */
const typesMax = 30
const latestMax = 8

export type PageFacts = {
  readonly version: string
  readonly node: string
  readonly startedAtMs: number
  readonly publicUrl: string | null
}

const file = { schema: Type.String() }
const fileResponse = {
  200: {
    description: 'The file',
    content: { 'text/css': file, 'text/javascript': file, 'image/svg+xml': file },
  },
  304: Type.Null(),
}

/** `/` and the other pages for people. Each shows what the API shows to the same reader. */
export function pageRoutes(facts: PageFacts): RoutePlugin {
  return async (server, context) => {
    const renderer = new MarkdownRenderer(context)
    server.addHook('onClose', () => renderer.stop())
    readPageRoute(server, context, renderer)
    await documentationRoutes(server, renderer)
    await staticFileRoute(server)
    page(server, {
      url: '/',
      operationId: 'getHomePage',
      summary: 'The content of this node, and how to sign in',
      handler: async (request, reply) => {
        const { value, staleMs } = await readPageData(context, request, 'home', (call) =>
          readHome(context, call),
        )
        return sendPage(reply, homePage({ ...value, ...nodeFacts(facts, request) }), staleMs)
      },
    })
    page(server, {
      url: '/reference',
      operationId: 'getReferencePage',
      summary: 'The API reference, to try requests from',
      handler: (request, reply) => sendPage(reply, referencePage(nameOf(request))),
    })
    page(server, {
      url: '/sign-in',
      operationId: 'getSignInPage',
      summary: 'The form to sign in',
      handler: (_request, reply) => sendPage(reply, signInPage()),
    })
    page(server, {
      url: '/first-administrator',
      operationId: 'getFirstAdministratorPage',
      summary: 'The form behind the one-time link in the log',
      handler: async (_request, reply) =>
        sendPage(reply, firstAdministratorPage({ needed: await needsAdministrator(context) })),
    })
  }
}

type PageRoute = {
  readonly url: string
  readonly operationId: string
  readonly summary: string
  readonly handler: (
    request: FastifyRequest,
    reply: FastifyReply,
  ) => Promise<FastifyReply> | FastifyReply
}

function page(server: Server, { url, operationId, summary, handler }: PageRoute): void {
  server.route({
    method: 'GET',
    url,
    config: { access: 'public' },
    schema: { operationId, summary, tags: ['pages'], response: htmlResponse },
    handler,
  })
}

async function staticFileRoute(server: Server): Promise<void> {
  const files = await loadStaticFiles()
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
      const found = files.get(request.params.name)
      if (found === undefined) throw new RouteNotFoundError('There is nothing at this path.')
      reply
        .header('etag', found.etag)
        .header('cache-control', 'public, max-age=60, stale-while-revalidate=600')
      if (request.headers['if-none-match'] === found.etag) return reply.code(304).send()
      return reply.type(found.contentType).send(found.bytes)
    },
  })
}

function nodeFacts(facts: PageFacts, request: FastifyRequest): NodeFacts {
  return {
    version: facts.version,
    node: facts.node,
    upSinceIso: new Date(facts.startedAtMs).toISOString(),
    signedInAs: nameOf(request),
    origin: facts.publicUrl ?? `${request.protocol}://${request.host}`,
  }
}

/** The part of the home page that is read from the database. */
async function readHome(context: ApiContext, call: Call): Promise<HomeContent> {
  if (call.depends !== undefined) {
    dependOnModel(call.depends)
    call.depends.list('user', [])
  }
  const types = (await context.content.types.list(call.db))
    .map(({ definition }) => definition)
    .filter(({ name }) => call.authority.grant('read', name) !== null)
    .slice(0, typesMax)
  const perType = await Promise.all(
    types.map(async (definition) => {
      const { count, data } = await context.content.entries.list(call, newest(definition.name))
      return { definition, count: count ?? 0, entries: data }
    }),
  )
  // Only of those that are shown the fields are parsed: an entry can be large.
  const latest = perType
    .flatMap(({ definition, entries }) => entries.map((entry) => ({ definition, entry })))
    .toSorted((a, b) => (b.entry.publishedAt ?? '').localeCompare(a.entry.publishedAt ?? ''))
    .slice(0, latestMax)
    .map(({ definition, entry: { type, id, publishedAt, fieldsJson } }) => {
      const fields = JSON.parse(fieldsJson) as Readonly<Record<string, unknown>>
      return { type, id, title: titleOf(definition, fields) ?? id, publishedAt: publishedAt ?? '' }
    })
  return {
    needsAdministrator: await needsAdministrator(context),
    types: perType.map(({ definition: { name, label }, count: published }) => ({
      name,
      label,
      published,
    })),
    latest,
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
