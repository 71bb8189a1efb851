import { anyVersionOf, versionTable } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Statement } from '#database/database.ts'
import { decodeCursor, encodeCursor } from '#content/query/cursor.ts'
import { Values, expressionOf, parameterType, statusExpression } from '#content/query/expression.ts'
import type { Sight } from '#content/query/expression.ts'
import { afterConditions, conditionOf, fieldOf, orderOf } from '#content/query/filter-sql.ts'
import type { SqlContext } from '#content/query/filter-sql.ts'
import type { QueryField, QuerySchema } from '#content/query/normal-form.ts'
import type { Filter, ListQuery, Perspective, Sort } from '#content/query/query.ts'
import { rankedMax, relevanceExpression, searchConditions } from '#content/search/search-scope.ts'
import type { ScopeSearch } from '#content/search/search-scope.ts'
import type { Scalar } from '#lib/scalar.ts'
import { completeSort } from '#content/query/sort.ts'

/**
 * Bytes of the stored fields of one page. A page that would have more ends early, and `meta.after`
 * goes on.
 */
export const pageBytesMax = 2 * 1024 * 1024
/** A page of the default length and of the longest that a caller may ask for, and one row more. */
const plannedSteps = [21, 101]

/**
 * Which rows a reader asks among: one per entry, in the first locale of the chain in which the
 * perspective shows it to the reader.
 */
export type Scope = {
  readonly type: string
  readonly schema: QuerySchema
  /** The locale asked for, then its fallbacks, none twice. Each costs one more index scan. */
  readonly locales: readonly string[]
  readonly perspective: Perspective
  /**
   * From the reader's grant: only versions that match exist for them. It takes part in the choice
   * of the locale, so that a version that they may not see does not hide those of its fallbacks.
   */
  readonly grantFilter: Filter | null
  /** False: the reader knows only what is published, so every `status` is `published`. */
  readonly draftsSeen: boolean
  /**
   * In the draft perspective: archived entries too. Absent: if the query's filter names `status`.
   */
  readonly archivedIncluded?: boolean
  /** Only rows that it finds. Filters across references look beyond them. */
  readonly search?: ScopeSearch
  /** How the reader sees a type that a filter leads to across a reference. */
  readonly target?: (type: string) => Pick<Scope, 'schema' | 'draftsSeen'>
}

/**
 * A row as every statement here returns it: `EntryView` with the whole `data` as JSON text, and the
 * revisions it was made with.
 */
export type EntryRow = {
  readonly id: string
  readonly locale: string
  readonly version: number
  readonly status: 'draft' | 'published' | 'changed' | 'archived'
  readonly createdAt: string
  readonly updatedAt: string
  readonly publishedAt: string | null
  readonly firstPublishedAt: string | null
  readonly data: string
  readonly typeRevision: number
  /** `stoa.model.revision` in the same snapshot, as text. */
  readonly modelRevision: string
}

/**
 * A row of a list; `s0`, `s1`, … are the values of its sort keys, without the `id` that ends them.
 * `fits` false: the page has no room for it; it comes without `data`, as the last row, and says
 * that there is a next page.
 */
export type ListRow = EntryRow & {
  readonly fits: boolean
  readonly [key: `s${number}`]: Scalar | null
}

/**
 * The same with the transaction that wrote the row (its `xmin`), and without the text if that is
 * one of those that were named.
 */
export type BareRow = Omit<EntryRow, 'data'> & {
  readonly fits: boolean
  readonly data: string | null
  readonly writer: string
  readonly [key: `s${number}`]: Scalar | null
}

export type Compiled<Row> = {
  readonly statement: Statement<Row>
  readonly values: readonly unknown[]
}

type Listing = Pick<ListQuery, 'filter' | 'sort' | 'limit' | 'after'>

/**
 * One page, and one row more if there is a next one; hand the rows to `pageOf`. A page ends early
 * where its texts would take more than `pageBytesMax`; its first row always fits. The query is
 * validated. Throws `QueryCursorError`.
 */
export function compileList(scope: Scope, query: Listing): Compiled<ListRow> {
  return compileListing(scope, query, () => ({ inner: ['v.data'], outer: [], data: 'p.data' }))
}

/** As `compileList`, of held versions; texts of rows that one of `writers` wrote are left out. */
export function compileBareList(
  scope: Scope & { readonly perspective: 'published' | 'draft' },
  query: Listing,
  writers: readonly string[],
): Compiled<BareRow> {
  return compileListing(scope, query, ({ values }) => ({
    inner: ['v.data', 'v.xmin as writer'],
    outer: ['p.writer::text'],
    data: `case when p.writer = any(${values.add(writers)}::xid[]) then null else p.data end`,
  }))
}

