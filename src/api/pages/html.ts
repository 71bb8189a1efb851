import { Type } from 'typebox'

/** HTML from a tagged template: every value is escaped, except the results of `html` itself. */
export type Html = { readonly html: string }

const escapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => escapes[character]!)
}

type Value = Html | string | number | null | readonly Html[]

function print(value: Value): string {
  if (value === null) return ''
  if (typeof value === 'string') return escapeHtml(value)
  if (typeof value === 'number') return String(value)
  return 'html' in value ? value.html : value.map((each) => each.html).join('')
}

export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Html {
  return {
    html: parts
      .map((part, index) => part + (index < values.length ? print(values[index]!) : ''))
      .join(''),
  }
}

/** Documents the response of a route that sends a page for people. */
export const htmlResponse = {
  200: { description: 'A page for people', content: { 'text/html': { schema: Type.String() } } },
}
