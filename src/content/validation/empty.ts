import type { Field } from '#content/content-type.ts'

/** White space and characters that show nothing, such as a zero-width space. */
const blank = /^[\s\p{Cf}]*$/u
/** Rich text nodes that show something by themselves. */
const visibleNodes = new Set(['image', 'horizontalRule'])

/**
 * The one notion of "no value", at every depth: what is required must not be empty. Blank text,
 * rich text that shows nothing, lists and groups in which everything is empty. Zero and false are
 * values.
 */
export function isEmpty(field: Field, value: unknown): boolean {
  if (value === undefined || value === null) return true
  if (typeof value === 'string') return blank.test(value)
  switch (field.kind) {
    case 'richText':
      return !showsSomething(value)
    case 'group':
      return field.fields.every((one) => isEmpty(one, (value as Record<string, unknown>)[one.name]))
    case 'list':
      return Array.isArray(value) && value.every((item) => isEmpty(field.of, item))
    case 'json':
      return typeof value === 'object' && Object.keys(value).length === 0
    default:
      return Array.isArray(value) && value.every((item) => item === null || item === '')
  }
}

function showsSomething(node: unknown): boolean {
  if (typeof node !== 'object' || node === null) return false
  const { type, text, content } = node as Record<string, unknown>
  if (typeof type === 'string' && visibleNodes.has(type)) return true
  if (typeof text === 'string' && !blank.test(text)) return true
  return Array.isArray(content) && content.some(showsSomething)
}
