import type { Atom, PageBound, Predicate } from '#cache/predicate.ts'
import type { Scalar } from '#lib/scalar.ts'
import { decodeCursor } from '#content/query/cursor.ts'
import { fieldOf } from '#content/query/filter-sql.ts'
import type { QueryField, QuerySchema } from '#content/query/normal-form.ts'
import type { Filter, ListQuery, Sort, Test } from '#content/query/query.ts'
import { completeSort } from '#content/query/sort.ts'
import type { ListRow, Scope } from '#content/query/sql.ts'

/**
 * The dependencies of a response, in the words of the cache: rows of `stoa.version` as the change
 * feed records them. A dependency may be wider than the truth, and then drops a response too early;
 * it is never narrower. Conditions that only the database can evaluate (the status, which depends
 * on other rows; a filter of too many alternatives) are left out, which makes it wider.
 */

/**
 * Records what a response depends on, so that it is dropped when one of these changes. A fill's
 * context of the part cache is one.
 */
export interface Depends {
  row(collection: string, key: string): unknown
  list(collection: string, predicate: Predicate, page?: PageBound | null): unknown
  /**
   * A dependency was made wider than the question, because only the database could evaluate it;
   * for a counter.
   */
  widened?(): void
}

/** The collection of content, as `stoa.attach` names it. */
const versions = 'version'
/** Alternatives of one filter; a filter with more is left out. */
const alternativesMax = 16
/** Text searches of all alternatives together: every change would have to run them. */
const textSearchesMax = 8

/** Types and locales: any change to them may change any response. */
export function dependOnModel(depends: Depends): void {
  depends.row('model', 'true')
}

type Shown = Pick<Scope, 'perspective'>

function shownIn({ perspective }: Shown): Atom {
  return {
    field: perspective === 'published' ? 'is_published' : 'is_latest',
    is: 'eq',
    value: true,
  }
}

/** One entry, there or not, in whatever locale. */
export function dependOnEntry(depends: Depends, scope: Shown, id: string): void {
  depends.list(versions, [{ field: 'entry_id', is: 'eq', value: id }, shownIn(scope)])
}

/** An asset, there or not. */
export function dependOnAsset(depends: Depends, id: string): void {
  depends.row('asset', id)
}

/**
 * Which entry has this slug; `found`: the one that does. Of entries with one slug in one locale
 * there is only one, but in a locale before that of the one that was found another may have it, and
 * be hidden by what it has in a still earlier one.
 */
export function dependOnSlug(
  depends: Depends,
  scope: Scope,
  slug: { readonly field: string; readonly value: string },
  found: { readonly id: string; readonly locale: string } | null,
): void {
  const base = [ofType(scope), shownIn(scope)]
  if (found === null || scope.locales.indexOf(found.locale) > 1) dependOnHidden(depends, scope)
  if (found !== null) dependOnEntry(depends, scope, found.id)
  depends.list(versions, [
    { field: slug.field, is: 'eq', value: slug.value },
    ...base,
    { field: 'locale', is: 'in', values: scope.locales },
  ])
}

/** A list: rows that match its filter, within its page. Null: all pages, as for a count. */
export function dependOnList(
  depends: Depends,
  scope: Scope,
  filter: Filter | null,
  page: PageBound | null,
): void {
  dependOnHidden(depends, scope)
  // Only the database can search: every change of a row that the filter matches counts.
  if (scope.search !== undefined) depends.widened?.()
  const last: Atom = { field: 'locale', is: 'eq', value: scope.locales.at(-1) ?? '' }
  for (const atoms of alternativesOf(filter, scope, depends))
    depends.list(versions, [...atoms, ofType(scope), shownIn(scope), last], page)
}

/**
 * In a chain of locales, a row hides those of its entry in later ones, whether it matches itself or
 * not. So whatever comes or goes in any but the last locale counts.
 */
function dependOnHidden(depends: Depends, scope: Scope): void {
  const earlier = scope.locales.slice(0, -1)
  if (earlier.length > 0)
    depends.list(versions, [
      ofType(scope),
      shownIn(scope),
      { field: 'locale', is: 'in', values: earlier },
    ])
}

function ofType({ type }: Pick<Scope, 'type'>): Atom {
  return { field: 'type', is: 'eq', value: type }
}

/**
 * Where a page begins and ends; null if the change feed does not have a field of the sort. `behind`
 * is the row behind the page, which counts as its end: without it there is no next page, and the
 * response says so.
 */
