import pg from 'pg'

const oids = {
  date: 1082,
  timestamp: 1114,
  timestamptz: 1184,
  timestamptzArray: 1185,
  json: 114,
  jsonb: 3802,
  jsonArray: 199,
  jsonbArray: 3807,
}
const textArrayOid = 1009
const colon = 58
const space = 32

/**
 * "2026-11-20 17:30:00.12+00", as the server writes it when TimeZone is UTC and DateStyle is ISO,
 * to ISO 8601 with milliseconds.
 */
export function isoOf(text: string): string {
  const { length } = text
  // Years past 9999 or before 1, and ±infinity, have another shape and stay what they are.
  if (
    length < 22 ||
    text.charCodeAt(10) !== space ||
    text.charCodeAt(13) !== colon ||
    !text.endsWith('+00')
  )
    return text
  const fraction =
    length === 22
      ? '000'
      : text
          .slice(20, length - 3)
          .padEnd(3, '0')
          .slice(0, 3)
  return `${text.slice(0, 10)}T${text.slice(11, 19)}.${fraction}Z`
}

const raw = (text: string): string => text
const textArray = pg.types.getTypeParser(textArrayOid as number) as (
  text: string,
) => (string | null)[]
const isoArray = (text: string): (string | null)[] =>
  textArray(text).map((item) => (item === null ? null : isoOf(item)))

const parsers = new Map<number, (text: string) => unknown>([
  [oids.timestamptz, isoOf],
  [oids.timestamptzArray, isoArray],
  [oids.date, raw],
  [oids.timestamp, raw],
  [oids.json, raw],
  [oids.jsonb, raw],
  [oids.jsonArray, textArray],
  [oids.jsonbArray, textArray],
])

/** How values arrive; see `Queryable`. */
export const valueTypes: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    parsers.get(oid) ?? pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
}