type TextColumns = {
  readonly inner: readonly string[]
  readonly outer: readonly string[]
  readonly data: string
}

function compileListing<Row extends object>(
  scope: Scope,
  query: Listing,
  columnsIn: (context: SqlContext) => TextColumns,
): Compiled<Row> {
  const { context, branches } = compileScope(scope, query.filter)
  const { values, sight, schema } = context
  const after =
    query.after === null
      ? ['true']
      : afterConditions(
          query.sort,
          decodeCursor(query.after, scope.type, query.sort, schema),
          context,
        )
  const keys = completeSort(query.sort)
    .slice(0, -1)
    .map((key) => ({ ...key, field: fieldOf(key.field, schema) }))
  const text = columnsIn(context)
  const columns = [
    ...columnsOf(sight, []),
    ...text.inner,
    'octet_length(v.data::text) as bytes',
    ...keys.map((key, i) => `${expressionOf(key.field, 'v.', sight)} as s${i}`),
  ].join(', ')
  const order = orderOf(query.sort, context)
  const limit = `limit ${values.add(query.limit + 1)}::int`
  const planned = `limit ${plannedRows(query.limit + 1)}`
  const select = (branch: Branch, place: string): string =>
    `select * from (select ${columns} from ${branch.from} ` +
    `where ${branch.where.join(' and ')} and ${place} order by ${order} ${planned}) r ${limit}`
  const selects = branches.flatMap((branch) => after.map((place) => select(branch, place)))
  const outer = [
    ...keys.map(
      (key, i) =>
        `s${i}` +
        (parameterType(key.field) === 'text' ? ' collate "C"' : '') +
        (key.descending ? ' desc' : ''),
    ),
    lastOrder(query.sort),
  ]
  const rows =
    selects.length === 1
      ? selects[0]!
      : `select * from (${selects.map((one) => `(${one})`).join(' union all ')}) as branch ` +
        `order by ${outer.join(', ')} ${limit}`
  const names = [
    ...columnNames.map((name) => `p."${name}"`),
    ...keys.map((_, i) => `p.s${i}`),
    ...text.outer,
  ]
  return { statement: sql(withinBytes(rows, names, text.data), 'repeated'), values: values.list }
}

/**
 * How many rows PostgreSQL plans to read for so many: a bound that it finds in the text. A value is
 * unknown to a plan that serves every execution; such a plan looks dear then, and the list is
 * planned anew each time, which takes longer than the list. Few bounds make few statements.
 */
function plannedRows(rows: number): number {
  return plannedSteps.find((step) => step >= rows) ?? rows
}

/**
 * Ends a page where its texts would take more than `pageBytesMax`, with one row more that does not
 * fit. A window without an order of its own takes the rows as they come, which is in their order.
 */
function withinBytes(rows: string, names: readonly string[], data: string): string {
  const fits = `(p.total <= ${pageBytesMax} or p.total = p.bytes)`
  return `select ${names.join(', ')}, ${fits} as fits, case when ${fits} then ${data} end as data \
from (select q.*, sum(q.bytes) over (rows unbounded preceding) as total from (${rows}) q) p \
where p.total - p.bytes <= ${pageBytesMax}`
}

/** How many of the rows of `compileList` the page has. */
export function pageLength(rows: readonly ListRow[], limit: number): number {
  const end = rows.findIndex((row) => !row.fits)
  return Math.min(end === -1 ? rows.length : end, limit)
}

/**
 * Cuts the rows of `compileList` to a page of this length, and makes the cursor of the next;
 * `after` is null on the last page.
 */
export function pageOf(
  rows: readonly ListRow[],
  scope: Pick<Scope, 'type' | 'schema'>,
  query: Pick<ListQuery, 'sort' | 'limit'>,
  length: number = pageLength(rows, query.limit),
): { readonly rows: readonly ListRow[]; readonly after: string | null } {
  const last = rows[length - 1]
  if (rows.length <= length || last === undefined) return { rows, after: null }
  const keys = completeSort(query.sort)
  const position = [
    ...keys
      .slice(0, -1)
      .map((key, i) => keyValue(fieldOf(key.field, scope.schema), last[`s${i}`] ?? null)),
    last.id,
  ]
  return { rows: rows.slice(0, length), after: encodeCursor(scope.type, query.sort, position) }
}

function keyValue(field: QueryField, value: Scalar | null): Scalar | null {
  return field.type === 'boolean' && value !== null ? value === 'true' : value
}

