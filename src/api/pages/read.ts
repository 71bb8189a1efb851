import type { ContentType, Field } from '#content/content-type.ts'
import { html } from '#api/pages/html.ts'
import type { Html } from '#api/pages/html.ts'
import { layout } from '#api/pages/layout.ts'
import type { RenderedMarkdown } from '#rendering/markdown-renderer.ts'

type Fields = Readonly<Record<string, unknown>>

export type ReadPageOptions = {
  readonly definition: ContentType
  readonly fields: Fields
  /** The rendered values of the fields that `markdownFields` names. */
  readonly markdown: ReadonlyMap<string, RenderedMarkdown>
  readonly publishedAt: string | null
  readonly locale: string
  readonly signedInAs: string | null
}

/** One published entry for people: its title, its short fields, and its Markdown as HTML. */
export function readPage(options: ReadPageOptions): string {
  const { definition, fields, publishedAt, locale, signedInAs } = options
  const title = titleOf(definition, fields) ?? definition.label
  const published = publishedAt === null ? '' : ` · published ${publishedAt.slice(0, 10)}`
  const body = html`<article class="entry prose" lang="${locale}">
    <h1>${title}</h1>
    <p class="hint">${definition.label}${published}</p>
    ${definition.fields.map((field) => fieldHtml(field, title, options))}
  </article>`
  return layout({ title: `${title} · Stoa`, signedInAs, body })
}

/** The text that people recognise the entry by; null where it has none. */
export function titleOf(definition: ContentType, fields: Fields): string | null {
  const name =
    definition.titleField ?? definition.fields.find((field) => field.kind === 'text')?.name
  const value = name === undefined ? null : fields[name]
  return typeof value === 'string' && value !== '' ? value : null
}

/** Names and texts of the Markdown fields that the page shows. */
export function markdownFields(definition: ContentType, fields: Fields): [string, string][] {
  return definition.fields
    .filter((field) => field.kind === 'markdown')
    .map((field): [string, unknown] => [field.name, fields[field.name]])
    .filter((pair): pair is [string, string] => typeof pair[1] === 'string' && pair[1] !== '')
}

function fieldHtml(field: Field, title: string, { fields, markdown }: ReadPageOptions): Html {
  const value = fields[field.name]
  if (typeof value !== 'string' || value === '' || value === title) return html``
  if (field.kind === 'markdown') return markdownHtml(value, markdown.get(field.name))
  return field.kind === 'text' ? html`<p>${value}</p>` : html``
}

/** Markdown that could not be rendered is shown as it was typed, with the reason. */
export function markdownHtml(text: string, rendered: RenderedMarkdown | undefined): Html {
  if (rendered?.kind === 'html') return { html: rendered.html }
  const reason =
    rendered?.kind === 'refused'
      ? 'This text is too long or too deeply nested to be laid out, so it is shown as it was typed.'
      : 'The node is too busy to lay this text out now, so it is shown as it was typed. ' +
        'Reload the page in a moment.'
  return html`<p class="notice">${reason}</p>
    <pre class="typed">${text}</pre>`
}
