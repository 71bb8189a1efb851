import type { Schema } from '#api/openapi/components.ts'
import type { ContentType, Field, FieldKind } from '#content/content-type.ts'
import { itemsMax, markdownLengthMax, textLengthMax } from '#content/validation/compile.ts'
import { slugLengthMax } from '#content/validation/slug.ts'

type FieldOf<Kind extends FieldKind> = Extract<Field, { readonly kind: Kind }>

type KindSchemas<Kind extends FieldKind> = {
  /**
   * Schema of a value that the API returns. It promises the kind only, because an old entry may be
   * beyond a limit that was set later.
   */
  readonly value: (field: FieldOf<Kind>) => Schema
  /** Schema of a value that the API accepts. Missing: the same as `value`. */
  readonly input?: (field: FieldOf<Kind>) => Schema
}

const id = { type: 'string', format: 'uuid' }
const text = { type: 'string' }

/** The schemas of each kind of field. A new kind gets an entry here. */
const kinds: { readonly [Kind in FieldKind]: KindSchemas<Kind> } = {
  text: {
    value: () => text,
    input: ({ lengthMin, lengthMax = textLengthMax, pattern }) => ({
      ...text,
      ...(lengthMin === undefined ? {} : { minLength: lengthMin }),
      maxLength: lengthMax,
      ...(pattern === undefined ? {} : { pattern: `^(?:${pattern})$` }),
    }),
  },
  markdown: {
    value: () => text,
    input: ({ lengthMax = markdownLengthMax }) => ({ ...text, maxLength: lengthMax }),
  },
  richText: { value: () => ({ type: 'object', description: 'Structured rich text.' }) },
  slug: {
    value: () => text,
    input: () => ({ ...text, minLength: 1, maxLength: slugLengthMax }),
  },
  number: {
    value: () => ({ type: 'number' }),
    input: ({ integer, min, max }) => ({
      type: integer === true ? 'integer' : 'number',
      ...(min === undefined ? {} : { minimum: min }),
      ...(max === undefined ? {} : { maximum: max }),
    }),
  },
  boolean: { value: () => ({ type: 'boolean' }) },
  dateTime: { value: () => ({ type: 'string', format: 'date-time' }) },
  select: {
    value: ({ many }) => oneOrMany(text, many),
    input: ({ many, options }) =>
      many === true
        ? { type: 'array', uniqueItems: true, items: { enum: options } }
        : { enum: options },
  },
  json: { value: () => ({ description: 'Any JSON.' }) },
  asset: {
    value: ({ many }) => oneOrMany({ ...id, description: 'The id of an asset.' }, many),
  },
  reference: {
    value: ({ many, types }) => {
      const target = types === undefined ? 'an entry' : `an entry of ${types.join(' or ')}`
      return oneOrMany({ ...id, description: `The id of ${target}.` }, many)
    },
  },
  group: {
    value: ({ fields }) => objectOf(fields, valueSchema),
    input: ({ fields }) => objectOf(fields, inputSchema),
  },
  list: {
    value: (field) => ({ type: 'array', items: valueSchema(field.of) }),
    input: (field) => ({
      type: 'array',
      maxItems: field.itemsMax ?? itemsMax,
      items: presentSchema(field.of),
    }),
  },
  blocks: {
    value: ({ blocks }) => ({
      type: 'array',
      items: { oneOf: blocks.map((block) => blockOf(block, valueSchema)) },
    }),
    input: (field) => ({
      type: 'array',
      maxItems: field.itemsMax ?? itemsMax,
      items: { oneOf: field.blocks.map((block) => blockOf(block, inputSchema)) },
    }),
  },
}

function schemasOf<Kind extends FieldKind>(field: FieldOf<Kind>): KindSchemas<Kind> {
  return kinds[field.kind]
}

function oneOrMany(schema: Schema, many: boolean | undefined): Schema {
  return many === true ? { type: 'array', items: schema } : schema
}

/** Schema of a value as the API returns it. */
export function valueSchema(field: Field): Schema {
  return schemasOf(field).value(field)
}

/** Schema of a value as the API accepts it; null takes the value away. */
export function inputSchema(field: Field): Schema {
  return { anyOf: [presentSchema(field), { type: 'null' }] }
}

function presentSchema(field: Field): Schema {
  const { input, value } = schemasOf(field)
  return (input ?? value)(field)
}

type SchemaOf = (field: Field) => Schema

function objectOf(fields: readonly Field[], schemaOf: SchemaOf): Schema {
  return {
    type: 'object',
    additionalProperties: false,
    properties: Object.fromEntries(
      fields.map((field) => [field.name, described(field, schemaOf(field))]),
    ),
  }
}

/** The help that editors see describes the field to programmers as well. */
function described({ label, help }: Field, schema: Schema): Schema {
  const own = typeof schema['description'] === 'string' ? schema['description'] : undefined
  const parts = [label, help, own].filter((part) => part !== undefined)
  return parts.length === 0 ? schema : { ...schema, description: parts.join('. ') }
}

type Block = FieldOf<'blocks'>['blocks'][number]

function blockOf(block: Block, schemaOf: SchemaOf): Schema {
  const { properties } = objectOf(block.fields, schemaOf) as { properties: object }
  return {
    type: 'object',
    title: block.name,
    additionalProperties: false,
    required: ['block'],
    properties: { block: { const: block.name }, ...properties },
  }
}

/** Schema of the `fields` of an entry. `names`: the fields that the reader may see; null: all. */
export function fieldsSchema(
  type: ContentType,
  use: 'value' | 'input',
  names: readonly string[] | null,
): Schema {
  const fields =
    names === null ? type.fields : type.fields.filter((field) => names.includes(field.name))
  return {
    ...objectOf(fields, use === 'value' ? valueSchema : inputSchema),
    description: type.description ?? `The fields of ${type.label}.`,
  }
}
