import { QueryFieldError, QueryLimitError } from '#content/query/errors.ts'
import type { QueryField } from '#content/query/normal-form.ts'
import { visibleFields } from '#content/query/readable-type.ts'
import type { QueryReader, ReadableType } from '#content/query/readable-type.ts'
import { queryFieldNamed, readableSchema } from '#content/query/readable-schema.ts'

/** A field of what a reference points to, as a filter names it: `category.slug`. */
export type Across = {
  readonly reference: QueryField
  /**
   * The types that the reference may point to, that the reader may read, and that have the field.
   */
  readonly targets: readonly { readonly readable: ReadableType; readonly field: QueryField }[]
}

/** Returns whether the name of a field leads across a reference. */
export function isAcross(name: string): boolean {
  return name.includes('.')
}

/**
 * Finds the field that a name such as `category.slug` leads to, one step across a filterable
 * reference. Throws `QueryFieldError` or `QueryLimitError`; they say nothing about what the reader
 * may not see.
 */
export function fieldAcross(name: string, reader: ReadableType | QueryReader): Across {
  const [first = '', second = '', ...more] = name.split('.')
  if (more.length > 0)
    throw new QueryLimitError('A filter goes one step across a reference: `category.slug`.', {
      limit: 1,
    })
  const reference = queryFieldNamed(first, readableSchema(reader), reader)
  const definition = visibleFields(reader).find((field) => field.name === first)
  if (definition?.kind !== 'reference' || !('targets' in reader))
    throw new QueryFieldError(
      `"${first}" is no reference: a filter cannot go on to a field of what it points to.`,
      { field: first },
    )
  const readable = reader.targets(definition.types ?? null)
  const targets = readable.flatMap((one) => {
    const field = readableSchema(one).get(second)
    return field === undefined ? [] : [{ readable: one, field }]
  })
  if (targets.length > 0) return { reference, targets }
  const names = new Set(readable.flatMap((one) => [...readableSchema(one).keys()]))
  const allowed = [...names].map((field) => `${first}.${field}`)
  throw new QueryFieldError(
    `"${first}" points to nothing with a filterable field ` +
      `"${second.slice(0, 80).toWellFormed()}" that you can use; there are: ` +
      `${allowed.join(', ') || 'none'}.`,
    { field: name.slice(0, 160).toWellFormed(), allowed },
  )
}
