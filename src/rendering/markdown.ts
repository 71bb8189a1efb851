import { Marked } from 'marked'
import type { RendererObject } from 'marked'
import sanitizeHtml from 'sanitize-html'

export type MarkdownOptions = {
  /** Headings get an id, so that links can lead to them. Only for our own documents. */
  readonly anchors: boolean
}

/**
 * Turns Markdown into HTML that is safe on our own origin: no scripts, styles, frames, event
 * handlers or foreign protocols. Time and memory grow with more than the length of the text, so
 * only a child process runs this on text that strangers wrote.
 */
export function renderMarkdown(markdown: string, { anchors }: MarkdownOptions): string {
  const marked = new Marked({ gfm: true })
  if (anchors) marked.use({ renderer: { heading: headingWithAnchor() } })
  const html = sanitizeHtml(marked.parse(markdown, { async: false }), {
    allowedTags: [...sanitizeHtml.defaults.allowedTags, 'img', 'details', 'summary', 'del'],
    allowedAttributes: {
      a: ['href', 'title'],
      img: ['src', 'alt', 'title', 'width', 'height'],
      code: ['class'],
      th: ['align'],
      td: ['align'],
      ...(anchors ? { h1: ['id'], h2: ['id'], h3: ['id'], h4: ['id'] } : {}),
    },
    allowedSchemes: ['http', 'https', 'mailto'],
    allowedSchemesByTag: { img: ['http', 'https', 'data'] },
    allowProtocolRelative: false,
  })
  // A wide block of code scrolls, and the keyboard can only scroll what has the focus.
  return html.replaceAll('<pre>', '<pre tabindex="0">')
}

type HeadingRenderer = NonNullable<RendererObject['heading']>

/** Ids are made as GitHub makes them, so the same link works there and here. */
function headingWithAnchor(): HeadingRenderer {
  const used = new Map<string, number>()
  return function heading({ tokens, depth, text }) {
    const slug = text
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replaceAll(/\s/g, '-')
    const count = used.get(slug) ?? 0
    used.set(slug, count + 1)
    const id = count === 0 ? slug : `${slug}-${count}`
    return `<h${depth} id="${id}">${this.parser.parseInline(tokens)}</h${depth}>\n`
  }
}
