import { QueryCursorError } from '#content/query/errors.ts'
import { normalValue } from '#content/query/normal-form.ts'
import type { QuerySchema } from '#content/query/normal-form.ts'
import type { Sort } from '#content/query/query.ts'
import type { Scalar } from '#lib/scalar.ts'
import { completeSort } from '#content/query/sort.ts'

/** Longest token that is read: four texts of the longest kind, escaped, in base64. */
export const cursorLengthMax = 12_000

/**
 * The place of an entry in a sort: one value for each key of the complete sort, null for a missing
 * one; the last is its id.
 */
export type Position = readonly (Scalar | null)[]

/**
 * An opaque token for a place in the list of a type in this sort. It holds nothing that the page
 * itself did not show.
 */
export function encodeCursor(type: string, sort: readonly Sort[], position: Position): string {
  return Buffer.from(JSON.stringify([signatureOf(type, sort), ...position])).toString('base64url')
}

/** Reads a token back. `QueryCursorError`: it is garbled, or of another type or sort. */
export function decodeCursor(
  token: string,
  type: string,
  sort: readonly Sort[],
  schema: QuerySchema,
): Position {
  const parsed = parse(token)
  if (parsed === null)
    throw new QueryCursorError(
      '`after` is not a cursor: repeat `meta.after` of the page before exactly, or begin ' +
        'without it.',
    )
  const [signature, ...position] = parsed
  if (signature !== signatureOf(type, sort)) {
    throw new QueryCursorError(
      '`after` comes from a list of another type or in another sort: repeat the sort of the ' +
        'page that gave it, or begin without `after`.',
    )
  }
  const keys = completeSort(sort)
  const valid =
    position.length === keys.length &&
    keys.every((key, i) => {
      const field = schema.get(key.field)
      const value = position[i]
      if (field === undefined) return false
      return value === null ? field.nullable : normalValue(field.type, value) === value
    })
  if (!valid)
    throw new QueryCursorError(
      '`after` does not fit the type as it is now: begin again without it.',
    )
  return position as Position
}

function parse(token: string): unknown[] | null {
  if (token.length > cursorLengthMax) return null
  const bytes = Buffer.from(token, 'base64url')
  // Decoding skips what is no base64url; only the token itself encodes back to itself.
  if (bytes.toString('base64url') !== token) return null
  try {
    const parsed: unknown = JSON.parse(bytes.toString())
    return Array.isArray(parsed) ? parsed : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}

function signatureOf(type: string, sort: readonly Sort[]): string {
  return `${type}:${completeSort(sort)
    .map((key) => (key.descending ? `-${key.field}` : key.field))
    .join(',')}`
}
