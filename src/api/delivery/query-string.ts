import type { SearchQuery, SuggestionQuery } from '#content/search/search.ts'
import type { ReadOptions, UnreadWatch } from '#content/content.ts'
import { QueryLimitError, QueryParameterError } from '#content/query/errors.ts'
import type { QueryField, QuerySchema } from '#content/query/normal-form.ts'
import type { Filter, ListQuery, Perspective, Sort, Test } from '#content/query/query.ts'
import { isExact } from '#lib/exact-numbers.ts'
import type { Scalar } from '#lib/scalar.ts'
import { filterDepthMax, filterNodesMax, testNamed } from '#content/query/validate-query.ts'
import { fieldAcross, isAcross } from '#content/query/across.ts'
import { queryFieldNamed, readableSchema } from '#content/query/readable-schema.ts'
import type { ReadableType } from '#content/query/readable-type.ts'

/**
 * The query string of delivery, both ways:
 *
 *     where[title][contains]=stoa&where[or][0][hot][eq]=true&where[or][1][not][rank][in]=1,2
 *     search="long stoa" -rome
 *     sort=-publishedAt,title  fields=title,slug  include=category,author.employer  locale=de
 *     perspective=published|draft|release:ID  limit=20  after=CURSOR  count=true
 *
 * Several conditions beside each other are all required. Values are read as the kind of their field
 * asks; one that does not fit stays text, and `validateQuery` says what it should be. The values of
 * `in` and `nin` are separated by commas; in them `\,` is a comma, `\\` a backslash and `\e` an
 * empty text, and nothing at all is the empty list. `where[or]=` is an empty `or`.
 */

/** Characters of a whole query string. */
export const queryLengthMax = 16_000
export const parametersMax = 128
const defaultLimit = 20
/** Brackets of one key: two for each level of the filter, and the comparison's own. */
const stepsMax = 2 * filterDepthMax + 2

const listNames = [
  'where',
  'search',
  'sort',
  'fields',
  'include',
  'locale',
  'perspective',
  'limit',
  'after',
  'count',
] as const
/** The parameters of a stream of events; `where` needs `type`. */
const watchNames = ['where', 'type', 'tag', 'locale', 'perspective', 'follow'] as const
const readNames = ['fields', 'include', 'locale', 'perspective'] as const

type Parameter = {
  readonly key: string
  readonly name: string
  readonly steps: readonly string[]
  readonly value: string
}

/**
 * Reads the query string (without its `?`) of a list. Absent `sort` is newest first: by publication
 * in the published perspective, by last save in others. Throws `QueryParameterError` (unknown,
 * repeated or malformed), `QueryLimitError`, and of names in `where` the errors of `validateQuery`,
 * which the result still has to pass.
 */
export function parseListQuery(text: string, readable: ReadableType): ListQuery {
  const parameters = parseParameters(text, listNames)
  const one = oneByName(parameters)
  const where = parameters.filter((parameter) => parameter.name === 'where')
  const options = readOptions(one)
  const search = one('search')
  const sort = one('sort')
  const after = one('after')
  if (after === '')
    throw new QueryParameterError(
      '`after` is empty: repeat `meta.after` of the page before, or leave it out.',
      { parameter: 'after' },
    )
  return {
    type: readable.type.name,
    filter: where.length === 0 ? null : parseFilter(where, readable),
    ...(search === null ? {} : { search }),
    sort: sort === null ? usualSort(options.perspective, search) : parseSort(sort),
    ...options,
    limit: parseLimit(one('limit')),
    after,
    count: parseSwitch('count', one('count')),
  }
}

/** Newest first, or the best matches of a search first. */
function usualSort(perspective: Perspective, search: string | null): Sort[] {
  if (search !== null) return []
  const field = perspective === 'published' ? 'publishedAt' : 'updatedAt'
  return [{ field, descending: true }]
}

/**
 * Reads the query string of a single entry: `fields`, `include`, `locale`, `perspective`. Errors as
 * in `parseListQuery`.
 */
export function parseReadOptions(text: string): ReadOptions {
  return readOptions(oneByName(parseParameters(text, readNames)))
}

const searchNames = [
  'q',
  'types',
  'where',
  'locale',
  'perspective',
  'facets',
  'limit',
  'after',
] as const
const suggestionNames = ['q', 'types', 'locale', 'limit'] as const
const defaultSuggestions = 10

