import type { ContentType } from '#content/content-type.ts'
import {
  QueryFieldError,
  QueryLimitError,
  QueryOperatorError,
  QueryValueError,
} from '#content/query/errors.ts'
import { filterTextBytesMax, normalValue, querySchema } from '#content/query/normal-form.ts'
import type { QueryField, QuerySchema, ValueType } from '#content/query/normal-form.ts'
import { validateInclude } from '#content/query/include-path.ts'
import { fieldAcross, isAcross } from '#content/query/across.ts'
import {
  brief,
  queryFieldNamed,
  readableSchema,
  unknownField,
} from '#content/query/readable-schema.ts'
import type { Filter, ListQuery, Sort, Test } from '#content/query/query.ts'
import { visibleFields } from '#content/query/readable-type.ts'
import type { QueryReader, ReadableType } from '#content/query/readable-type.ts'
import type { Scalar } from '#lib/scalar.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { isId } from '#lib/id.ts'

/** Comparisons and connectives in one filter, counted together. */
export const filterNodesMax = 64
export const filterDepthMax = 8
/** Values of one `in` or `nin`. */
export const filterListMax = 200
/** Characters of a `contains`, which no index serves. */
export const containsLengthMax = 200
/** `contains` in one filter. */
const textSearchesMax = 8
export const sortKeysMax = 4
/** Possible values that an error names. */
const valuesNamedMax = 50
export const pageLimitMax = 200

const everyTest = [
  'eq',
  'ne',
  'in',
  'nin',
  'lt',
  'lte',
  'gt',
  'gte',
  'contains',
  'startsWith',
  'exists',
] as const satisfies readonly Test['is'][]
const equalTests: readonly Test['is'][] = ['eq', 'ne', 'in', 'nin', 'exists']
const orderTests: readonly Test['is'][] = [
  'eq',
  'ne',
  'in',
  'nin',
  'lt',
  'lte',
  'gt',
  'gte',
  'exists',
]

/** The comparisons that a field takes. */
export function testsOf(field: QueryField): readonly Test['is'][] {
  // The order of creators' ids would give them away one comparison at a time.
  if (field.many || field.type === 'boolean' || field.name === 'createdBy') return equalTests
  return field.type === 'text' ? everyTest : orderTests
}

const wanted: Record<ValueType, string> = {
  text: 'a text',
  number: 'a number of at most 17 digits',
  boolean: 'true or false',
  instant: 'a date-time with a zone such as 2026-11-20T17:30:00Z, or a date such as 2026-11-20',
  id: 'an id: a UUID in lower case',
}

/**
 * Checks a query against the type and what the reader may see of it, and returns it with every
 * value in normal form, as the evaluators want it. Throws `QueryFieldError`, `QueryOperatorError`,
 * `QueryValueError` or `QueryLimitError`; each says what is possible, and says nothing about
 * fields that the reader may not see. The cursor is checked by `compileList`.
 */
export function validateQuery(query: ListQuery, reader: QueryReader): ListQuery {
  if (!Number.isInteger(query.limit) || query.limit < 1 || query.limit > pageLimitMax) {
    throw new QueryLimitError(
      `A page has 1 to ${pageLimitMax} entries; ask for the next with \`after\`.`,
      { limit: pageLimitMax },
    )
  }
  const { perspective } = query
  if (typeof perspective === 'object' && !isId(perspective.release)) {
    throw new QueryValueError(`A release is named by its id, ${wanted.id.slice(7)}.`, {
      field: 'perspective',
    })
  }
  return {
    ...query,
    filter: query.filter === null ? null : validateFilter(query.filter, reader),
    sort: validateSort(query.sort, reader),
    fields: query.fields === null ? null : validateFields(query.fields, reader),
    include: validateInclude(query.include, reader),
  }
}

