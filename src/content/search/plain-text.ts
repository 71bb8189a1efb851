import type { Field } from '#content/content-type.ts'

/**
 * The text of a field's value as people read it: for words and for excerpts. Parts are separated by
 * line breaks.
 */
export function plainText(field: Field, value: unknown): string {
  switch (field.kind) {
    case 'text':
    case 'slug':
      return textOf(value)
    case 'select':
      return Array.isArray(value) ? value.join('\n') : textOf(value)
    case 'markdown':
      return markdownText(textOf(value))
    case 'richText':
      return richTextOf(value)
    case 'group':
      return textOfFields(field.fields, value)
    case 'list':
      return itemsOf(value)
        .map((item) => plainText(field.of, item))
        .join('\n')
    case 'blocks':
      return itemsOf(value)
        .map((item) => {
          const name = (item as { readonly block?: unknown }).block
          const block = field.blocks.find((one) => one.name === name)
          return block === undefined ? '' : textOfFields(block.fields, item)
        })
        .join('\n')
    default:
      return ''
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function itemsOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

function textOfFields(fields: readonly Field[], value: unknown): string {
  if (typeof value !== 'object' || value === null) return ''
  const values = value as Readonly<Record<string, unknown>>
  return fields
    .map((field) => plainText(field, values[field.name]))
    .filter((text) => text !== '')
    .join('\n')
}

/** Every pattern is linear in the text: none can begin again inside what it has read. */
function markdownText(text: string): string {
  return text
    .replaceAll(/<[^<>]*>/g, ' ')
    .replaceAll(/\]\([^()\s]*(?: "[^"()]*")?\)/g, ' ')
    .replaceAll(/^[#>\s]+|^[-+*] |[*`[\]|]+|^-{3,}$/gm, ' ')
}

type RichTextNode = {
  readonly type?: unknown
  readonly text?: unknown
  readonly attrs?: { readonly alt?: unknown }
  readonly content?: readonly RichTextNode[]
}

/** Validation bounds the depth of what is stored. */
function richTextOf(value: unknown): string {
  const parts: string[] = []
  const visit = (node: RichTextNode): void => {
    if (typeof node.text === 'string') parts.push(node.text)
    if (typeof node.attrs?.alt === 'string') parts.push(` ${node.attrs.alt} `)
    const children = Array.isArray(node.content) ? node.content : []
    for (const child of children) visit(child)
    if (children.length > 0 || node.type === 'hardBreak') parts.push('\n')
  }
  if (typeof value === 'object' && value !== null) visit(value)
  return parts.join('')
}
