import assert from 'node:assert/strict'
import type { QueryField } from '#content/query/normal-form.ts'
import type { Scalar } from '#lib/scalar.ts'

/** Collects the parameters of one statement. */
export class Values {
  readonly list: unknown[] = []

  /** Adds a value and returns its place, such as `$3`. */
  add(value: unknown): string {
    return `$${this.list.push(value)}`
  }
}

const columns: Readonly<Record<string, string>> = {
  id: 'entry_id',
  locale: 'locale',
  version: 'number',
  createdAt: 'created_at',
  updatedAt: 'saved_at',
  publishedAt: 'published_at',
  firstPublishedAt: 'first_published_at',
  createdBy: 'created_by_id',
  $relevance: 'relevance',
}

/**
 * `draftsSeen` false: a reader who knows only what is published, for whom every entry simply is.
 * `table` has the versions of the type.
 */
export type Sight = { readonly draftsSeen: boolean; readonly table: string }

/**
 * The SQL of one field's value, NULL where it is missing: what queries compare and sort by, and
 * what indexes are made of. Both come from here, because PostgreSQL uses an index only for the very
 * expression it was made with. `prefix` is that of a row in a query and empty in an index, which
 * cannot hold `status`: that depends on other rows.
 */
export function expressionOf(
  field: QueryField,
  prefix: 'v.' | 'w.' | '',
  sight: Sight = { draftsSeen: true, table: '' },
): string {
  if (field.system) return systemExpression(field, prefix, sight)
  const key = literal(field.name)
  if (field.many) return `(${prefix}filter -> ${key})`
  switch (field.type) {
    case 'number':
      // Guarded: a value of a field's former kind must not make every query and save fail until it
      // is renewed.
      return (
        `(case when jsonb_typeof(${prefix}filter -> ${key}) = 'number' then (${prefix}filter -> ` +
        `${key})::float8 end)`
      )
    default:
      // Instants in normal form and booleans order as text the way they order as values.
      return `((${prefix}filter ->> ${key}) collate "C")`
  }
}

function systemExpression(field: QueryField, prefix: string, sight: Sight): string {
  if (field.name === 'status')
    return prefix === ''
      ? assert.fail('status cannot be indexed')
      : `(${statusExpression(sight, prefix)} collate "C")`
  const column = `${prefix}${columns[field.name] ?? assert.fail(`no column for ${field.name}`)}`
  if (field.name === '$relevance') return column
  if (field.name === 'locale') return `(${column} collate "C")`
  return field.type === 'number' ? `(${column}::float8)` : column
}

/** The status of a row, as in `EntryView`. */
export function statusExpression(sight: Sight, prefix = 'v.'): string {
  if (!sight.draftsSeen) return `'published'::text`
  return `(case when ${prefix}is_archived then 'archived' \
when ${prefix}is_published \
then case when ${prefix}is_latest then 'published' else 'changed' end \
when exists (select from ${sight.table} p \
where p.entry_id = ${prefix}entry_id and p.locale = ${prefix}locale \
and p.is_published) then 'changed' \
else 'draft' end)`
}

/** The PostgreSQL type of a field's parameters. */
export function parameterType(field: QueryField): 'uuid' | 'text' | 'float8' | 'timestamptz' {
  if (field.system && field.type === 'instant') return 'timestamptz'
  if (field.name === 'id' && field.system) return 'uuid'
  return field.type === 'number' ? 'float8' : 'text'
}

/** A value in normal form as the parameter of that type. */
export function parameterOf(field: QueryField, value: Scalar): string {
  const text = String(value)
  // PostgreSQL calls the year 0000 of ISO 8601 the year 1 BC.
  return parameterType(field) === 'timestamptz' && text.startsWith('0000-')
    ? `0001${text.slice(4)} BC`
    : text
}

const literalPattern = /^[A-Za-z][A-Za-z0-9-]{0,62}$/

/**
 * A name as an SQL literal. Names of types and fields are part of a statement's structure; their
 * pattern cannot end a literal.
 */
export function literal(name: string): string {
  assert.ok(
    literalPattern.test(name),
    'a name of a type or field has a character that its pattern forbids',
  )
  return `'${name}'`
}
