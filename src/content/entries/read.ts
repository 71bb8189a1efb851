import type { Grant } from '#content/authority.ts'
import type { Call, EntryView, Page, ReadOptions, UnreadQuery } from '#content/content.ts'
import { EntryNotFoundError, ReleaseNotFoundError, TypeNotFoundError } from '#content/errors.ts'
import type { Context, ReadContext } from '#content/context.ts'
import {
  IncludeTooLarge,
  includedBytesMax,
  includedFrom,
  includedMax,
} from '#content/entries/include.ts'
import type { From, Include } from '#content/entries/include.ts'
import { forbidden, grantOf, seesChanges } from '#content/entries/permission.ts'
import type { Shown } from '#content/entries/view.ts'
import { shownFields, viewOfRow } from '#content/entries/view.ts'
import { inOneSnapshot } from '#content/entries/snapshot.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import type { Depends } from '#content/query/dependencies.ts'
import {
  boundOf,
  dependOnEntry,
  dependOnList,
  dependOnModel,
  dependOnSlug,
} from '#content/query/dependencies.ts'
import { QueryFieldError, QueryLimitError, QueryParameterError } from '#content/query/errors.ts'
import type { ListQuery, Perspective } from '#content/query/query.ts'
import { isCostly } from '#content/query/query-cost.ts'
import { costlyQueryMsMax } from '#content/query/query-lane.ts'
import type { QueryReader } from '#content/query/readable-type.ts'
import type { EntryRow, ListRow, Scope } from '#content/query/sql.ts'
import {
  compileBareList,
  compileById,
  compileBySlug,
  compileCount,
  compileList,
  pageLength,
  pageOf,
} from '#content/query/sql.ts'
import { validateQuery } from '#content/query/validate-query.ts'
import {
  byRelevance,
  relevance,
  scopeSearch,
  searchableGroups,
} from '#content/search/search-scope.ts'
import type { ScopeSearch } from '#content/search/search-scope.ts'
import { parseSearch } from '#content/search/search-terms.ts'
import { slugLengthMax } from '#content/validation/slug.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'

type Reading = Pick<ReadOptions, 'locale' | 'perspective'>

/**
 * The grant that a perspective needs; null: there is none, and the response is that of an entry
 * or type that is not there.
 */
export function readGrant(
  call: Call,
  type: TypeModel,
  perspective: Reading['perspective'],
): Grant | null {
  if (perspective === 'published') return grantOf(call, 'read', type)
  const grant = grantOf(call, 'readDraft', type)
  if (grant === null && grantOf(call, 'read', type) !== null) throw forbidden('readDraft', type)
  return grant
}

/** The caller of a read, the type, and the grant that it needs. */
export type Subject = {
  readonly call: Call
  readonly model: Model
  readonly type: TypeModel
  readonly grant: Grant
}

export function scopeOf({ call, model, type, grant }: Subject, reading: Reading): Scope {
  return {
    type: type.definition.name,
    schema: type.schema,
    locales: model.chain(reading.locale),
    perspective: reading.perspective,
    grantFilter: grant.filter,
    draftsSeen: reading.perspective !== 'published' || seesChanges(call, type),
    target: (name) => {
      const target = model.type(name)
      const draftsSeen = reading.perspective !== 'published' || seesChanges(call, target)
      return { schema: target.schema, draftsSeen }
    },
  }
}

/** The types as the caller sees them, for checking a query. */
export function readerOf(
  { call, model, type, grant }: Subject,
  perspective: Reading['perspective'],
): QueryReader {
  const action = perspective === 'published' ? 'read' : 'readDraft'
  return {
    type: type.definition,
    grant,
    locales: model.locales.map((locale) => locale.code),
    targets: (names) =>
      [...model.types.values()]
        .filter((one) => names === null || names.includes(one.definition.name))
        .flatMap((one) => {
          const seen = grantOf(call, action, one)
          return seen === null ? [] : [{ type: one.definition, grant: seen }]
        }),
  }
}

const releaseExists = sql<{ id: string }>(`select id from stoa.release where id = $1`)

