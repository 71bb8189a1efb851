import { normalInstant } from '#content/query/normal-form.ts'

const shape = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)$/

/**
 * RFC 3339 with a zone to UTC with three fraction digits, the rest cut off; null where it is no
 * such time. Queries take a little more (a date alone): what is stored was meant to the second.
 */
export function normalDateTime(text: string): string | null {
  return shape.test(text) ? normalInstant(text) : null
}
