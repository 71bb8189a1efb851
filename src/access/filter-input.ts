import type { ContentType } from '#content/content-type.ts'
import { isStorableText } from '#content/query/normal-form.ts'
import type { Filter, Test } from '#content/query/query.ts'
import type { Scalar } from '#lib/scalar.ts'
import {
  filterDepthMax,
  filterListMax,
  filterNodesMax,
  validateFilter,
} from '#content/query/validate-query.ts'
import { StoaError } from '#lib/stoa-error.ts'

/**
 * `own` wraps a filter into one connective and adds one comparison; the result must still be one
 * that queries take.
 */
const depthMax = filterDepthMax - 1
const nodesMax = filterNodesMax - 2
const textLengthMax = 1_000

type Report = (path: string, message: string) => void
/** The walk through a filter: how many parts it has had, and where problems go. */
type Walk = { nodes: number; readonly report: Report }

const everyType: ContentType = { name: '*', label: '*', fields: [] }
const impossible: Filter = { op: 'or', filters: [] }

/**
 * Checks the filter of a grant; what is wrong goes to `report`, with its place. Where the type
 * exists (for `*`: by the fields that every type has), as queries do, and the values come back in
 * normal form. For a type that is yet to come only the shape can be known: a filter that turns out
 * not to fit it matches nothing.
 */
export function checkFilter(
  filter: unknown,
  typeName: string,
  type: ContentType | null,
  report: Report,
): Filter {
  let faults = 0
  const counted: Report = (path, message) => {
    faults += 1
    report(path, message)
  }
  const shaped = shapedFilter(filter, { depth: 1, path: '' }, { nodes: 0, report: counted })
  const known = typeName === '*' ? everyType : type
  if (faults > 0 || known === null) return shaped
  try {
    return validateFilter(shaped, { type: known, grant: { filter: null, fields: null } })
  } catch (error) {
    if (!(error instanceof StoaError)) throw error
    report('', error.message)
    return impossible
  }
}

function shapedFilter(
  filter: unknown,
  { depth, path }: { readonly depth: number; readonly path: string },
  walk: Walk,
): Filter {
  const { report } = walk
  if (depth > depthMax) return refused(report, path, `is nested deeper than ${depthMax}.`)
  walk.nodes += 1
  if (walk.nodes > nodesMax)
    return walk.nodes > nodesMax + 1
      ? impossible
      : refused(report, path, `is one of more than ${nodesMax} comparisons and connectives.`)
  if (!isObject(filter)) return refused(report, path, 'must be an object with op.')
  switch (filter['op']) {
    case 'and':
    case 'or': {
      const filters: unknown = filter['filters']
      if (!Array.isArray(filters) || filters.length > nodesMax)
        return refused(report, `${path}/filters`, `must be a list of at most ${nodesMax} filters.`)
      return {
        op: filter['op'],
        filters: filters.map((part, index) =>
          shapedFilter(part, { depth: depth + 1, path: `${path}/filters/${index}` }, walk),
        ),
      }
    }
    case 'not':
      return {
        op: 'not',
        filter: shapedFilter(filter['filter'], { depth: depth + 1, path: `${path}/filter` }, walk),
      }
    case 'compare': {
      const field = filter['field']
      if (typeof field !== 'string' || !/^[a-z][A-Za-z0-9]{0,62}$/.test(field))
        return refused(report, `${path}/field`, 'must be the name of a field.')
      const test = shapedTest(filter['test'], (at, message) => report(`${path}/test${at}`, message))
      return test === null ? impossible : { op: 'compare', field, test }
    }
    default:
      return refused(report, `${path}/op`, 'must be and, or, not or compare.')
  }
}

function shapedTest(test: unknown, report: Report): Test | null {
  if (!isObject(test)) return nothing(report, '', 'must be an object with is.')
  const { is, value, values } = test
  switch (is) {
    case 'eq':
    case 'ne':
    case 'lt':
    case 'lte':
    case 'gt':
    case 'gte':
      return { is, value: shapedValue(value, '/value', report) }
    case 'in':
    case 'nin':
      if (!Array.isArray(values) || values.length > filterListMax)
        return nothing(report, '/values', `must be a list of at most ${filterListMax}.`)
      return {
        is,
        values: values.map((each, index) => shapedValue(each, `/values/${index}`, report)),
      }
    case 'contains':
    case 'startsWith': {
      const text = shapedValue(value, '/value', report)
      return typeof text === 'string'
        ? { is, value: text }
        : nothing(report, '/value', 'must be text.')
    }
    case 'exists':
      return typeof value === 'boolean'
        ? { is, value }
        : nothing(report, '/value', 'must be true or false.')
    default:
      return nothing(
        report,
        '/is',
        'must be eq, ne, in, nin, lt, lte, gt, gte, contains, startsWith or exists.',
      )
  }
}

function shapedValue(value: unknown, path: string, report: Report): Scalar {
  if (typeof value === 'boolean' || (typeof value === 'number' && Number.isFinite(value)))
    return value
  if (typeof value === 'string' && value.length <= textLengthMax && isStorableText(value))
    return value
  report(path, `must be true, false, a number or text of at most ${textLengthMax} characters.`)
  return false
}

function refused(report: Report, path: string, message: string): Filter {
  report(path, message)
  return impossible
}

function nothing(report: Report, path: string, message: string): null {
  report(path, message)
  return null
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