/** A wrong release would look like one without items. */
async function checkRelease(db: Queryable, perspective: Reading['perspective']): Promise<void> {
  if (typeof perspective === 'string') return
  if (
    !isId(perspective.release) ||
    (await db.run(releaseExists, [perspective.release])).length === 0
  )
    throw new ReleaseNotFoundError()
}

export type Found = Pick<Page, 'included' | 'assets'> & { readonly entry: EntryView }

type Asked = { readonly typeName: string; readonly key: string }

/** One entry: one statement, and in the same snapshot what `include` asks for. */
export async function getEntry(
  context: Context,
  call: Call,
  { typeName, key }: Asked,
  options: ReadOptions,
): Promise<Found> {
  // Slugs are kept in this form; another keyboard or file system may write the other.
  const idOrSlug = key.normalize('NFC')
  return context.models.use(call.db, async (model) => {
    if (call.depends !== undefined) dependOnModel(call.depends)
    const type = model.types.get(typeName)
    const grant = type === undefined ? null : readGrant(call, type, options.perspective)
    if (type === undefined || grant === null) throw await absent(context, call.db, model)
    const subject = { call, model, type, grant }
    const { fields, include } = options
    if (fields !== null || include.length > 0) {
      const query: ListQuery = {
        ...options,
        type: typeName,
        filter: null,
        sort: [],
        limit: 1,
        after: null,
        count: false,
      }
      validateQuery(query, readerOf(subject, options.perspective))
    }
    const scope = scopeOf(subject, options)
    const read = async (db: Queryable): Promise<Found> => {
      await checkRelease(db, options.perspective)
      const compiled = getStatement(scope, type, grant, idOrSlug)
      const [row] = compiled === null ? [] : await db.run(compiled.statement, compiled.values)
      if (call.depends !== undefined && compiled !== null)
        dependOnFound(call.depends, subject, { scope, idOrSlug }, row ?? null)
      if (row === undefined) throw await absent(context, db, model)
      if (row.modelRevision !== model.revision) throw new StaleModel()
      const entry = viewOfRow(type, row, shownFields(grant, withJoins(options)))
      const joining = { call: { ...call, db }, model, reading: options, paths: include }
      return { entry, ...(await includedOfEntry(joining, { type, grant, row })) }
    }
    return isOneStatement(options) ? read(call.db) : inOneSnapshot(call.db, read)
  })
}

/** Rows and what they include must be true together; the plain read needs no transaction. */
function isOneStatement(query: Pick<ListQuery, 'perspective' | 'include'>): boolean {
  return query.include.length === 0 && typeof query.perspective === 'string'
}

/** The fields that were asked for, and those that lead to what is included. */
function withJoins({ fields, include }: Pick<ReadOptions, 'fields' | 'include'>): Shown {
  return fields === null ? null : [...fields, ...include.map((path) => path.split('.', 1)[0]!)]
}

type Joined = Pick<Page, 'included' | 'assets'>
const nothingJoined: Joined = { included: new Map(), assets: new Map() }

async function includedOfEntry(include: Include, from: From): Promise<Joined> {
  if (include.paths.length === 0) return nothingJoined
  try {
    const { entries, assets } = await includedFrom(include, [from])
    return { included: entries, assets }
  } catch (error) {
    if (!(error instanceof IncludeTooLarge)) throw error
    throw new QueryLimitError(
      `What this entry includes is more than one response may hold: ${includedMax} entries ` +
        `and assets, and ${includedBytesMax} bytes. Include fewer paths, or list the targets ` +
        `with where[id][in].`,
      { limit: includedMax },
    )
  }
}

function dependOnFound(
  depends: Depends,
  { type }: Subject,
  { scope, idOrSlug }: { readonly scope: Scope; readonly idOrSlug: string },
  found: EntryRow | null,
): void {
  if (isId(idOrSlug)) dependOnEntry(depends, scope, idOrSlug.toLowerCase())
  else dependOnSlug(depends, scope, { field: type.slug!.name, value: idOrSlug }, found)
}