/** A filter with its values in normal form. Errors as in `validateQuery`. */
export function validateFilter(filter: Filter, readable: ReadableType | QueryReader): Filter {
  const schema = readableSchema(readable)
  const budget = { nodes: 0, textSearches: 0 }
  return normalFilter(filter, 1)

  function fieldOf(name: string): QueryField {
    const field = queryFieldNamed(name, schema, readable)
    // The locales are not part of the type.
    return name === 'locale' && 'locales' in readable
      ? { ...field, values: readable.locales }
      : field
  }

  function normalFilter(part: Filter, depth: number): Filter {
    budget.nodes += 1
    if (budget.nodes > filterNodesMax)
      throw new QueryLimitError(
        `A filter has at most ${filterNodesMax} comparisons and connectives.`,
        { limit: filterNodesMax },
      )
    if (depth > filterDepthMax)
      throw new QueryLimitError(`A filter is at most ${filterDepthMax} levels deep.`, {
        limit: filterDepthMax,
      })
    switch (part.op) {
      case 'and':
      case 'or':
        return { op: part.op, filters: part.filters.map((one) => normalFilter(one, depth + 1)) }
      case 'not':
        return { op: 'not', filter: normalFilter(part.filter, depth + 1) }
      case 'compare':
        budget.textSearches += part.test.is === 'contains' ? 1 : 0
        if (budget.textSearches > textSearchesMax)
          throw new QueryLimitError(
            `A filter has at most ${textSearchesMax} comparisons by "contains", which no ` +
              `index serves; use "startsWith" or "in".`,
            { limit: textSearchesMax },
          )
        return isAcross(part.field)
          ? throughReference(part, readable)
          : { op: 'compare', field: part.field, test: normalTest(fieldOf(part.field), part.test) }
      default:
        throw new QueryOperatorError('A filter is made of "and", "or", "not" and "compare".', {
          allowed: ['and', 'or', 'not', 'compare'],
        })
    }
  }
}

/** The comparison for each type of target that it fits, with what the reader may see of them. */
function throughReference(
  { field: name, test }: Extract<Filter, { op: 'compare' }>,
  readable: ReadableType,
): Filter {
  const { reference, targets } = fieldAcross(name, readable)
  const refused: unknown[] = []
  const fitting = targets.flatMap(({ readable: target, field }) => {
    try {
      const compare: Filter = { op: 'compare', field: field.name, test: normalTest(field, test) }
      return [{ type: target.type.name, filter: compare, grantFilter: target.grant.filter }]
    } catch (error) {
      if (!(error instanceof StoaError)) throw error
      refused.push(error)
      return []
    }
  })
  if (fitting.length === 0) throw refused[0]
  return { op: 'through', field: reference.name, targets: fitting }
}

/**
 * The filter of a grant with its values in normal form. It fails closed: a filter that does not fit
 * the type (any more) matches nothing, and so does an entry whose filterable values were made
 * before `filterRevision`, or one with a value that filters cannot see; `ne`, `nin`, `not` and
 * `exists=false` would match those. Alternatives, which come from several roles, are taken one by
 * one: a mistake in one role takes nothing from another, and together they may be large.
 */
export function grantFilter({ type, grant }: ReadableType, filterRevision: number): Filter | null {
  if (grant.filter === null) return null
  const alternatives = grant.filter.op === 'or' ? grant.filter.filters : [grant.filter]
  const fitting = alternatives
    .flatMap((alternative) => fittingFilter(alternative, type))
    .map((alternative) => knownAnd(alternative, querySchema(type), filterRevision))
  return fitting.length === 1 ? fitting[0]! : { op: 'or', filters: fitting }
}

function knownAnd(filter: Filter, schema: QuerySchema, revision: number): Filter {
  const fields = [...fieldsOf(filter)].filter((name) => schema.get(name)?.system === false)
  if (fields.length === 0) return filter
  return { op: 'and', filters: [{ op: 'known', revision, fields }, filter] }
}

/** The fields that a filter names, each once. */
function fieldsOf(filter: Filter): ReadonlySet<string> {
  switch (filter.op) {
    case 'compare':
      return new Set([filter.field])
    case 'not':
      return fieldsOf(filter.filter)
    case 'known':
      return new Set(filter.fields)
    case 'through':
      return new Set([filter.field])
    default:
      return new Set(filter.filters.flatMap((one) => [...fieldsOf(one)]))
  }
}

function fittingFilter(filter: Filter, type: ContentType): readonly Filter[] {
  try {
    return [validateFilter(filter, { type, grant: { filter: null, fields: null } })]
  } catch (error) {
    if (error instanceof StoaError) return []
    throw error
  }
}

