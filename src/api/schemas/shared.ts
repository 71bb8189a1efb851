import { Type } from 'typebox'
import type { TObject, TProperties, TSchema } from 'typebox'

/**
 * Conventions. Schemas are TypeBox; one with `$id` becomes a component of `/openapi.json` under
 * that name, and may be used inside others as it is. Bodies and query strings are `strict`: what is
 * not known is refused. Responses are documented whole (`strict` too): a test compares every
 * response with its schema.
 */
export function strict<Properties extends TProperties>(
  properties: Properties,
  options: Record<string, unknown> = {},
): TObject<Properties> {
  return Type.Object(properties, { additionalProperties: false, ...options })
}

export function nullable<Schema extends TSchema>(schema: Schema) {
  return Type.Union([schema, Type.Null()])
}

export const text = (lengthMax: number, lengthMin = 0) =>
  Type.String({ minLength: lengthMin, maxLength: lengthMax })
/** A moment in UTC with milliseconds. */
export const timestamp = () =>
  Type.String({ format: 'date-time', examples: ['2026-11-20T17:30:00.000Z'] })
/** An id in a path. Anything else than a UUID is simply not found. */
export const idParam = () => Type.String({ minLength: 1, maxLength: 200 })
/** `limit` and `after` of every list. */
export const pageQuery = (limitMax: number) => ({
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: limitMax, default: defaultPageSize })),
  after: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 2_000,
      description: '`meta.after` of the page before.',
    }),
  ),
})
export const defaultPageSize = 20

/** `{ data: [...], meta: { after } }` */
export function pageOf<Schema extends TSchema>(schema: Schema) {
  return strict({ data: Type.Array(schema), meta: strict({ after: nullable(Type.String()) }) })
}

export function dataOf<Schema extends TSchema>(schema: Schema) {
  return strict({ data: schema })
}

export const problemSchema = Type.Object(
  {
    type: Type.String({ description: 'A URL path: the documentation of the code.' }),
    title: Type.String(),
    status: Type.Integer({ minimum: 400, maximum: 599 }),
    detail: Type.String({ description: 'What went wrong and what to do.' }),
    code: Type.String({ pattern: '^E_[A-Z_]+$' }),
    requestId: Type.String(),
  },
  { $id: 'Problem', description: 'RFC 9457. Facts of the error are properties beside these.' },
)