/** Reads the query string of a search across types. Errors as in `parseListQuery`. */
export function parseSearchQuery(text: string): SearchQuery {
  const parameters = parseParameters(text, searchNames)
  const one = oneByName(parameters)
  const where = parameters.filter((parameter) => parameter.name === 'where')
  const { locale, perspective } = readOptions(one)
  if (typeof perspective !== 'string')
    throw new QueryParameterError('A search is in the perspective published or draft.', {
      parameter: 'perspective',
    })
  const filterFor = (reader: ReadableType): Filter | null =>
    where.length === 0 ? null : parseFilter(where, reader)
  const limit = parseLimit(one('limit'))
  const facets = names(one('facets') ?? '')
  return { ...searchPlace(one), locale, perspective, facets, limit, after: one('after'), filterFor }
}

/** Reads the query string of suggestions. Errors as in `parseListQuery`. */
export function parseSuggestionQuery(text: string): SuggestionQuery {
  const one = oneByName(parseParameters(text, suggestionNames))
  const { locale } = readOptions(one)
  const limit = one('limit')
  return {
    ...searchPlace(one),
    locale,
    limit: limit === null ? defaultSuggestions : parseLimit(limit),
  }
}

function searchPlace(one: One): Pick<SearchQuery, 'text' | 'types'> {
  const types = one('types')
  return { text: one('q') ?? '', types: types === null ? null : names(types) }
}

/** The question to a stream of events. The filter is read once the type is at hand. */
export type WatchQuery = Pick<UnreadWatch, 'type' | 'locale' | 'perspective' | 'read'> & {
  readonly tags: readonly string[]
  /** False: what there is since the last event, and then the end. */
  readonly follow: boolean
}

/** Reads the query string of a stream of events. Errors as in `parseListQuery`. */
export function parseWatchQuery(text: string): WatchQuery {
  const parameters = parseParameters(text, watchNames)
  const one = oneByName(parameters)
  const where = parameters.filter((parameter) => parameter.name === 'where')
  const type = one('type')
  const { locale, perspective } = readOptions(one)
  if (typeof perspective !== 'string')
    throw new QueryParameterError('Events have the `perspective` published or draft.', {
      parameter: 'perspective',
      allowed: ['published', 'draft'],
    })
  if (type === null && where.length > 0)
    throw new QueryParameterError('`where` needs `type`: the fields are those of one type.', {
      parameter: 'where',
    })
  return {
    type,
    locale,
    perspective,
    read: where.length === 0 ? null : (reader) => parseFilter(where, reader),
    tags: names(one('tag') ?? ''),
    follow: parseSwitch('follow', one('follow') ?? 'true'),
  }
}

/** Writes a query so that `parseListQuery` reads the same one back. */
export function printListQuery(query: ListQuery): string {
  const parts: [string, string][] = query.filter === null ? [] : printFilter('where', query.filter)
  if (query.search !== undefined) parts.push(['search', query.search])
  parts.push([
    'sort',
    query.sort.map((key) => (key.descending ? `-${key.field}` : key.field)).join(','),
  ])
  if (query.fields !== null) parts.push(['fields', query.fields.join(',')])
  if (query.include.length > 0) parts.push(['include', query.include.join(',')])
  if (query.locale !== null) parts.push(['locale', query.locale])
  parts.push([
    'perspective',
    typeof query.perspective === 'string'
      ? query.perspective
      : `release:${query.perspective.release}`,
  ])
  parts.push(['limit', String(query.limit)])
  if (query.after !== null) parts.push(['after', query.after])
  if (query.count) parts.push(['count', 'true'])
  return parts.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join('&')
}

