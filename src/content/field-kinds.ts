import type { Field, FieldKind } from '#content/content-type.ts'
import type { ValueType } from '#content/query/normal-form.ts'

/** The type of an option of a definition, as it is checked before its meaning. */
export type OptionType = 'text' | 'boolean' | 'number' | 'count' | 'texts' | 'other'

export type KindRules = {
  /** The options that a definition of this kind can have, beside those of all fields. */
  readonly options: Readonly<Record<string, OptionType>>
  /** How queries compare its values; null: they cannot filter or sort by it. */
  readonly valueType: ValueType | null
}

const filterable = { filterable: 'boolean', unique: 'boolean' } as const
const searchable = { searchable: 'boolean' } as const

/**
 * The kinds of fields. A new kind gets its definition in content-type.ts, a line here, a check of
 * its values in validation/compile.ts, and a schema in api/openapi/type-schemas.ts; the compiler
 * names each of these that is missing.
 */
export const fieldKinds = {
  text: {
    options: {
      ...filterable,
      ...searchable,
      lengthMin: 'count',
      lengthMax: 'count',
      pattern: 'text',
    },
    valueType: 'text',
  },
  richText: { options: searchable, valueType: null },
  markdown: { options: { ...searchable, lengthMax: 'count' }, valueType: null },
  number: {
    options: { ...filterable, min: 'number', max: 'number', integer: 'boolean' },
    valueType: 'number',
  },
  boolean: { options: filterable, valueType: 'boolean' },
  dateTime: { options: filterable, valueType: 'instant' },
  select: {
    options: { ...filterable, ...searchable, options: 'texts', many: 'boolean' },
    valueType: 'text',
  },
  json: { options: {}, valueType: null },
  slug: { options: { ...searchable, from: 'text' }, valueType: 'text' },
  asset: { options: { ...filterable, many: 'boolean', onDelete: 'text' }, valueType: 'id' },
  reference: {
    options: { ...filterable, many: 'boolean', onDelete: 'text', types: 'texts' },
    valueType: 'id',
  },
  group: { options: { ...searchable, fields: 'other' }, valueType: null },
  list: {
    options: { ...searchable, of: 'other', itemsMax: 'count', filterable: 'boolean' },
    valueType: null,
  },
  blocks: { options: { ...searchable, blocks: 'other', itemsMax: 'count' }, valueType: null },
} as const satisfies Record<FieldKind, KindRules>

export function rulesOf(kind: FieldKind): KindRules {
  return fieldKinds[kind]
}

export function isFieldKind(kind: unknown): kind is FieldKind {
  return typeof kind === 'string' && Object.hasOwn(fieldKinds, kind)
}

/** Fields inside a field, and what their paths begin with: `group.`, `list`, `blocks.quote.`. */
type InnerFields = { readonly prefix: string; readonly fields: readonly Field[] }

/** Returns the fields that a group, a list or blocks have inside; other fields have none. */
export function innerFields(field: Field, prefix = ''): readonly InnerFields[] {
  const path = `${prefix}${field.name}`
  if (field.kind === 'group') return [{ prefix: `${path}.`, fields: field.fields }]
  if (field.kind === 'list') return [{ prefix, fields: [{ ...field.of, name: field.name }] }]
  if (field.kind !== 'blocks') return []
  return field.blocks.map(({ name, fields }) => ({ prefix: `${path}.${name}.`, fields }))
}
