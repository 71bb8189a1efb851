import type { FieldKind } from '#content/content-type.ts'

/**
 * The shape of a content type's definition, for `/openapi.json`. It is documentation: `content/`
 * checks definitions by itself, all of one at once and with better words, so a body only has to be
 * an object to get there.
 */
type Schema = { readonly [keyword: string]: unknown }

const label = { type: 'string', maxLength: 200 }
const flag = { type: 'boolean' }
const count = { type: 'integer', minimum: 0 }
const fieldName = { type: 'string', pattern: '^[a-z][A-Za-z0-9]{0,62}$' }
const common: Schema = {
  name: fieldName,
  label,
  help: { type: 'string', maxLength: 2_000 },
  required: flag,
  localized: flag,
}
const filterable: Schema = { filterable: flag, unique: flag }
const searchable: Schema = { searchable: flag }
const fields = { type: 'array', minItems: 1, maxItems: 200, items: { $ref: '#/$defs/Field' } }

const kinds: Readonly<
  Record<
    FieldKind,
    {
      readonly properties: Schema
      readonly required?: readonly string[]
      readonly description?: string
    }
  >
> = {
  text: {
    properties: {
      ...filterable,
      ...searchable,
      lengthMin: count,
      lengthMax: count,
      pattern: { type: 'string', maxLength: 2_000 },
    },
  },
  richText: { properties: searchable, description: 'Structured JSON.' },
  markdown: { properties: { ...searchable, lengthMax: count } },
  number: {
    properties: { ...filterable, min: { type: 'number' }, max: { type: 'number' }, integer: flag },
  },
  boolean: { properties: filterable },
  dateTime: { properties: filterable },
  select: {
    properties: {
      ...filterable,
      ...searchable,
      options: {
        type: 'array',
        minItems: 1,
        maxItems: 500,
        items: { type: 'string', minLength: 1, maxLength: 200 },
      },
      many: flag,
    },
    required: ['options'],
  },
  json: { properties: {} },
  slug: {
    properties: { ...searchable, from: fieldName },
    description:
      'Rendered from the text field `from` when left out; unique within type and locale.',
  },
  asset: { properties: { ...filterable, many: flag, onDelete: { enum: ['restrict', 'unset'] } } },
  reference: {
    properties: {
      ...filterable,
      many: flag,
      types: {
        type: 'array',
        minItems: 1,
        items: { type: 'string' },
        description: 'Absent: any type.',
      },
      onDelete: { enum: ['restrict', 'unset', 'cascade'] },
    },
  },
  group: { properties: { ...searchable, fields }, required: ['fields'] },
  list: {
    properties: { ...searchable, of: { $ref: '#/$defs/Field' }, itemsMax: count, filterable: flag },
    required: ['of'],
  },
  blocks: {
    properties: {
      ...searchable,
      blocks: {
        type: 'array',
        minItems: 1,
        items: {
          type: 'object',
          additionalProperties: false,
          required: ['name', 'fields'],
          properties: { name: fieldName, fields },
        },
      },
      itemsMax: count,
    },
    required: ['blocks'],
  },
}

const fieldSchema: Schema = {
  description: 'A field, by its `kind`.',
  oneOf: Object.entries(kinds).map(([kind, { properties, required = [], description }]) => ({
    type: 'object',
    title: kind,
    ...(description === undefined ? {} : { description }),
    additionalProperties: false,
    required: ['name', 'kind', ...required],
    properties: { ...common, kind: { const: kind }, ...properties },
  })),
}

/** `response` carries the revision; `input` may, as the lock. */
export function contentTypeSchema(use: 'response' | 'input'): Schema {
  return {
    $id: use === 'response' ? 'ContentType' : 'ContentTypeInput',
    ...(use === 'input' ? { 'x-checked-by': 'content' } : {}),
    type: 'object',
    additionalProperties: false,
    required: use === 'response' ? ['name', 'label', 'fields', 'revision'] : ['label', 'fields'],
    properties: {
      name: { type: 'string', pattern: '^[a-z][a-z0-9-]{0,62}$' },
      label,
      description: { type: 'string', maxLength: 2_000 },
      titleField: {
        type: 'string',
        description: 'The field that people recognise an entry by. Absent: the first text field.',
      },
      // A reader who may see none of them gets none.
      fields: use === 'response' ? { ...fields, minItems: 0 } : fields,
      indexes: {
        type: 'array',
        maxItems: 20,
        description:
          'Composite indexes for lists: names of fields, `-` before a descending one; system ' +
          'names such as `publishedAt` too.',
        items: { type: 'array', minItems: 1, maxItems: 4, items: { type: 'string' } },
      },
      revision: { type: 'integer', minimum: 1 },
    },
    $defs: { Field: fieldSchema },
  }
}
