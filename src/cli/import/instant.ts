import { normalInstant } from '#content/query/normal-form.ts'

const dateTime =
  /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?(?:\s?(Z|[+-]\d\d(?::?\d\d)?))?)?$/i

/**
 * A date or time as front matter writes it (`2019-05-06 07:08:09 +0200`, `2020-01-01`) as an
 * instant in normal form. Without a zone it is UTC, and a date alone is midnight. Null for anything
 * else.
 */
export function instantOf(value: unknown): string | null {
  if (typeof value !== 'string') return null
  const match = dateTime.exec(value.trim())
  if (match === null) return null
  const [, date = '', minutes = '00:00', seconds = ':00', zone = 'Z'] = match
  return normalInstant(`${date}T${minutes}${seconds}${zoneOf(zone)}`)
}

function zoneOf(text: string): string {
  if (text.toUpperCase() === 'Z') return 'Z'
  const digits = text.replaceAll(/[^\d]/g, '').padEnd(4, '0')
  return `${text[0]!}${digits.slice(0, 2)}:${digits.slice(2)}`
}