export function boundOf(
  scope: Scope,
  query: Pick<ListQuery, 'sort' | 'after'>,
  behind: ListRow | undefined,
): PageBound | null {
  const keys = completeSort(query.sort)
  const fields = keys.map((key) => fieldOf(key.field, scope.schema))
  const names = fields.map(nameOf)
  if (names.includes(null)) return null
  const places = (values: readonly (Scalar | null)[]): (Scalar | null)[] =>
    values.map((value, at) => scalarOf(fields[at]!, value))
  return {
    sort: keys.map((key, at) => ({ field: names[at]!, descending: key.descending })),
    after:
      query.after === null
        ? null
        : places(decodeCursor(query.after, scope.type, query.sort, scope.schema)),
    upTo:
      behind === undefined
        ? null
        : places([...keys.slice(0, -1).map((_: Sort, at) => behind[`s${at}`] ?? null), behind.id]),
  }
}

/** How the change feed names a field; null: it has none of that name. */
function nameOf(field: QueryField): string | null {
  return field.system ? (columns[field.name] ?? null) : field.name
}

const columns: Readonly<Record<string, string>> = {
  id: 'entry_id',
  locale: 'locale',
  createdAt: 'created_at',
  updatedAt: 'saved_at',
  publishedAt: 'published_at',
  firstPublishedAt: 'first_published_at',
  createdBy: 'created_by_id',
}

/** A value as the change feed has it: times of columns are numbers there. */
function scalarOf(field: QueryField, value: Scalar | null): Scalar | null {
  if (value === null) return null
  if (field.system && field.type === 'instant') return Date.parse(String(value))
  return field.type === 'boolean' ? value === true || value === 'true' : value
}

function alternativesOf(
  filter: Filter | null,
  scope: Scope,
  depends: Depends,
): readonly Predicate[] {
  const { grantFilter, schema } = scope
  const filters = [filter, grantFilter].filter((one) => one !== null)
  const found = alternatives({ op: 'and', filters }, { schema, depends, scope }, false)
  const textSearches = found.flat().filter((atom) => atom.is === 'contains')
  if (textSearches.length <= textSearchesMax) return found
  depends.widened?.()
  return [[]]
}

type Recording = {
  readonly schema: QuerySchema
  readonly depends: Depends
  readonly scope: Shown
}

/** The disjunctive form; an inexact or too wide part becomes "all". */
function alternatives(
  filter: Filter,
  recording: Recording,
  negated: boolean,
): readonly Predicate[] {
  switch (filter.op) {
    case 'not':
      return alternatives(filter.filter, recording, !negated)
    // A row that is not known matches no grant; here it may match, which is wider.
    case 'known':
      return [[]]
    // The change feed does not join: any change to a type that the filter leads to counts.
    case 'through':
      recording.depends.widened?.()
      for (const { type } of filter.targets)
        recording.depends.list(versions, [ofType({ type }), shownIn(recording.scope)])
      return [[]]
    case 'compare': {
      const atom = atomOf(fieldOf(filter.field, recording.schema), filter.test)
      if (atom === null) recording.depends.widened?.()
      return [atom === null ? [] : [negated ? { ...atom, negated: atom.negated !== true } : atom]]
    }
    case 'and':
    case 'or': {
      const parts = filter.filters.map((part) => alternatives(part, recording, negated))
      const all = (filter.op === 'and') !== negated
      const size = parts.reduce(
        (count, part) => (all ? count * part.length : count + part.length),
        all ? 1 : 0,
      )
      if (size > alternativesMax) {
        recording.depends.widened?.()
        return [[]]
      }
      return all
        ? parts.reduce<readonly Predicate[]>(
            (before, part) => before.flatMap((one) => part.map((other) => [...one, ...other])),
            [[]],
          )
        : parts.flat()
    }
  }
}

function atomOf(field: QueryField, test: Test): Atom | null {
  const name = nameOf(field)
  if (name === null) return null
  const scalar = (value: Scalar): Scalar => scalarOf(field, value)!
  switch (test.is) {
    case 'eq':
    case 'ne':
      return { field: name, is: 'eq', value: scalar(test.value), negated: test.is === 'ne' }
    case 'in':
    case 'nin':
      return { field: name, is: 'in', values: test.values.map(scalar), negated: test.is === 'nin' }
    case 'lt':
    case 'lte':
      return {
        field: name,
        is: 'range',
        max: { value: scalar(test.value), inclusive: test.is === 'lte' },
      }
    case 'gt':
    case 'gte':
      return {
        field: name,
        is: 'range',
        min: { value: scalar(test.value), inclusive: test.is === 'gte' },
      }
    case 'contains':
    case 'startsWith':
      return { field: name, is: test.is, value: test.value }
    case 'exists':
      return { field: name, is: 'exists', negated: !test.value }
  }
}