/** How many entries the filter and the search match, over all pages. */
export function compileCount(scope: Scope, filter: Filter | null): Compiled<{ count: number }> {
  const { search, ...rest } = scope
  const counted = search === undefined ? rest : { ...rest, search: { ...search, ranked: false } }
  const { context, branches } = compileScope(counted, filter)
  const counts = branches.map(
    (branch) => `(select count(*) from ${branch.from} where ${branch.where.join(' and ')})`,
  )
  return {
    statement: sql(`select (${counts.join(' + ')})::float8 as count`, 'repeated'),
    values: context.values.list,
  }
}

/** The entry with this id: no row or one. */
export function compileById(scope: Scope, id: string): Compiled<EntryRow> {
  return compileGet(scope, ({ values }) => `v.entry_id = ${values.add(id)}::uuid`)
}

/** The entries of this type with these ids, in no order: what `include` fetches. */
export function compileByIds(scope: Scope, ids: readonly string[]): Compiled<EntryRow> {
  return compileGet(scope, ({ values }) => `v.entry_id = any(${values.add(ids)}::uuid[])`, null)
}

/**
 * The entry that has this slug in the row that the scope shows of it: no row or one, the earliest
 * locale of the chain first.
 */
export function compileBySlug(scope: Scope, slugField: string, slug: string): Compiled<EntryRow> {
  return compileGet(scope, (context) =>
    conditionOf({ op: 'compare', field: slugField, test: { is: 'eq', value: slug } }, context),
  )
}

function compileGet(
  scope: Scope,
  condition: (context: SqlContext) => string,
  limit: 1 | null = 1,
): Compiled<EntryRow> {
  const { context, branches } = compileScope({ archivedIncluded: true, ...scope }, null, condition)
  const columns = columnsOf(context.sight).join(', ')
  const selects = branches.map(
    (branch, i) =>
      `select ${columns}${branches.length > 1 ? `, ${i} as place` : ''} ` +
      `from ${branch.from} where ${branch.where.join(' and ')}`,
  )
  const union =
    selects.length === 1
      ? selects[0]!
      : `select * from (${selects.join(' union all ')}) as branch order by place`
  return {
    statement: sql(limit === null ? union : `${union} limit ${limit}`),
    values: context.values.list,
  }
}

const columnNames = [
  'id',
  'locale',
  'version',
  'status',
  'createdAt',
  'updatedAt',
  'publishedAt',
  'firstPublishedAt',
  'typeRevision',
  'modelRevision',
] as const satisfies readonly (keyof EntryRow)[]

function columnsOf(sight: Sight, text: readonly string[] = ['v.data']): string[] {
  return [
    'v.entry_id as id',
    'v.locale',
    'v.number as version',
    `${statusExpression(sight)} as status`,
    'v.created_at as "createdAt"',
    'v.saved_at as "updatedAt"',
    'v.published_at as "publishedAt"',
    'v.first_published_at as "firstPublishedAt"',
    ...text,
    'v.type_revision as "typeRevision"',
    '(select revision from stoa.model) as "modelRevision"',
  ]
}

type Branch = { readonly from: string; readonly where: readonly string[] }

/**
 * The rows of a scope that match, as branches that share no row: one for each locale of the chain,
 * and in a release one more for what it pins. Each branch is one walk along an index that is in
 * order already, which `locale = any(…)` is not.
 */
export function compileScope(
  scope: Scope,
  filter: Filter | null,
  also?: (context: SqlContext) => string,
  values = new Values(),
): { context: SqlContext; branches: readonly Branch[] } {
  const onlyPublished = scope.perspective === 'published'
  const nullable = (field: QueryField): boolean =>
    field.nullable &&
    !(
      onlyPublished &&
      (field.name === 'publishedAt' || field.name === 'firstPublishedAt') &&
      field.system
    )
  const context: SqlContext = {
    schema: scope.schema,
    values,
    row: 'v.',
    sight: { draftsSeen: scope.draftsSeen, table: versionTable(scope.type) },
    nullable,
    idsOf: ({ type, filter: across, grantFilter }) => {
      const { target = unknownTarget } = scope
      const { search: _, ...beyond } = scope
      const there = { ...beyond, ...target(type), type, grantFilter }
      return compileScope(there, across, undefined, values)
        .branches.map(
          ({ from, where }) =>
            `select v.entry_id::text collate "C" from ${from} where ${where.join(' and ')}`,
        )
        .join(' union all ')
    },
  }
  const locales = scope.locales.map((locale) => values.add(locale))
  const view = viewOf(scope, filter, context)
  const conditions = [
    also?.(context) ?? null,
    ...[filter, scope.grantFilter].map((one) => (one === null ? null : conditionOf(one, context))),
  ].filter((one) => one !== null)
  const branches = locales.flatMap((locale, i) => {
    const elsewhere = locales.slice(0, i).map((earlier) => `not ${view.has(earlier)}`)
    return view.sources.map(({ from, where }) =>
      found(scope, values, locale, {
        from,
        where: [...where, `v.locale = ${locale}`, ...conditions, ...elsewhere],
      }),
    )
  })
  return { context, branches }
}