type GetStatement = ReturnType<typeof compileById>

function getStatement(
  scope: Scope,
  type: TypeModel,
  grant: Grant,
  idOrSlug: string,
): GetStatement | null {
  if (isId(idOrSlug)) return compiledOnce(scope, type, 'id', idOrSlug)
  const { slug } = type
  const hidden = slug === null || grant.fields?.includes(slug.name) === false
  return hidden ||
    idOrSlug.length > slugLengthMax * 2 ||
    !idOrSlug.isWellFormed() ||
    idOrSlug.includes('\u0000')
    ? null
    : compiledOnce(scope, type, 'slug', idOrSlug)
}

/**
 * Statements for one entry, by what they are made of: a few for each locale, kept as long as the
 * type is. Making one costs as much as running it.
 */
const getStatements = new WeakMap<TypeModel, Map<string, GetStatement>>()
/** Stands in a kept statement for the id or slug that is asked for. */
const place = '\u0000place'

function compiledOnce(
  scope: Scope,
  type: TypeModel,
  by: 'id' | 'slug',
  value: string,
): GetStatement {
  const compile = (wanted: string): GetStatement =>
    by === 'id' || type.slug === null
      ? compileById(scope, wanted)
      : compileBySlug(scope, type.slug.name, wanted)
  if (scope.grantFilter !== null || typeof scope.perspective !== 'string') return compile(value)
  const kept = getStatements.get(type) ?? new Map<string, GetStatement>()
  getStatements.set(type, kept)
  const key = `${by} ${scope.perspective} ${scope.draftsSeen} ${scope.locales.join(' ')}`
  const compiled = kept.get(key) ?? compile(place)
  kept.set(key, compiled)
  return {
    statement: compiled.statement,
    values: compiled.values.map((one) => (one === place ? value : one)),
  }
}

/** Not found, unless the model was stale: then the work is done again. */
async function absent(context: Context, db: Queryable, model: Model): Promise<EntryNotFoundError> {
  await context.models.confirm(db, model)
  return new EntryNotFoundError()
}

/**
 * A page of entries, in one statement; what `include` and `count` ask for comes from the same
 * snapshot.
 */
export async function listEntries(
  context: ReadContext,
  call: Call,
  asked: ListQuery | UnreadQuery,
): Promise<Page> {
  return context.models.use(call.db, async (model) => {
    if (call.depends !== undefined) dependOnModel(call.depends)
    const type = model.type(asked.type)
    const expected = readGrant(call, type, asked.perspective)
    if (expected === null) throw new TypeNotFoundError(asked.type)
    const reader = readerOf({ call, model, type, grant: expected }, asked.perspective)
    const query = 'read' in asked ? asked.read(reader) : asked
    // The query decides, not the perspective that was expected before it was read.
    const grant = readGrant(call, type, query.perspective)
    if (grant === null) throw new TypeNotFoundError(query.type)
    const subject = { call, model, type, grant }
    const checked = validateQuery(query, readerOf(subject, query.perspective))
    const list = listOf(subject, checked)
    const read = (db: Queryable): Promise<Page> => readPage(context, { ...call, db }, list)
    if (call.caller !== undefined && isCostly(checked, type.definition)) {
      const options = { statementMsMax: costlyQueryMsMax }
      return context.lane.run(call.caller, () => inOneSnapshot(call.db, read, options))
    }
    return isOneStatement(checked) && !checked.count ? read(call.db) : inOneSnapshot(call.db, read)
  })
}

type List = Subject & { readonly query: ListQuery; readonly scope: Scope }

/** The search of a list, with the words of the caller read and the groups that they may search. */
function listSearch(
  { type, grant }: Subject,
  text: string,
  perspective: Perspective,
  ranked: boolean,
): ScopeSearch {
  const terms = parseSearch(text, 'search')
  if (typeof perspective !== 'string')
    throw new QueryParameterError(
      'A release cannot be searched: it shows versions whose words are not kept. Search in the ' +
        'perspective published or draft.',
      { parameter: 'search' },
    )
  const groups = searchableGroups(type, grant)
  if (groups.length === 0)
    throw new QueryFieldError(
      `"${type.definition.name}" has no field that you can search: mark one as \`searchable\` in ` +
        'the type.',
      { field: 'search' },
    )
  return scopeSearch(type, groups, { terms, ranked })
}

