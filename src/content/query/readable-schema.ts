import type { ContentType } from '#content/content-type.ts'
import { QueryFieldError } from '#content/query/errors.ts'
import { querySchema } from '#content/query/normal-form.ts'
import type { QueryField, QuerySchema } from '#content/query/normal-form.ts'
import { visibleFields } from '#content/query/readable-type.ts'
import type { ReadableType } from '#content/query/readable-type.ts'

/**
 * The fields that this reader can query. A field outside the grant is not there, exactly as if the
 * type did not have it.
 */
export function readableSchema({ type, grant }: ReadableType): QuerySchema {
  const schema = querySchema(type)
  const { fields } = grant
  if (fields === null) return schema
  return new Map([...schema].filter(([name, field]) => field.system || fields.includes(name)))
}

/**
 * The field of this name as queries use it. `QueryFieldError` where this reader has none. `schema`
 * is their `readableSchema`.
 */
export function queryFieldNamed(
  name: string,
  schema: QuerySchema,
  readable: ReadableType,
): QueryField {
  const field = schema.get(name)
  if (field !== undefined) return field
  if (visibleFields(readable).some((other) => other.name === name)) {
    throw new QueryFieldError(
      `The field "${name}" of "${readable.type.name}" is not filterable: queries can neither ` +
        `filter nor sort by it.`,
      {
        field: name,
        allowed: [...schema.keys()],
      },
    )
  }
  throw unknownField(name, readable.type, [...schema.keys()])
}

export function unknownField(
  name: string,
  type: ContentType,
  allowed: readonly string[],
): QueryFieldError {
  return new QueryFieldError(
    `"${type.name}" has no field "${brief(name)}" that you can use here; there are: ` +
      `${allowed.join(', ') || 'none'}.`,
    { field: brief(name), allowed },
  )
}

/** The beginning of a caller's text, for an error. */
export function brief(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 79).toWellFormed()}…`
}
