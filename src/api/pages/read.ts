import { Marked } from 'marked'
import sanitizeHtml from 'sanitize-html'
import type { ContentType, Field } from '#content/content-type.ts'
import { html } from '#api/pages/html.ts'
import type { Html } from '#api/pages/html.ts'
import { layout } from '#api/pages/layout.ts'

/**
 * Longer Markdown is cut before it is parsed: this page is for people, and rendering is
 * synchronous.
 */
const markdownCharactersMax = 50_000
/**
 * Characters looked through for the ends of emphasis, over all places where one may begin: a text
 * of nothing but stars and dashes would hold the node for minutes.
 */
const emphasisCharactersMax = 1_000_000

/**
 * One published entry for people: its title, its short fields, and its Markdown as sanitised HTML.
 */
export function readPage(options: {
  readonly definition: ContentType
  readonly fields: Readonly<Record<string, unknown>>
  readonly publishedAt: string | null
  readonly locale: string
  readonly signedInAs: string | null
}): string {
  const { definition, fields } = options
  const title = titleOf(definition, fields) ?? definition.label
  const parts = definition.fields.map((field) => fieldHtml(field, fields[field.name], title))
  const body = html`<article class="entry" lang="${options.locale}">
    <h1>${title}</h1>
    <p class="hint">
      ${definition.label}${options.publishedAt === null ? '' : ` · published ${options.publishedAt.slice(0, 10)}`}
    </p>
    ${parts}
  </article>`
  return layout({ title: `${title} · Stoa`, signedInAs: options.signedInAs, body })
}

/** The text that people recognise the entry by; null where it has none. */
export function titleOf(
  definition: ContentType,
  fields: Readonly<Record<string, unknown>>,
): string | null {
  const name =
    definition.titleField ?? definition.fields.find((field) => field.kind === 'text')?.name
  const value = name === undefined ? null : fields[name]
  return typeof value === 'string' && value !== '' ? value : null
}

function fieldHtml(field: Field, value: unknown, title: string): Html {
  if (typeof value !== 'string' || value === '' || value === title) return html``
  if (field.kind === 'markdown') return { html: renderMarkdown(value) }
  return field.kind === 'text' ? html`<p>${value}</p>` : html``
}

/**
 * Markdown to HTML that is safe to show on our own origin: no scripts, styles, frames, event
 * handlers or foreign protocols.
 */
export function renderMarkdown(markdown: string): string {
  return sanitizeHtml(parsed(markdown.slice(0, markdownCharactersMax)), {
    allowedTags: [...sanitizeHtml.defaults.allowedTags, 'img', 'details', 'summary', 'del'],
    allowedAttributes: {
      a: ['href', 'title'],
      img: ['src', 'alt', 'title', 'width', 'height'],
      code: ['class'],
      th: ['align'],
      td: ['align'],
    },
    allowedSchemes: ['http', 'https', 'mailto'],
    allowedSchemesByTag: { img: ['http', 'https', 'data'] },
    allowProtocolRelative: false,
  })
}

/**
 * HTML that is not safe yet. What nobody writes, nested too deep for the parser or all of emphasis,
 * is shown as it was typed.
 */
function parsed(markdown: string): string {
  let looked = 0
  const emStrong = (rest: string): false => {
    looked += rest.length
    if (looked > emphasisCharactersMax) throw new RangeError('more emphasis than a page has')
    // As the parser does it.
    return false
  }
  try {
    return new Marked({ gfm: true })
      .use({ tokenizer: { emStrong } })
      .parse(markdown, { async: false })
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return html`<pre>${markdown}</pre>`.html
  }
}
