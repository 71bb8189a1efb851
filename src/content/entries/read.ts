import type { Grant } from '#content/authority.ts'
import type { Call, EntryView, Page, ReadOptions, UnreadQuery } from '#content/content.ts'
import { EntryNotFoundError, ReleaseNotFoundError, TypeNotFoundError } from '#content/errors.ts'
import type { Context } from '#content/context.ts'
import { includedEntries } from '#content/entries/include.ts'
import { forbidden, grantOf } from '#content/entries/permission.ts'
import type { Shown } from '#content/entries/view.ts'
import { fieldsJson, shownFields } from '#content/entries/view.ts'
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
import type { ListQuery } from '#content/query/query.ts'
import type { EntryRow, ListRow, Scope } from '#content/query/sql.ts'
import {
  compileBareList,
  compileById,
  compileBySlug,
  compileCount,
  compileList,
  pageOf,
} from '#content/query/sql.ts'
import type { QueryReader } from '#content/query/validate-query.ts'
import { validateQuery } from '#content/query/validate-query.ts'
import { slugLengthMax } from '#content/validation/slug.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'

type Reading = Pick<ReadOptions, 'locale' | 'perspective'>

/**
 * The grant that a perspective needs; null: none, and nothing that would tell the entry or type
 * from one that is not there.
 */
function readGrant(call: Call, type: TypeModel, perspective: Reading['perspective']): Grant | null {
  if (perspective === 'published') return grantOf(call, 'read', type)
  const grant = grantOf(call, 'readDraft', type)
  if (grant === null && grantOf(call, 'read', type) !== null) throw forbidden('readDraft', type)
  return grant
}

function scopeOf(call: Call, model: Model, type: TypeModel, grant: Grant, reading: Reading): Scope {
  return {
    type: type.definition.name,
    schema: type.schema,
    locales: model.chain(reading.locale),
    perspective: reading.perspective,
    grantFilter: grant.filter,
    draftsSeen: grantOf(call, 'readDraft', type) !== null,
  }
}

/** The types as the one who asks sees them, for checking paths of `include`. */
function readerOf(
  call: Call,
  model: Model,
  type: TypeModel,
  grant: Grant,
  perspective: Reading['perspective'],
): QueryReader {
  const action = perspective === 'published' ? 'read' : 'readDraft'
  return {
    type: type.definition,
    grant,
    targets: (names) =>
      [...model.types.values()]
        .filter((one) => names === null || names.includes(one.definition.name))
        .flatMap((one) => {
          const seen = grantOf(call, action, one)
          return seen === null ? [] : [{ type: one.definition, grant: seen }]
        }),
  }
}

function viewOfRow(type: TypeModel, row: EntryRow, shown: Shown): EntryView {
  return {
    id: row.id,
    type: type.definition.name,
    locale: row.locale,
    version: row.version,
    status: row.status,
    createdAt: row.createdAt,
    updatedAt: row.updatedAt,
    publishedAt: row.publishedAt,
    firstPublishedAt: row.firstPublishedAt,
    fieldsJson: fieldsJson(type, row.data, row.typeRevision, shown),
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

export type Found = { readonly entry: EntryView; readonly included: ReadonlyMap<string, EntryView> }

/** One entry, in one statement; one more for each level of `include`. */
export async function getEntry(
  context: Context,
  call: Call,
  typeName: string,
  idOrSlug: string,
  options: ReadOptions,
): Promise<Found> {
  return context.models.use(call.db, async (model) => {
    if (call.depends !== undefined) dependOnModel(call.depends)
    const type = model.types.get(typeName)
    const grant = type === undefined ? null : readGrant(call, type, options.perspective)
    if (type === undefined || grant === null) throw await absent(context, call.db, model)
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
      validateQuery(query, readerOf(call, model, type, grant, options.perspective))
    }
    await checkRelease(call.db, options.perspective)
    const scope = scopeOf(call, model, type, grant, options)
    const compiled = getStatement(scope, type, grant, idOrSlug)
    const [row] = compiled === null ? [] : await call.db.run(compiled.statement, compiled.values)
    if (call.depends !== undefined && compiled !== null)
      dependOnGot(call.depends, scope, type, idOrSlug, row ?? null)
    if (row === undefined) throw await absent(context, call.db, model)
    if (row.modelRevision !== model.revision) throw new StaleModel()
    const entry = viewOfRow(type, row, shownFields(grant, fields))
    const included =
      include.length === 0
        ? none
        : await includedEntries({ call, model, reading: options, include }, [{ type, grant, row }])
    return { entry, included }
  })
}

const none: ReadonlyMap<string, EntryView> = new Map()

function dependOnGot(
  depends: Depends,
  scope: Scope,
  type: TypeModel,
  idOrSlug: string,
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
 * A page of entries, in one statement; one more for each level of `include`, and one for the count.
 */
export async function listEntries(
  context: Context,
  call: Call,
  asked: ListQuery | UnreadQuery,
): Promise<Page> {
  return context.models.use(call.db, async (model) => {
    if (call.depends !== undefined) dependOnModel(call.depends)
    const type = model.type(asked.type)
    const mayAsk = readGrant(call, type, asked.perspective)
    if (mayAsk === null) throw new TypeNotFoundError(asked.type)
    const query = 'read' in asked ? asked.read({ type: type.definition, grant: mayAsk }) : asked
    // What the query turned out to ask for decides, not what it was thought to.
    const grant = readGrant(call, type, query.perspective)
    if (grant === null) throw new TypeNotFoundError(query.type)
    const checked = validateQuery(query, readerOf(call, model, type, grant, query.perspective))
    await checkRelease(call.db, query.perspective)
    const scope = scopeOf(call, model, type, grant, query)
    const fetched = await fetchList(call, scope, checked)
    if (fetched.length === 0) await context.models.confirm(call.db, model)
    else if (fetched[0]?.modelRevision !== model.revision) throw new StaleModel()
    if (call.depends !== undefined)
      dependOnList(
        call.depends,
        scope,
        checked.filter,
        query.count ? null : boundOf(scope, checked, fetched),
      )
    const { rows, after } = pageOf(fetched, scope, checked)
    const shown = shownFields(grant, checked.fields)
    const included =
      checked.include.length === 0
        ? none
        : await includedEntries(
            { call, model, reading: query, include: checked.include },
            rows.map((row) => ({ type, grant, row })),
          )
    return {
      data: rows.map((row) => viewOfRow(type, row, shown)),
      included,
      after,
      count: query.count ? await countEntries(call.db, scope, checked) : null,
    }
  })
}

/** Without the texts that this node has, where it may have some. */
async function fetchList(call: Call, scope: Scope, query: ListQuery): Promise<readonly ListRow[]> {
  const { db, known } = call
  const { perspective } = scope
  if (known === undefined || typeof perspective !== 'string') {
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
