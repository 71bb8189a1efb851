import { createHash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { ApiContext, Server } from '#api/api-context.ts'
import { callerOf } from '#api/http/caller.ts'
import { nameOf, readPageData, sendPage } from '#api/pages/page-data.ts'
import { markdownFields, readPage } from '#api/pages/read.ts'
import { htmlResponse } from '#api/pages/html.ts'
import { DatabaseAwayError } from '#cache/errors.ts'
import type { ContentType } from '#content/content-type.ts'
import type { Call } from '#content/content.ts'
import type {
  MarkdownJob,
  MarkdownRenderer,
  RenderedMarkdown,
} from '#rendering/markdown-renderer.ts'

type ReadParams = { readonly type: string; readonly id: string }

type ReadData = {
  readonly id: string
  readonly definition: ContentType
  readonly fields: Readonly<Record<string, unknown>>
  readonly publishedAt: string | null
  readonly locale: string
}

/** `/read/TYPE/ID`: one published entry for people. */
export function readPageRoute(
  server: Server,
  context: ApiContext,
  renderer: MarkdownRenderer,
): void {
  server.route<{ Params: ReadParams }>({
    method: 'GET',
    url: '/read/:type/:id',
    config: { access: 'public' },
    schema: {
      operationId: 'getReadPage',
      summary: 'One published entry for people',
      tags: ['pages'],
      response: htmlResponse,
    },
    handler: async (request, reply) => {
      const { params } = request
      const key = `read ${params.type} ${params.id}`
      const { value, staleMs } = await readPageData(context, request, key, (call) =>
        readEntry(context, call, params),
      )
      const markdown = await renderFields(context, request, renderer, value)
      const page = readPage({ ...value, markdown, signedInAs: nameOf(request) })
      return sendPage(reply, page, staleMs)
    },
  })
}

async function readEntry(context: ApiContext, call: Call, params: ReadParams): Promise<ReadData> {
  const { content } = context
  const { type, id } = params
  const options = { locale: null, perspective: 'published', fields: null, include: [] } as const
  const { entry } = await content.entries.get(call, type, id, options)
  const { definition } = await content.types.get(call.db, type)
  return {
    id: entry.id,
    definition,
    fields: JSON.parse(entry.fieldsJson) as ReadData['fields'],
    publishedAt: entry.publishedAt,
    locale: entry.locale,
  }
}

async function renderFields(
  context: ApiContext,
  request: FastifyRequest,
  renderer: MarkdownRenderer,
  { id, definition, fields }: ReadData,
): Promise<ReadonlyMap<string, RenderedMarkdown>> {
  const rendered = new Map<string, RenderedMarkdown>()
  for (const [name, text] of markdownFields(definition, fields)) {
    const job = { text, anchors: false, caller: callerOf(request), group: id }
    rendered.set(name, await renderKept(context, renderer, job))
  }
  return rendered
}

/** Longer than a job may wait and run in the pool of child processes. */
const renderWaitMs = 10_000

class BusyRendererError extends Error {}

/**
 * The HTML of a text never changes, so it is kept under the hash of the text and depends on no row.
 * A refusal is kept as well: the same text is not tried again at each request.
 */
async function renderKept(
  { cluster }: ApiContext,
  renderer: MarkdownRenderer,
  job: MarkdownJob,
): Promise<RenderedMarkdown> {
  if (cluster === null) return renderer.render(job)
  const key = `markdown ${createHash('sha256').update(job.text).digest('base64url')}`
  try {
    const cached = await cluster.cache.get(
      key,
      async () => {
        const rendered = await renderer.render(job)
        if (rendered.kind === 'busy') throw new BusyRendererError()
        return rendered
      },
      { timeoutMs: renderWaitMs },
    )
    return cached.value
  } catch (error) {
    if (error instanceof BusyRendererError) return { kind: 'busy' }
    // The cache fills nothing while the database is away; rendering needs no database.
    if (error instanceof DatabaseAwayError) return renderer.render(job)
    throw error
  }
}
