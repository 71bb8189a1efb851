import { isExpected } from '#content/entries/check-expected.ts'
import type { Grant } from '#content/authority.ts'
import type { Call, EntryView, Expected, SaveInput } from '#content/content.ts'
import { VersionConflictError } from '#content/errors.ts'
import type { Composed } from '#content/entries/compose.ts'
import { checkCompleteOnceSaved, compose, slugBase } from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { isDatabase, stampNow } from '#content/context.ts'
import { encodeFields } from '#content/versions/entry-edit.ts'
import type { Version } from '#content/versions/version.ts'
import { encodePublication, searchOf, topOf, versionColumns } from '#content/versions/version.ts'
import { requireGrantAfterWrite, grantOf, grantCovers } from '#content/entries/permission.ts'
import { requireSharedFields } from '#content/entries/locale-rights.ts'
import { storedFields } from '#content/versions/version.ts'
import { viewFor } from '#content/entries/visibility.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { namedTypeSql, typeSql, versionKey } from '#content/version-table.ts'
import type { Queryable, Statement } from '#database/database.ts'
import { ConstraintError, SerializationError } from '#database/errors.ts'
import { StoaError } from '#lib/stoa-error.ts'

export type EntrySave = SaveInput & { readonly merge: boolean }

/**
 * The result of an optimistic save. `conflict`: another write came between; `needsLock`: the save
 * changes more than one row.
 */
export type OptimisticSave =
  | { readonly kind: 'saved'; readonly view: EntryView }
  | { readonly kind: 'conflict' | 'needsLock' }

export type Save = {
  readonly model: Model
  readonly type: TypeModel
  readonly id: string
  readonly input: EntrySave
  readonly expected: Expected
  /** The versions that it goes on from, which decide what a refusal may name. */
  readonly read: Version[]
}

const readForSave = typeSql<
  Version & {
    model: string
    entryType: string | null
    localeCount: number
    writer: string
    top: number
  }
>(
  (table) => `
  select m.revision as model, e.type as "entryType", e.locale_count as "localeCount",
    ${versionColumns}, v.xmin::text as writer,
    ${topOf(table, '$1', '$2')} as top
  from stoa.model m
  left join stoa.entry e on e.id = $1
  left join ${table} v on v.entry_id = $1 and v.locale = $2 and v.is_latest`,
)

type NextValues = Pick<
  Version,
  'locale' | 'number' | 'data' | 'filter' | 'typeRevision' | 'savedAt' | 'savedBy'
> & {
  readonly id: string
  readonly model: string
  /** The row that the save goes on from: its number, and the transaction that wrote it last. */
  readonly seenNumber: number
  readonly seenWriter: string
  /** As `stoa.search_vector` takes it. */
  readonly search: string | null
}

/**
 * Only the version's row is locked. A writer that holds the entry's lock locks these rows before it
 * reads them, and changes the row of each locale when it adds another. So a row that was last
 * written by the same transaction as when it was read shows that all of the entry is unchanged.
 * PostgreSQL evaluates the condition again after it waited for the row.
 */
const unchanged = `v.entry_id = :id and v.locale = :locale and v.is_latest
  and v.number = :seenNumber and v.xmin::text = :seenWriter and not v.is_archived
  and (select revision from stoa.model) = :model`

/** The row becomes the new version; what it was goes into the history. */
const replaceLatest = namedTypeSql<NextValues, { writer: string }>(
  (table) => `
  update ${table} v set number = :number, data = :data, filter = :filter,
    type_revision = :typeRevision, filter_revision = :typeRevision,
    search = stoa.search_vector(v.locale, :search::json), search_number = :number,
    search_revision = :typeRevision, saved_at = :savedAt, saved_by = :savedBy,
    published_by = null
  where ${unchanged} and not v.is_published
  returning v.xmin::text as writer`,
)

/**
 * The same where the row is published too and the new version is published with it: references and
 * unique values do not change.
 */
const replacePublished = namedTypeSql<NextValues, { writer: string }>(
  (table) => `
  update ${table} v set number = :number, data = :data, filter = :filter,
    type_revision = :typeRevision, filter_revision = :typeRevision,
    search = stoa.search_vector(v.locale, :search::json), search_number = :number,
    search_revision = :typeRevision, saved_at = :savedAt, saved_by = :savedBy,
    published_at = :savedAt, published_by = :publishedBy
  where ${unchanged} and v.is_published
  returning v.xmin::text as writer`,
)

/**
 * The published version stays, and the new one becomes the latest beside it. Its foreign key will
 * look at the entry, which a deletion locks before the versions: so it is locked first here too.
 */
const addLatest = namedTypeSql<NextValues, { writer: string }>(
  (table) => `
  with entry as (
    select id from stoa.entry where id = :id for key share
  ), before as (
    update ${table} v set is_latest = false
    from entry where v.entry_id = entry.id and ${unchanged} and v.is_published
    returning v.entry_id, v.locale, v.type, v.created_at, v.created_by_id,
      v.published_at, v.first_published_at
  )
  insert into ${table} (entry_id, locale, number, type, data, filter,
    type_revision, filter_revision, is_latest, is_published, is_archived,
    created_at, created_by_id, saved_at, saved_by, published_at, first_published_at,
    search, search_number, search_revision)
  select entry_id, locale, :number, type, :data, :filter,
    :typeRevision, :typeRevision, true, false, false,
    created_at, created_by_id, :savedAt, :savedBy, published_at, first_published_at,
    stoa.search_vector(locale, :search::json), :number, :typeRevision
  from before
  returning xmin::text as writer`,
)