function parseParameters(text: string, names: readonly string[]): Parameter[] {
  if (text.length > queryLengthMax)
    throw new QueryLimitError(`A query string has at most ${queryLengthMax} characters.`, {
      limit: queryLengthMax,
    })
  const parts = text.split('&').filter((part) => part !== '')
  if (parts.length > parametersMax)
    throw new QueryLimitError(`A query string has at most ${parametersMax} parameters.`, {
      limit: parametersMax,
    })
  const seen = new Set<string>()
  return parts.map((part) => {
    const [key, value] = split(part)
    const match = /^([^[\]]*)((?:\[[^[\]]*\])*)$/.exec(key)
    const [, name = '', brackets = ''] = match ?? []
    const steps = brackets === '' ? [] : brackets.slice(1, -1).split('][')
    if (match === null || !names.includes(name) || (name === 'where') !== steps.length > 0) {
      const known = names.map((one) => (one === 'where' ? 'where[field][op]' : one)).join(', ')
      throw new QueryParameterError(
        `There is no parameter ${quote(key)} here; there are: ${known}.`,
        { parameter: brief(key), allowed: names },
      )
    }
    if (seen.has(key))
      throw new QueryParameterError(`The parameter ${quote(key)} is there twice: write it once.`, {
        parameter: brief(key),
      })
    seen.add(key)
    return { key, name, steps, value }
  })
}

function split(part: string): [string, string] {
  const at = part.indexOf('=')
  return at < 0 ? [decode(part), ''] : [decode(part.slice(0, at)), decode(part.slice(at + 1))]
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch (error) {
    if (!(error instanceof URIError)) throw error
    throw new QueryParameterError(
      `${quote(text)} is not percent-encoded UTF-8.`,
      { parameter: brief(text) },
      { cause: error },
    )
  }
}

type One = (name: string) => string | null

function oneByName(parameters: readonly Parameter[]): One {
  return (name) => parameters.find((parameter) => parameter.name === name)?.value ?? null
}

function readOptions(one: One): ReadOptions {
  const fields = one('fields')
  const locale = one('locale')
  if (locale === '')
    throw new QueryParameterError(
      '`locale` is empty: name a locale, or leave it out for the default one.',
      { parameter: 'locale' },
    )
  return {
    locale,
    perspective: parsePerspective(one('perspective')),
    fields: fields === null ? null : names(fields),
    include: names(one('include') ?? ''),
  }
}

const names = (text: string): string[] => (text === '' ? [] : text.split(','))

function parsePerspective(text: string | null): Perspective {
  if (text === null || text === 'published') return 'published'
  if (text === 'draft') return 'draft'
  if (text.startsWith('release:')) return { release: text.slice('release:'.length) }
  throw new QueryParameterError(
    '`perspective` is published, draft, or release: and the id of a release.',
    { parameter: 'perspective', allowed: ['published', 'draft', 'release:ID'] },
  )
}

function parseSort(text: string): Sort[] {
  return names(text).map((name) =>
    name.startsWith('-')
      ? { field: name.slice(1), descending: true }
      : { field: name, descending: false },
  )
}

function parseLimit(text: string | null): number {
  if (text === null) return defaultLimit
  if (!/^\d{1,9}$/.test(text))
    throw new QueryParameterError('`limit` is a whole number.', { parameter: 'limit' })
  return Number(text)
}

function parseSwitch(name: string, text: string | null): boolean {
  if (text === null || text === 'false') return false
  if (text === 'true') return true
  throw new QueryParameterError(`\`${name}\` is true or false.`, {
    parameter: name,
    allowed: ['true', 'false'],
  })
}

/** The keys of `where` as a tree: each step leads to more steps or to a value. */
type Tree = Map<string, Tree | string>

function parseFilter(where: readonly Parameter[], readable: ReadableType): Filter {
  const root: Tree = new Map()
  for (const { key, steps, value } of where) {
    if (steps.length > stepsMax)
      throw new QueryLimitError(`A filter is at most ${filterDepthMax} levels deep.`, {
        limit: filterDepthMax,
      })
    set(root, steps, value, key)
  }
  return filterOfTree(root, { readable, schema: readableSchema(readable) }, 'where')
}

function set(root: Tree, steps: readonly string[], value: string, key: string): void {
  let tree = root
  for (const step of steps.slice(0, -1)) {
    const next = tree.get(step) ?? new Map<string, Tree | string>()
    if (typeof next === 'string') throw malformed(key)
    tree.set(step, next)
    tree = next
  }
  const last = steps.at(-1) ?? ''
  if (tree.has(last)) throw malformed(key)
  tree.set(last, value)
}

type Reading = { readonly readable: ReadableType; readonly schema: QuerySchema }