function listOf(subject: Subject, query: ListQuery): List {
  const scope = scopeOf(subject, query)
  if (query.search === undefined) return { ...subject, query, scope }
  const ranked = query.sort.length === 0
  const search = listSearch(subject, query.search, query.perspective, ranked)
  if (!ranked) return { ...subject, query, scope: { ...scope, search } }
  const schema = new Map([...scope.schema, [relevance.name, relevance]])
  return { ...subject, query: { ...query, sort: byRelevance }, scope: { ...scope, search, schema } }
}

async function readPage(context: Context, call: Call, list: List): Promise<Page> {
  const { model, type, grant, query, scope } = list
  await checkRelease(call.db, query.perspective)
  const fetched = await fetchList(call, scope, query)
  if (fetched.length === 0) await context.models.confirm(call.db, model)
  else if (fetched[0]?.modelRevision !== model.revision) throw new StaleModel()
  const { length, included, assets } = await includedOfPage(call, list, fetched)
  if (call.depends !== undefined) {
    const page = query.count ? null : boundOf(scope, query, fetched[length])
    dependOnList(call.depends, scope, query.filter, page)
  }
  const { rows, after } = pageOf(fetched, scope, query, length)
  const shown = shownFields(grant, withJoins(query))
  return {
    data: rows.map((row) => viewOfRow(type, row, shown)),
    included,
    assets,
    after,
    count: query.count ? await countEntries(call.db, scope, query) : null,
  }
}

/**
 * What the page includes, and how many rows it has: a page whose rows would include too much ends
 * earlier.
 */
async function includedOfPage(
  call: Call,
  { model, type, grant, query }: List,
  fetched: readonly ListRow[],
): Promise<Joined & { readonly length: number }> {
  let length = pageLength(fetched, query.limit)
  const include = { call, model, reading: query, paths: query.include }
  if (query.include.length === 0) return { length, ...nothingJoined }
  for (; length > 1; length = Math.ceil(length / 2)) {
    try {
      const from = fetched.slice(0, length).map((row) => ({ type, grant, row }))
      const { entries, assets } = await includedFrom(include, from)
      return { length, included: entries, assets }
    } catch (error) {
      if (!(error instanceof IncludeTooLarge)) throw error
    }
  }
  const [row] = fetched
  if (row === undefined) return { length, ...nothingJoined }
  return { length, ...(await includedOfEntry(include, { type, grant, row })) }
}

/** Without the texts that this node has, where it may have some. */
async function fetchList(call: Call, scope: Scope, query: ListQuery): Promise<readonly ListRow[]> {
  const { db, known } = call
  const { perspective } = scope
  if (known === undefined || typeof perspective !== 'string' || scope.search !== undefined) {
    const { statement, values } = compileList(scope, query)
    return db.run(statement, values)
  }
  const { filter, sort, limit, after } = query
  const list = JSON.stringify([
    scope.type,
    scope.locales,
    perspective,
    scope.draftsSeen,
    scope.grantFilter,
    filter,
    sort,
    limit,
    after,
  ])
  const ask = async (writers: readonly string[]): Promise<readonly ListRow[] | null> => {
    const { statement, values } = compileBareList({ ...scope, perspective }, query, writers)
    const rows = await db.run(statement, values)
    return known.texts.complete(list, known.life(), rows)
  }
  // One transaction may have written more rows than those that are known, and a text may have gone
  // to make room.
  return (await ask(known.texts.writersOf(list))) ?? (await ask([]))!
}

async function countEntries(db: Queryable, scope: Scope, query: ListQuery): Promise<number> {
  const compiled = compileCount(scope, query.filter)
  const [row] = await db.run(compiled.statement, compiled.values)
  return row?.count ?? 0
}