/** The rows of a branch that the search finds; where they are ranked, the newest of them. */
function found(scope: Scope, values: Values, locale: string, branch: Branch): Branch {
  const { search, perspective } = scope
  if (search === undefined) return branch
  const { from } = branch
  const where = [...branch.where, ...searchConditions(search, values, locale)]
  if (!search.ranked) return { from, where }
  const newest = perspective === 'published' ? 'v.published_at' : 'v.saved_at'
  // Ranked after the limit: PostgreSQL would else rank every match before it sorts.
  const newestRows =
    `select v.* from ${from} where ${where.join(' and ')} ` +
    `order by ${newest} desc, v.entry_id desc limit ${rankedMax}`
  const rank = relevanceExpression(search, values, locale)
  const ranked = `select v.*, ${rank} as relevance from (${newestRows}) v`
  return { from: `(${ranked}) v`, where: ['true'] }
}

function unknownTarget(type: string): never {
  throw new Error(`the scope of a query does not know the type ${type} of its filter`)
}

/**
 * What a perspective shows: where its rows come from, and whether the reader sees the entry of the
 * row `v` in a locale.
 */
type View = { readonly sources: readonly Branch[]; readonly has: (locale: string) => string }

function viewOf(scope: Scope, filter: Filter | null, context: SqlContext): View {
  const table = versionTable(scope.type)
  const from = `${table} v`
  const { grantFilter } = scope
  const granted = (): string =>
    grantFilter === null ? '' : ` and ${conditionOf(grantFilter, { ...context, row: 'w.' })}`
  const other = (locale: string, where: string): string =>
    `exists (select from ${table} w where w.entry_id = v.entry_id and w.locale = ${locale} ` +
    `and ${where}${granted()})`
  if (scope.perspective === 'published') {
    return {
      sources: [{ from, where: ['v.is_published'] }],
      has: (locale) => other(locale, 'w.is_published'),
    }
  }
  if (scope.perspective === 'draft') {
    const archived = scope.archivedIncluded ?? (filter !== null && names(filter, 'status'))
    return {
      sources: [{ from, where: archived ? ['v.is_latest'] : ['v.is_latest', 'not v.is_archived'] }],
      has: (locale) =>
        other(locale, archived ? 'w.is_latest' : 'w.is_latest and not w.is_archived'),
    }
  }
  const release = `${context.values.add(scope.perspective.release)}::uuid`
  const item = (row: string): string =>
    `exists (select from stoa.release_item j where j.release_id = ${release} and j.entry_id = ` +
    `${row}.entry_id and j.locale = ${row}.locale)`
  const pinned = (locale: string): string =>
    `exists (select from stoa.release_item j join ${anyVersionOf(table)} w on w.entry_id = ` +
    `j.entry_id and w.locale = j.locale and w.number = j.number where j.release_id = ${release} ` +
    `and j.entry_id = v.entry_id and j.locale = ${locale} and j.action = 'publish'${granted()})`
  return {
    sources: [
      { from, where: ['v.is_published', `not ${item('v')}`] },
      {
        from:
          `stoa.release_item i join ${anyVersionOf(table)} v on v.entry_id = i.entry_id and ` +
          `v.locale = i.locale and v.number = i.number`,
        where: [`i.release_id = ${release}`, `i.action = 'publish'`],
      },
    ],
    has: (locale) =>
      `(${other(locale, `w.is_published and not ${item('w')}`)} or ${pinned(locale)})`,
  }
}

function names(filter: Filter, field: string): boolean {
  if (filter.op === 'compare') return filter.field === field
  if (filter.op === 'known' || filter.op === 'through') return false
  return filter.op === 'not'
    ? names(filter.filter, field)
    : filter.filters.some((part) => names(part, field))
}

function lastOrder(sort: readonly Sort[]): string {
  return completeSort(sort).at(-1)!.descending ? 'id desc' : 'id'
}