function filterOfTree(tree: Tree, reading: Reading, key: string): Filter {
  const filters = [...tree].flatMap(([name, found]): Filter[] => {
    const here = `${key}[${name}]`
    if (name === 'and' || name === 'or')
      return [{ op: name, filters: filtersOf(found, reading, here) }]
    if (name === 'not') {
      if (typeof found === 'string') throw malformed(here)
      return [{ op: 'not', filter: filterOfTree(found, reading, here) }]
    }
    const field = isAcross(name)
      ? fieldAcross(name, reading.readable).targets[0]!.field
      : queryFieldNamed(name, reading.schema, reading.readable)
    if (typeof found === 'string') throw malformed(here)
    return [...found].map(([op, value]) => {
      if (typeof value !== 'string') throw malformed(`${here}[${op}]`)
      return { op: 'compare', field: name, test: testOf(field, op, value) }
    })
  })
  return filters.length === 1 ? filters[0]! : { op: 'and', filters }
}

/** The filters under `and` and `or`, which are counted from 0. */
function filtersOf(found: Tree | string, reading: Reading, key: string): Filter[] {
  if (typeof found === 'string') {
    if (found === '') return []
    throw malformed(key)
  }
  if (found.size > filterNodesMax)
    throw new QueryLimitError(
      `A filter has at most ${filterNodesMax} comparisons and connectives.`,
      { limit: filterNodesMax },
    )
  return Array.from({ length: found.size }, (_, i) => {
    const part = found.get(String(i))
    if (part === undefined || typeof part === 'string') {
      throw new QueryParameterError(
        `The filters under ${quote(key)} are counted from 0 without a gap: ` +
          `${key}[0][field][op]=value.`,
        { parameter: brief(key) },
      )
    }
    return filterOfTree(part, reading, `${key}[${i}]`)
  })
}

function testOf(field: QueryField, op: string, text: string): Test {
  const is = testNamed(op, field)
  switch (is) {
    case 'in':
    case 'nin':
      return { is, values: parseValues(text).map((one) => typed(field, one)) }
    case 'exists':
      // A value that is neither true nor false stays text, which validateQuery refuses.
      return { is, value: (booleans.get(text) ?? text) as boolean }
    case 'contains':
    case 'startsWith':
      return { is, value: text }
    default:
      return { is, value: typed(field, text) }
  }
}

const booleans = new Map([
  ['true', true],
  ['false', false],
])
const numberPattern = /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/

function typed(field: QueryField, text: string): Scalar {
  if (field.type === 'boolean') return booleans.get(text) ?? text
  // A number that a double would change is none that an entry can have.
  const isNumber = field.type === 'number' && numberPattern.test(text) && isExact(text)
  return isNumber ? Number(text) : text
}

function parseValues(text: string): string[] {
  if (text === '') return []
  const values = ['']
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!
    if (character === ',') values.push('')
    else if (character !== '\\') values[values.length - 1] += character
    else {
      i += 1
      const escaped = escapes.get(text[i] ?? '')
      if (escaped === undefined)
        throw new QueryParameterError(
          'In a list of values a backslash goes before a comma, a backslash or e: \\, \\\\ \\e.',
          { parameter: 'where' },
        )
      values[values.length - 1] += escaped
    }
  }
  return values
}

const escapes = new Map([
  [',', ','],
  ['\\', '\\'],
  ['e', ''],
])

function printFilter(key: string, filter: Filter): [string, string][] {
  switch (filter.op) {
    case 'and':
    case 'or':
      if (filter.filters.length === 0) return [[`${key}[${filter.op}]`, '']]
      return filter.filters.flatMap((part, i) => printFilter(`${key}[${filter.op}][${i}]`, part))
    case 'not':
      return printFilter(`${key}[not]`, filter.filter)
    // Only `validateFilter` makes these; what it is given is printed.
    case 'known':
    case 'through':
      return []
    case 'compare': {
      const { test } = filter
      const value =
        'values' in test
          ? test.values.map((one) => printValue(String(one))).join(',')
          : String(test.value)
      return [[`${key}[${filter.field}][${test.is}]`, value]]
    }
  }
}

function printValue(text: string): string {
  return text === '' ? '\\e' : text.replaceAll(/[\\,]/g, (character) => `\\${character}`)
}

function malformed(key: string): QueryParameterError {
  return new QueryParameterError(
    `${quote(key)} is no condition: ` +
      'write where[field][op]=value, or where[or][0][field][op]=value.',
    { parameter: brief(key) },
  )
}

function quote(text: string): string {
  return JSON.stringify(brief(text))
}

function brief(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 79).toWellFormed()}…`
}