/** Saves in two statements, or in one if this node wrote the version before; see `saveEntry`. */
export async function saveOptimistically(
  context: Context,
  call: Call,
  save: Save,
): Promise<OptimisticSave> {
  const { model, type, id, input, expected } = save
  const locale = model.locale(input.locale)
  const known = await saveRemembered(context, call, save, locale)
  if (known !== null) return known
  const [row] = await call.db.run(type.statements.of(readForSave), [id, locale])
  if (row?.model !== model.revision) throw new StaleModel()
  const grant = grantOf(call, 'update', type)
  const usual =
    row.entryType === type.definition.name &&
    row.locale !== null &&
    !row.isArchived &&
    mayPublishInPlace(call, save, row)
  if (!usual || grant === null || !grantCovers(grant, type, id, row)) return { kind: 'needsLock' }
  save.read.push(row)
  if (!isExpected(expected, row))
    throw new VersionConflictError(expected, viewFor(call, type, id, row), input.fields)
  const composed = compose(type, grant, { ...input, publishing: false }, storedFields(type, row))
  if (input.publish === true) checkCompleteOnceSaved(type, composed.fields)
  if (composed.changed.size === 0) return { kind: 'saved', view: viewFor(call, type, id, row) }
  const { model: _, entryType: __, localeCount, writer, top, ...before } = row
  return writeNext(context, call, save, { grant, composed, before, localeCount, top, writer })
}

/**
 * Without publishing, or where the row that editors go on from is the published one, and the caller
 * may publish it.
 */
function mayPublishInPlace(call: Call, { type, id, input }: Save, row: Version): boolean {
  return (
    input.publish !== true ||
    (row.isPublished &&
      input.at === undefined &&
      grantCovers(grantOf(call, 'publish', type), type, id, row))
  )
}

/**
 * Saves without reading first if this node wrote the version before. Null: it did not, or the
 * version has changed since.
 */
async function saveRemembered(
  context: Context,
  call: Call,
  save: Save,
  locale: string,
): Promise<OptimisticSave | null> {
  const { type, id, input, expected } = save
  const remembered = isDatabase(call.db)
    ? context.recent.get(type.definition.name, id, locale)
    : null
  const grant = grantOf(call, 'update', type)
  if (remembered === null || grant === null || grant.filter !== null) return null
  const { row, localeCount, writer } = remembered
  if (!isExpected(expected, row) || !mayPublishInPlace(call, save, row)) return null
  let composed: Composed
  try {
    composed = compose(
      type,
      grant,
      { ...input, publishing: input.publish === true },
      storedFields(type, row),
    )
  } catch (error) {
    // A refusal has to be based on the current version, which is read first.
    if (error instanceof StoaError) return null
    throw error
  }
  if (composed.changed.size === 0) return null
  const outcome = await writeNext(context, call, save, {
    grant,
    composed,
    before: row,
    localeCount,
    top: row.number,
    writer,
  })
  if (outcome.kind === 'saved') return outcome
  context.recent.forget(type.definition.name, id, locale)
  return null
}

type Next = {
  readonly grant: Grant
  readonly composed: Composed
  readonly before: Version
  readonly localeCount: number
  readonly top: number
  readonly writer: string
}

async function writeNext(
  context: Context,
  call: Call,
  { model, type, id, input }: Save,
  { grant, composed, before, localeCount, top, writer }: Next,
): Promise<OptimisticSave> {
  const { fields, changed } = composed
  const special =
    [...changed].some((name) => type.pointing.has(name)) ||
    type.unique.some((field) => changed.has(field.name))
  const shared = [...changed].some((name) => type.shared.has(name))
  if (special || slugBase(type, fields) !== null || (shared && localeCount !== 1))
    return { kind: 'needsLock' }
  const [savedAt, savedBy] = [stampNow(context), JSON.stringify(call.authority.actor)]
  const publishing = input.publish === true
  const next: Version = {
    ...before,
    ...encodeFields(type, fields),
    number: top + 1,
    typeRevision: type.revision,
    filterRevision: type.revision,
    isPublished: publishing,
    savedAt,
    savedBy,
    publishedBy: publishing ? encodePublication(call.authority.actor, savedAt) : null,
    ...(publishing ? { publishedAt: savedAt } : {}),
  }
  requireGrantAfterWrite(grant, 'update', type, { id: id, row: next })
  if (shared) requireSharedFields({ grant, type, id, row: next, carried: [] }, model)
  const publishGrant = grantOf(call, 'publish', type)
  if (publishing && publishGrant !== null)
    requireGrantAfterWrite(publishGrant, 'publish', type, { id: id, row: next })
  const draft = before.isPublished ? addLatest : replaceLatest
  const statement = publishing ? replacePublished : draft
  const values = {
    ...next,
    id,
    model: model.revision,
    seenNumber: before.number,
    seenWriter: writer,
    search: searchOf(type, next),
  }
  const [written] = await run(call.db, type.statements.of(statement), statement.values(values))
  if (written === undefined) return { kind: 'conflict' }
  // Inside a caller's transaction it may yet be rolled back.
  call.wrote?.(written.writer)
  if (isDatabase(call.db))
    context.recent.set(type.definition.name, id, { row: next, localeCount, writer: written.writer })
  return { kind: 'saved', view: viewFor(call, type, id, next) }
}

/**
 * A number that was taken after this statement's snapshot, and a deadlock with those that change
 * several entries, mean the same as no row: a conflict. Inside a caller's transaction they end
 * that.
 */
async function run(
  db: Queryable,
  statement: Statement<{ writer: string }>,
  values: readonly unknown[],
): Promise<readonly { writer: string }[]> {
  try {
    return await db.run(statement, values)
  } catch (error) {
    const isConflict =
      error instanceof SerializationError ||
      (error instanceof ConstraintError && error.constraint.endsWith(versionKey))
    if (isConflict && isDatabase(db)) return []
    throw error
  }
}
