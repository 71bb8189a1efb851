import type { ContentType } from '#content/content-type.ts'
import { querySchema } from '#content/query/normal-form.ts'
import type { QuerySchema } from '#content/query/normal-form.ts'
import type { Filter, ListQuery, Sort, Test } from '#content/query/query.ts'

/** An `in` with more values is more than a few walks along an index. */
const indexedValuesMax = 20
/** System fields that every list can be narrowed or ordered by along an index. */
const indexedSystemFields: ReadonlySet<string> = new Set(['id', 'publishedAt', 'updatedAt'])
const indexedTests: ReadonlySet<Test['is']> = new Set([
  'eq',
  'in',
  'lt',
  'lte',
  'gt',
  'gte',
  'startsWith',
])

/**
 * Returns whether a query may have to read far more entries than it returns, judging by its shape:
 * it counts or searches, or its filter or sort is not one that an index serves. The query is
 * validated.
 */
export function isCostly({ filter, search, sort, count }: ListQuery, type: ContentType): boolean {
  if (count || search !== undefined) return true
  const schema = querySchema(type)
  return !isFilterIndexed(filter, schema) || !isSortIndexed(filter, sort, type)
}

function isFilterIndexed(filter: Filter | null, schema: QuerySchema): boolean {
  if (filter === null) return true
  if (filter.op === 'and') return filter.filters.every((one) => isFilterIndexed(one, schema))
  if (filter.op !== 'compare') return false
  const { test } = filter
  if (schema.get(filter.field)?.system !== false && !indexedSystemFields.has(filter.field))
    return false
  return indexedTests.has(test.is) && (test.is !== 'in' || test.values.length <= indexedValuesMax)
}

/**
 * Newest first is part of every index; other orders are those of a field or of a declared index.
 */
function isSortIndexed(filter: Filter | null, sort: readonly Sort[], type: ContentType): boolean {
  const names = sort.map((key) => key.field)
  const [first] = names
  if (first === undefined || (names.length === 1 && indexedSystemFields.has(first))) return true
  if (names.length === 1 && filter === null) return true
  return (type.indexes ?? []).some((index) => {
    const keys = index.map((key) => key.replace('-', ''))
    const at = keys.indexOf(first)
    return at !== -1 && names.every((name, i) => keys[at + i] === name)
  })
}
