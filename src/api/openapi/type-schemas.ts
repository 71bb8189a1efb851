import type { Schema } from '#api/openapi/components.ts'
import type { ContentType, Field } from '#content/content-type.ts'

/** Schemas of the values of fields, made from a content type's definition. */
const id = { type: 'string', format: 'uuid' }

function many(schema: Schema, isMany: boolean | undefined): Schema {
  return isMany === true ? { type: 'array', items: schema } : schema
}

/**
 * As the API returns it. Old entries may be beyond limits that were set later, so only kinds are
 * promised.
 */
export function valueSchema(field: Field): Schema {
  switch (field.kind) {
    case 'text':
    case 'markdown':
    case 'slug':
      return { type: 'string' }
    case 'richText':
      return { type: 'object', description: 'Structured rich text.' }
    case 'number':
      return { type: 'number' }
    case 'boolean':
      return { type: 'boolean' }
    case 'dateTime':
      return { type: 'string', format: 'date-time' }
    case 'select':
      return many({ type: 'string' }, field.many)
    case 'json':
      return { description: 'Any JSON.' }
    case 'asset':
      return many({ ...id, description: 'The id of an asset.' }, field.many)
    case 'reference':
      return many(
        {
          ...id,
          description:
            field.types === undefined
              ? 'The id of an entry.'
              : `The id of an entry of ${field.types.join(' or ')}.`,
        },
        field.many,
      )
    case 'group':
      return objectOf(field.fields, valueSchema)
    case 'list':
      return { type: 'array', items: valueSchema(field.of) }
    case 'blocks':
      return {
        type: 'array',
        items: { oneOf: field.blocks.map((block) => blockOf(block, valueSchema)) },
      }
  }
}

/** As the API takes it; null takes a value away. */
export function inputSchema(field: Field): Schema {
  return { anyOf: [limited(field), { type: 'null' }] }
}

function limited(field: Field): Schema {
  switch (field.kind) {
    case 'text':
      return {
        ...valueSchema(field),
        ...(field.lengthMin === undefined ? {} : { minLength: field.lengthMin }),
        maxLength: field.lengthMax ?? 20_000,
        ...(field.pattern === undefined ? {} : { pattern: `^(?:${field.pattern})$` }),
      }
    case 'markdown':
      return { ...valueSchema(field), maxLength: field.lengthMax ?? 500_000 }
    case 'slug':
      return { ...valueSchema(field), minLength: 1, maxLength: 200 }
    case 'number':
      return {
        type: field.integer === true ? 'integer' : 'number',
        ...(field.min === undefined ? {} : { minimum: field.min }),
        ...(field.max === undefined ? {} : { maximum: field.max }),
      }
    case 'select':
      return field.many === true
        ? { type: 'array', uniqueItems: true, items: { enum: field.options } }
        : { enum: field.options }
    case 'group':
      return objectOf(field.fields, inputSchema)
    case 'list':
      return { type: 'array', maxItems: field.itemsMax ?? 1_000, items: limited(field.of) }
    case 'blocks':
      return {
        type: 'array',
        maxItems: field.itemsMax ?? 1_000,
        items: { oneOf: field.blocks.map((block) => blockOf(block, inputSchema)) },
      }
    default:
      return valueSchema(field)
  }
}

function objectOf(fields: readonly Field[], schemaOf: (field: Field) => Schema): Schema {
  return {
    type: 'object',
    additionalProperties: false,
    properties: Object.fromEntries(fields.map((field) => [field.name, schemaOf(field)])),
  }
}

function blockOf(
  block: { readonly name: string; readonly fields: readonly Field[] },
  schemaOf: (field: Field) => Schema,
): Schema {
  const { properties } = objectOf(block.fields, schemaOf) as { properties: object }
  return {
    type: 'object',
    title: block.name,
    additionalProperties: false,
    required: ['block'],
    properties: { block: { const: block.name }, ...properties },
  }
}

/** The `fields` of an entry; `names` are those that the reader may see. */
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
