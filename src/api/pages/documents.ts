import { readdir, readFile } from 'node:fs/promises'
import { parsePage } from '#lib/front-matter.ts'

const folder = new URL('../../../docs/', import.meta.url)

/** The groups of the documentation, in the order of its index. */
const groups = [
  { name: 'guide', label: 'Guide' },
  { name: 'reference', label: 'Reference' },
  { name: 'decisions', label: 'Decisions' },
] as const

export type Document = {
  /** Below `/docs/`, such as `guide/queries`. */
  readonly path: string
  readonly title: string
  readonly summary: string | null
  readonly markdown: string
}

export type DocumentGroup = { readonly label: string; readonly documents: readonly Document[] }

/** Reads every page below `docs/`. They are part of the program and do not change while it runs. */
export async function loadDocuments(): Promise<DocumentGroup[]> {
  return Promise.all(
    groups.map(async ({ name, label }) => {
      const names = (await readdir(new URL(`${name}/`, folder))).filter(
        (file) => file.endsWith('.md') && file !== 'README.md',
      )
      const files = names.toSorted().map((file) => `${name}/${file}`)
      if (name === 'reference') files.push('glossary.md')
      const pages = await Promise.all(files.map(readDocument))
      const documents = pages.toSorted((a, b) => a.order - b.order).map(({ document }) => document)
      return { label, documents }
    }),
  )
}

type OrderedDocument = { readonly order: number; readonly document: Document }

async function readDocument(file: string): Promise<OrderedDocument> {
  const parsed = parsePage(await readFile(new URL(file, folder), 'utf8'))
  if (!parsed.ok) throw new Error(`docs/${file}: ${parsed.reason}`)
  const { frontMatter, body } = parsed.page
  const heading = /^# (.+)\n/.exec(body)
  const title = typeof frontMatter['title'] === 'string' ? frontMatter['title'] : heading?.[1]
  const summary = typeof frontMatter['summary'] === 'string' ? frontMatter['summary'] : null
  const order = typeof frontMatter['order'] === 'number' ? frontMatter['order'] : 0
  const path = file.replace(/\.md$/, '')
  const markdown = heading === null ? body : body.slice(heading[0].length)
  return {
    order,
    document: { path, title: plainText(title ?? path), summary, markdown },
  }
}

function plainText(title: string): string {
  return title.replaceAll('`', '')
}

/** A link from one page of the documentation to another. */
const pageLink = /^(?:\.\/|\.\.\/(?:(?:guide|reference|decisions)\/)?)?[\w-]+\.md(?:#|$)/

/**
 * Makes the links of a rendered document work on the node: a link to another page loses its `.md`,
 * and a link that leaves the documentation becomes text. Rows of tables that begin with a code,
 * such as an error code, get an anchor.
 */
export function linkDocument(html: string): string {
  return html
    .replaceAll(/<a href="([^"]*)"([^>]*)>(.*?)<\/a>/gs, (link, href: string, rest, text) => {
      if (/^(?:https?:|mailto:|#|\/)/.test(href)) return link
      return pageLink.test(href)
        ? `<a href="${href.replace('.md', '')}"${rest}>${text}</a>`
        : (text as string)
    })
    .replaceAll(/<tr>\s*<td><code>([A-Za-z_][\w.-]*)<\/code><\/td>/g, (_row, code: string) => {
      const id = code.toLowerCase()
      return `<tr id="${id}"><td><a class="code" href="#${id}"><code>${code}</code></a></td>`
    })
}
