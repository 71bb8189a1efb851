import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Server } from '#api/api-context.ts'
import { documentationIndex, documentPage } from '#api/pages/documentation.ts'
import { linkDocument, loadDocuments } from '#api/pages/documents.ts'
import { htmlResponse } from '#api/pages/html.ts'
import type { Html } from '#api/pages/html.ts'
import { nameOf, sendPage } from '#api/pages/page-data.ts'
import { markdownHtml } from '#api/pages/read.ts'
import { RouteNotFoundError } from '#api/problems/errors.ts'
import type { MarkdownRenderer } from '#rendering/markdown-renderer.ts'

const notFound = 'The documentation has no such page; /docs lists them all.'

type DocumentParams = { readonly group?: string; readonly page: string }

/** `/docs` and the pages below it: this program's own documentation, as HTML with anchors. */
export async function documentationRoutes(
  server: Server,
  renderer: MarkdownRenderer,
): Promise<void> {
  const groups = await loadDocuments()
  const documents = new Map(
    groups.flatMap((group) => group.documents.map((each) => [each.path, each] as const)),
  )
  /** Rendered on first use; the documents are few and never change. */
  const rendered = new Map<string, Html>()

  const contentOf = async (path: string, text: string): Promise<Html> => {
    const known = rendered.get(path)
    if (known !== undefined) return known
    const job = { text, anchors: true, caller: 'documentation', group: path }
    const result = await renderer.render(job)
    if (result.kind !== 'html') return markdownHtml(text, result)
    const content = { html: linkDocument(result.html) }
    rendered.set(path, content)
    return content
  }

  server.route({
    method: 'GET',
    url: '/docs',
    config: { access: 'public' },
    schema: {
      operationId: 'getDocumentation',
      summary: 'The index of the documentation',
      tags: ['documentation'],
      response: htmlResponse,
    },
    handler: (request, reply) => sendPage(reply, documentationIndex(groups, nameOf(request))),
  })
  const handler = async (
    request: FastifyRequest<{ Params: DocumentParams }>,
    reply: FastifyReply,
  ): Promise<FastifyReply> => {
    const { group, page } = request.params
    const name = page.replace(/\.md$/, '')
    const document = documents.get(group === undefined ? name : `${group}/${name}`)
    if (document === undefined) throw new RouteNotFoundError(notFound)
    const content = await contentOf(document.path, document.markdown)
    const signedInAs = nameOf(request)
    return sendPage(reply, documentPage({ document, groups, content, signedInAs }))
  }
  server.route<{ Params: DocumentParams }>({
    method: 'GET',
    url: '/docs/:page',
    config: { access: 'public' },
    schema: {
      operationId: 'getDocument',
      summary: 'A page of the documentation that is in no group, such as the glossary',
      tags: ['documentation'],
      response: htmlResponse,
    },
    handler,
  })
  server.route<{ Params: DocumentParams }>({
    method: 'GET',
    url: '/docs/:group/:page',
    config: { access: 'public' },
    schema: {
      operationId: 'getGroupedDocument',
      summary: 'A page of the documentation, such as every error code with what to do',
      tags: ['documentation'],
      response: htmlResponse,
    },
    handler,
  })
}