function normalTest(field: QueryField, test: Test): Test {
  const is = testNamed(test.is, field)
  switch (test.is) {
    case 'in':
    case 'nin':
      if (!Array.isArray(test.values)) throw wrongValue(field, is, 'a list')
      if (test.values.length > filterListMax) {
        throw new QueryLimitError(
          `"${test.is}" on "${field.name}" takes at most ${filterListMax} values.`,
          { field: field.name, limit: filterListMax },
        )
      }
      return {
        is: test.is,
        values: test.values.map((value) => normalScalar(field, test.is, value)),
      }
    case 'exists':
      if (typeof test.value !== 'boolean') throw wrongValue(field, is, wanted.boolean)
      return { is: test.is, value: test.value }
    case 'contains':
    case 'startsWith':
      if (typeof test.value === 'string' && test.value.length > containsLengthMax) {
        throw new QueryLimitError(
          `"${test.is}" on "${field.name}" takes at most ${containsLengthMax} characters.`,
          { field: field.name, limit: containsLengthMax },
        )
      }
      return { is: test.is, value: normalScalar(field, test.is, test.value) as string }
    default:
      return { is: test.is, value: normalScalar(field, test.is, test.value) }
  }
}

/** The comparison of this name. `QueryOperatorError` where the field does not take it. */
export function testNamed(name: string, field: QueryField): Test['is'] {
  const allowed = testsOf(field)
  const found = allowed.find((is) => is === name)
  if (found !== undefined) return found
  const kind = field.many ? 'has many values' : `holds ${wanted[field.type]}`
  throw new QueryOperatorError(
    `The field "${field.name}" ${kind}: it takes ${allowed.join(', ')}, not "${brief(name)}".`,
    { field: field.name, op: brief(name), allowed },
  )
}

function normalScalar(field: QueryField, is: Test['is'], value: unknown): Scalar {
  if (typeof value === 'string' && value.length > filterTextBytesMax) {
    throw new QueryLimitError(
      `"${is}" on "${field.name}" takes a text of at most ${filterTextBytesMax} characters.`,
      { field: field.name, limit: filterTextBytesMax },
    )
  }
  const normal = normalValue(field.type, value)
  if (normal === null) throw wrongValue(field, is, wanted[field.type], value)
  const { values } = field
  if (values !== undefined && equalTests.includes(is) && !values.includes(String(normal))) {
    const named = values.slice(0, valuesNamedMax).join(', ')
    throw wrongValue(
      field,
      is,
      `one of ${named}${values.length > valuesNamedMax ? ', …' : ''}`,
      value,
    )
  }
  return normal
}

function wrongValue(
  field: QueryField,
  is: Test['is'],
  expected: string,
  value?: unknown,
): QueryValueError {
  const got =
    typeof value === 'string' || typeof value === 'number'
      ? `, not ${JSON.stringify(brief(String(value)))}`
      : ''
  return new QueryValueError(`"${is}" on "${field.name}" takes ${expected}${got}.`, {
    field: field.name,
    op: is,
    allowed: expected,
  })
}

function validateSort(sort: readonly Sort[], readable: ReadableType): readonly Sort[] {
  if (sort.length > sortKeysMax)
    throw new QueryLimitError(`A list is sorted by at most ${sortKeysMax} fields.`, {
      limit: sortKeysMax,
    })
  const schema = readableSchema(readable)
  const seen = new Set<string>()
  for (const { field: name } of sort) {
    const field = queryFieldNamed(name, schema, readable)
    if (field.many)
      throw new QueryFieldError(`The field "${name}" has many values: there is no order by it.`, {
        field: name,
      })
    // A cursor holds the values of its sort, and creators are not part of what readers see.
    if (name === 'createdBy')
      throw new QueryFieldError('Lists can be filtered by "createdBy", not sorted by it.', {
        field: name,
      })
    if (seen.has(name))
      throw new QueryFieldError(`The sort names "${name}" twice.`, { field: name })
    seen.add(name)
  }
  return sort
}

function validateFields(names: readonly string[], readable: ReadableType): readonly string[] {
  const visible = visibleFields(readable).map((field) => field.name)
  for (const name of names)
    if (!visible.includes(name)) throw unknownField(name, readable.type, visible)
  return [...new Set(names)]
}
