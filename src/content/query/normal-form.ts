import { isId } from '#lib/id.ts'
import { rulesOf } from '#content/field-kinds.ts'
import type { ContentType, Field } from '#content/content-type.ts'
import { FilterValueTooLongError } from '#content/query/errors.ts'
import type { Scalar } from '#lib/scalar.ts'

/**
 * Longest text that a filterable field may have, in bytes of UTF-8. A row of a B-tree holds 2,704
 * bytes, and a composite index can have four texts besides locale, instant and id; past that the
 * database would refuse the save.
 */
export const filterTextBytesMax = 600

export type ValueType = 'text' | 'number' | 'boolean' | 'instant' | 'id'

/** A field that queries can use. */
export type QueryField = {
  readonly name: string
  readonly type: ValueType
  readonly many: boolean
  /** Can be missing. */
  readonly nullable: boolean
  /** A field that every entry has, kept in a column; others are kept in `filter`. */
  readonly system: boolean
  /** All values that it can have; absent: any of its type. */
  readonly values?: readonly string[]
}

export type QuerySchema = ReadonlyMap<string, QueryField>

/**
 * The content of `stoa.version.filter`: the filterable fields in normal form; a missing value has
 * no key. Null: there is a value that filters cannot see, because it is too long for an index. To
 * queries that is a missing value; no grant matches it.
 */
export type FilterData = Readonly<Record<string, Scalar | readonly Scalar[] | null>>

function system(name: string, type: ValueType, nullable = false): QueryField {
  return { name, type, many: false, nullable, system: true }
}

const systemQueryFields: readonly QueryField[] = [
  system('id', 'id'),
  system('locale', 'text'),
  system('version', 'number'),
  { ...system('status', 'text'), values: ['draft', 'published', 'changed', 'archived'] },
  system('createdAt', 'instant'),
  system('updatedAt', 'instant'),
  system('publishedAt', 'instant', true),
  system('firstPublishedAt', 'instant', true),
  system('createdBy', 'id', true),
]

/** How queries see a field of a type; null: they cannot use it. */
export function queryFieldOf(field: Field): QueryField | null {
  const options = field.kind === 'list' ? field.of : field
  const shape = {
    name: field.name,
    nullable: true,
    system: false,
    ...(options.kind === 'select' && options.options.length > 0 ? { values: options.options } : {}),
  }
  if (field.kind === 'list') {
    const type = rulesOf(field.of.kind).valueType
    const nested = 'many' in field.of && field.of.many
    return field.filterable === true && type !== null && !nested
      ? { ...shape, type, many: true }
      : null
  }
  const type = rulesOf(field.kind).valueType
  if (type === null) return null
  const asked =
    field.kind === 'slug' ||
    ('filterable' in field && field.filterable) ||
    ('unique' in field && field.unique)
  return asked ? { ...shape, type, many: 'many' in field && field.many } : null
}

const schemas = new WeakMap<ContentType, QuerySchema>()

/**
 * The fields of a type that queries can use, system fields included. The same definition gives the
 * same map.
 */
export function querySchema(type: ContentType): QuerySchema {
  const known = schemas.get(type)
  if (known !== undefined) return known
  const schema = new Map(systemQueryFields.map((field) => [field.name, field]))
  for (const field of type.fields) {
    const found = queryFieldOf(field)
    if (found !== null) schema.set(field.name, found)
  }
  schemas.set(type, schema)
  return schema
}

const instantPattern =
  /^(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:([Zz])|([+-])(\d\d):?(\d\d)))?$/

/**
 * An instant as `YYYY-MM-DDTHH:mm:ss.sssZ`, so that text order is time order; null for anything
 * else. Takes ISO 8601 with `Z` or an offset, and a date alone as midnight UTC. A time without a
 * zone names no instant. Digits past the millisecond are cut. Years 0000 to 9999 in UTC.
 */
export function normalInstant(text: string): string | null {
  const match = instantPattern.exec(text)
  if (match === null) return null
  const [
    ,
    date = '',
    minutes = '00:00',
    seconds = '00',
    fraction = '',
    ,
    sign,
    zoneHours = '0',
    zoneMinutes = '0',
  ] = match
  const local = `${date}T${minutes}:${seconds}.${fraction.padEnd(3, '0').slice(0, 3)}Z`
  const localMs = Date.parse(local)
  // Date.parse rolls 30 February over to March and takes 24:00; neither is a date that an author
  // meant.
  if (Number.isNaN(localMs) || new Date(localMs).toISOString() !== local) return null
  if (Number(zoneHours) > 23 || Number(zoneMinutes) > 59) return null
  const offsetMs = (Number(zoneHours) * 60 + Number(zoneMinutes)) * 60_000 * (sign === '-' ? -1 : 1)
  const result = new Date(localMs - offsetMs).toISOString()
  return /^\d{4}-/.test(result) ? result : null
}

/** Text that PostgreSQL can keep: no U+0000, no half of a surrogate pair. */
export function isStorableText(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}

/** A value in normal form; null where it is none of that type. */
export function normalValue(type: ValueType, value: unknown): Scalar | null {
  switch (type) {
    case 'text':
      return typeof value === 'string' && isStorableText(value) ? value : null
    case 'id':
      return typeof value === 'string' && isId(value) ? value : null
    case 'number':
      // Adding 0 turns -0 into 0, which the normal form does not distinguish.
      return typeof value === 'number' && Number.isFinite(value) ? value + 0 : null
    case 'boolean':
      return typeof value === 'boolean' ? value : null
    case 'instant':
      return typeof value === 'string' ? normalInstant(value) : null
  }
}

/**
 * What `stoa.version.filter` keeps of an entry's fields, which must be valid for the type. Many
 * values are kept once each; an empty list is missing. Throws `FilterValueTooLongError` where an
 * index could not hold the text.
 */
export function filterOf(type: ContentType, fields: Readonly<Record<string, unknown>>): FilterData {
  const data: Record<string, Scalar | readonly Scalar[]> = {}
  for (const field of querySchema(type).values()) {
    if (field.system || !Object.hasOwn(fields, field.name)) continue
    const raw = fields[field.name]
    const values = (Array.isArray(raw) ? raw : [raw])
      .map((value) => normalValue(field.type, value))
      .filter((value) => value !== null)
    for (const value of values) checkLength(field.name, value)
    const [first] = values
    if (first === undefined) continue
    data[field.name] = field.many ? [...new Set(values)] : first
  }
  return data
}

function checkLength(field: string, value: Scalar): void {
  // A UTF-16 unit takes one to three bytes, so short texts need not be measured.
  if (typeof value !== 'string' || value.length * 3 <= filterTextBytesMax) return
  const bytes = Buffer.byteLength(value)
  if (bytes <= filterTextBytesMax) return
  throw new FilterValueTooLongError(
    `The field "${field}" is filterable, so its text may have at most ${filterTextBytesMax} ` +
      `bytes; this one has ${bytes}. Shorten it, or make the field not filterable.`,
    { field, bytes, bytesMax: filterTextBytesMax },
  )
}
