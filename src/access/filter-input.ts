import type { ContentType } from '#content/content-type.ts'
import { isStorableText, normalValue, querySchema } from '#content/query/normal-form.ts'
import type { QueryField, QuerySchema } from '#content/query/normal-form.ts'
import type { Filter, Scalar, Test } from '#content/query/query.ts'

/** A role's filter runs with every request of its users: it stays small. */
const depthMax = 8
const comparisonsMax = 100
const valuesMax = 200
const textLengthMax = 1_000

type Report = (path: string, message: string) => void
type State = { readonly schema: QuerySchema | null; readonly everyType: boolean; comparisons: number }

const noFields = querySchema({ name: 'any', label: 'any', fields: [] })
const impossible: Filter = { op: 'or', filters: [] }

/**
 * Checks the filter of a grant and brings its values into normal form. A type that exists decides which fields and
 * comparisons there are; for `*` only the system fields; for a type that does not exist yet only the shape is known.
 */
export function checkFilter(filter: unknown, typeName: string, type: ContentType | null, report: Report): Filter {
  const everyType = typeName === '*'
  const schema = everyType ? noFields : type === null ? null : querySchema(type)
  return checkPart(filter, 1, '', { schema, everyType, comparisons: 0 }, report)
}

function checkPart(filter: unknown, depth: number, path: string, state: State, report: Report): Filter {
  if (depth > depthMax) return refused(report, path, `is nested deeper than ${depthMax}.`)
  if (!isObject(filter)) return refused(report, path, 'must be an object with op.')
  if (filter['op'] === 'and' || filter['op'] === 'or') {
    const filters: unknown = filter['filters']
    if (!Array.isArray(filters) || filters.length > comparisonsMax) return refused(report, `${path}/filters`, `must be a list of at most ${comparisonsMax} filters.`)
    return { op: filter['op'], filters: filters.map((part, index) => checkPart(part, depth + 1, `${path}/filters/${index}`, state, report)) }
  }
  if (filter['op'] === 'not') return { op: 'not', filter: checkPart(filter['filter'], depth + 1, `${path}/filter`, state, report) }
  if (filter['op'] !== 'compare') return refused(report, `${path}/op`, 'must be and, or, not or compare.')
  state.comparisons += 1
  if (state.comparisons === comparisonsMax + 1) report(path, `has more than ${comparisonsMax} comparisons.`)
  const name = filter['field']
  if (typeof name !== 'string' || !/^[a-z][A-Za-z0-9]{0,62}$/.test(name)) return refused(report, `${path}/field`, 'must be the name of a field.')
  const field = state.schema?.get(name) ?? noFields.get(name) ?? null
  if (field === null && state.schema !== null) {
    return refused(report, `${path}/field`, state.everyType ? 'is not a field that every type has.' : 'is not a filterable field of the type.')
  }
  const test = checkTest(filter['test'], field, (at, message) => report(`${path}/test${at}`, message))
  return test === null ? impossible : { op: 'compare', field: name, test }
}

function checkTest(test: unknown, field: QueryField | null, report: Report): Test | null {
  if (!isObject(test)) return nothing(report, '', 'must be an object with is.')
  const is = test['is']
  const value = (raw: unknown, path: string): Scalar => checkValue(raw, field, path, report)
  switch (is) {
    case 'eq':
    case 'ne':
      return { is, value: value(test['value'], '/value') }
    case 'in':
    case 'nin': {
      const values: unknown = test['values']
      if (!Array.isArray(values) || values.length > valuesMax) return nothing(report, '/values', `must be a list of at most ${valuesMax}.`)
      return { is, values: values.map((each, index) => value(each, `/values/${index}`)) }
    }
    case 'lt':
    case 'lte':
    case 'gt':
    case 'gte':
      if (field?.many === true) return nothing(report, '/is', 'cannot be asked of a field with many values.')
      return { is, value: value(test['value'], '/value') }
    case 'contains':
    case 'startsWith': {
      if (field !== null && (field.type !== 'text' || field.many)) return nothing(report, '/is', 'can be asked of text only.')
      const text = value(test['value'], '/value')
      return typeof text === 'string' ? { is, value: text } : nothing(report, '/value', 'must be text.')
    }
    case 'exists':
      return typeof test['value'] === 'boolean' ? { is, value: test['value'] } : nothing(report, '/value', 'must be true or false.')
    default:
      return nothing(report, '/is', 'must be eq, ne, in, nin, lt, lte, gt, gte, contains, startsWith or exists.')
  }
}

function checkValue(raw: unknown, field: QueryField | null, path: string, report: Report): Scalar {
  const scalar = typeof raw === 'boolean' || typeof raw === 'number' || (typeof raw === 'string' && raw.length <= textLengthMax && isStorableText(raw)) ? raw : null
  const kept = scalar === null ? null : field === null ? scalar : normalValue(field.type, scalar)
  if (kept !== null) return kept
  report(path, field === null ? `must be true, false, a number or text of at most ${textLengthMax} characters.` : `is not a value of ${field.name} (${field.type}).`)
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
