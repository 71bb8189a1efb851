import type { Grant } from '#content/authority.ts'
import type { Call, EntryView, Expected, SaveInput } from '#content/content.ts'
import { EntryArchivedError, EntryNotFoundError, VersionConflictError } from '#content/errors.ts'
import type { Composed } from '#content/entries/compose.ts'
import {
  checkComplete,
  checkCompleteOnceSaved,
  compose,
  slugBase,
} from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { atomically, isDatabase, stampNow } from '#content/context.ts'
import { importedTimes } from '#content/entries/create.ts'
import { EntryEdit, encodeFields } from '#content/versions/entry-edit.ts'
import { writeEdits } from '#content/versions/write-edits.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import type { Version } from '#content/versions/version.ts'
import { entryState, localesOf } from '#content/versions/entry-state.ts'
import { encodePublication, latestOf, topOf, versionColumns } from '#content/versions/version.ts'
import { checkTargets } from '#content/entries/check-targets.ts'
import { claimSlug } from '#content/versions/claims.ts'
import { requireGrantInLocale, requireSharedFields } from '#content/entries/locale-rights.ts'
import {
  requireGrantAfterWrite,
  grantOf,
  grantCovers,
  typeFor,
} from '#content/entries/permission.ts'
import { storedFields } from '#content/versions/version.ts'
import type { Shown } from '#content/entries/view.ts'
import { knownFields, refusingWithout, viewFor } from '#content/entries/visibility.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { namedTypeSql, typeSql, versionKey } from '#content/version-table.ts'
import type { Queryable, Statement } from '#database/database.ts'
import { ConstraintError, SerializationError } from '#database/errors.ts'
import { isId } from '#lib/id.ts'
import { StoaError } from '#lib/stoa-error.ts'

/**
 * How often a save without an optimistic lock goes on from what somebody else saved meanwhile
 * before it queues for the entry's lock.
 */
const plainAttemptsMax = 2

export type EntrySave = SaveInput & { readonly merge: boolean }

/**
 * Saves a version. Most saves change neither references nor unique values nor what other locales
 * share; they take two statements: one that reads, and one that makes the new version the latest
 * under the condition that nothing changed since. Everything else happens under the entry's lock.
 */
export async function saveEntry(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  input: EntrySave,
  expected: Expected,
): Promise<EntryView> {
  if (!isId(id)) throw new EntryNotFoundError()
  return context.models.use(call.db, async (model) => {
    const type = typeFor(call, model, typeName)
    const save: Save = { model, type, id, input, expected, read: [] }
    const known = (): Shown =>
      knownFields(call, type, id, { rows: save.read, given: Object.keys(input.fields) })
    return refusingWithout(known, async () => {
      for (let attempt = 1; attempt <= plainAttemptsMax; attempt += 1) {
        const outcome = await savePlainly(context, call, save)
        if (outcome.kind === 'saved') return outcome.view
        if (outcome.kind === 'needsLock') break
      }
      return atomically(call.db, (tx) => saveUnderLock(context, call, tx, save))
    })
  })
}

/**
 * The result of an optimistic save. `conflict`: another write came between; `needsLock`: the save
 * changes more than one row.
 */
type Optimistic =
  | { readonly kind: 'saved'; readonly view: EntryView }
  | { readonly kind: 'conflict' | 'needsLock' }

type Save = {
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
  select m.revision as model, e.type as "entryType", e.locale_count as "localeCount", ${versionColumns}, v.xmin::text as writer,
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
}

/**
 * Nothing is locked but the version's row: whoever changes an entry under its lock locks these rows
 * before reading them, and changes the row of each locale when there comes another. So a row that
 * the same transaction wrote last as when it was read says that all of it is as it was; PostgreSQL
 * looks again after waiting for the row.
 */
const unchanged = `v.entry_id = :id and v.locale = :locale and v.is_latest and v.number = :seenNumber and v.xmin::text = :seenWriter and not v.is_archived
  and (select revision from stoa.model) = :model`

/** The row becomes the new version; what it was goes into the history. */
const replaceLatest = namedTypeSql<NextValues, { writer: string }>(
  (table) => `
  update ${table} v set number = :number, data = :data, filter = :filter, type_revision = :typeRevision, filter_revision = :typeRevision, saved_at = :savedAt, saved_by = :savedBy,
    published_by = null
  where ${unchanged} and not v.is_published
  returning v.xmin::text as writer`,
)

/**
 * The same where the row is published too and the new version is published with it: what points
 * where, and who has which value, stays as it is.
 */
const replacePublished = namedTypeSql<NextValues, { writer: string }>(
  (table) => `
  update ${table} v set number = :number, data = :data, filter = :filter, type_revision = :typeRevision, filter_revision = :typeRevision, saved_at = :savedAt, saved_by = :savedBy,
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
    returning v.entry_id, v.locale, v.type, v.created_at, v.created_by_id, v.published_at, v.first_published_at
  )
  insert into ${table} (entry_id, locale, number, type, data, filter, type_revision, filter_revision, is_latest, is_published, is_archived,
    created_at, created_by_id, saved_at, saved_by, published_at, first_published_at)
  select entry_id, locale, :number, type, :data, :filter, :typeRevision, :typeRevision, true, false, false, created_at, created_by_id, :savedAt, :savedBy, published_at, first_published_at from before
  returning xmin::text as writer`,
)

async function savePlainly(context: Context, call: Call, save: Save): Promise<Optimistic> {
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
    mayPublishPlainly(call, save, row)
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
function mayPublishPlainly(call: Call, { type, id, input }: Save, row: Version): boolean {
  return (
    input.publish !== true ||
    (row.isPublished &&
      input.at === undefined &&
      grantCovers(grantOf(call, 'publish', type), type, id, row))
  )
}

/**
 * The save without reading first, if this node wrote the version that it goes on from; null: it did
 * not, or somebody changed it since.
 */
async function saveRemembered(
  context: Context,
  call: Call,
  save: Save,
  locale: string,
): Promise<Optimistic | null> {
  const { type, id, input, expected } = save
  const remembered = isDatabase(call.db)
    ? context.recent.get(type.definition.name, id, locale)
    : null
  const grant = grantOf(call, 'update', type)
  if (remembered === null || grant === null || grant.filter !== null) return null
  const { row, localeCount, writer } = remembered
  if (!isExpected(expected, row) || !mayPublishPlainly(call, save, row)) return null
  let composed: Composed
  try {
    composed = compose(
      type,
      grant,
      { ...input, publishing: input.publish === true },
      storedFields(type, row),
    )
  } catch (error) {
    // What is refused is refused on the ground of what there is now: it is read first.
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
): Promise<Optimistic> {
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
  const publishGrant = grantOf(call, 'publish', type)
  if (publishing && publishGrant !== null)
    requireGrantAfterWrite(publishGrant, 'publish', type, { id: id, row: next })
  const statement = publishing ? replacePublished : before.isPublished ? addLatest : replaceLatest
  const values = {
    ...next,
    id,
    model: model.revision,
    seenNumber: before.number,
    seenWriter: writer,
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
 * several entries, mean the same as no row: a conflict. Inside a caller's transaction they end that.
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

async function saveUnderLock(
  context: Context,
  call: Call,
  tx: Queryable,
  save: Save,
): Promise<EntryView> {
  const { model, type, id, input, expected } = save
  const locale = model.locale(input.locale)
  const state = await entryState(tx, model, type, id, 'writing')
  const latest = latestOf(state, locale)
  save.read.push(...(latest === null ? state.held.filter((row) => row.isLatest) : [latest]))
  const grant = requireGrantInLocale(call, 'update', { type, state }, locale)
  const publishGrant =
    input.publish === true ? requireGrantInLocale(call, 'publish', { type, state }, locale) : null
  checkExpected(call, type, state, {
    expected,
    // A locale that is not there yet is made from the one that was read instead of it.
    rows: latest === null ? [] : [latest],
    instead: state.held.filter((row) => row.isLatest),
    yours: input.fields,
  })
  if (state.archivedAt !== null) throw new EntryArchivedError()
  const before = latest === null ? sharedFields(type, state, model) : storedFields(type, latest)
  const fieldsGiven = latest === null ? { ...before, ...input.fields } : input.fields
  const reached =
    latest === null && grant.fields !== null
      ? onlyGiven(fieldsGiven, input.fields, grant)
      : fieldsGiven
  const composed = compose(
    type,
    grant,
    { fields: reached, merge: input.merge || latest === null, publishing: false },
    before,
  )
  const edit = new EntryEdit(type, state, { by: call.authority.actor, at: stampNow(context) })
  const times = importedTimes(input)
  const row = await addVersion(call, tx, model, {
    type,
    edit,
    locale,
    composed,
    createdAt: times.createdAt,
  })
  requireGrantAfterWrite(grant, 'update', type, { id: id, row: row })
  let result = row
  if (publishGrant !== null) {
    checkComplete(type, storedFields(type, row))
    result = edit.publish(row, times.publishedAt)
    requireGrantAfterWrite(publishGrant, 'publish', type, { id: id, row: result })
  }
  await writeEdits(tx, type, [edit])
  return viewFor(call, type, id, result)
}

/**
 * Fields of the input, without shared ones that the caller may not write: those come from the other
 * locales by themselves.
 */
function onlyGiven(
  all: Readonly<Record<string, unknown>>,
  given: Readonly<Record<string, unknown>>,
  grant: Grant,
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(all).filter(
      ([name]) => Object.hasOwn(given, name) || grant.fields?.includes(name) === true,
    ),
  )
}

/** What a new locale starts with: the fields that all locales share. */
export function sharedFields(
  type: TypeModel,
  state: Pick<EntryState, 'held'>,
  model: Model,
): Record<string, unknown> {
  const [first] = localesOf(state, model)
  const row = first === undefined ? null : latestOf(state, first)
  const stored = row === null ? {} : storedFields(type, row)
  return Object.fromEntries(Object.entries(stored).filter(([name]) => type.shared.has(name)))
}

/**
 * Adds a version of these fields in a locale to an edit, and to the other locales if it changes
 * what they share. Returns the latest row of the locale: the one there was, if nothing changed.
 */
export async function addVersion(
  call: Call,
  tx: Queryable,
  model: Model,
  add: {
    readonly type: TypeModel
    readonly edit: EntryEdit
    readonly locale: string
    readonly composed: Composed
    readonly createdAt?: string | undefined
  },
): Promise<Version> {
  const { type, edit, locale, composed } = add
  const { fields, changed } = composed
  const latest = edit.latest(locale)
  const base = slugBase(type, fields)
  if (latest !== null && changed.size === 0 && base === null) return latest
  const touched = new Set(changed)
  if (base !== null && type.slug !== null) {
    fields[type.slug.name] = await claimSlug(tx, type, { id: edit.id, locale }, base)
    touched.add(type.slug.name)
  }
  if (composed.newTargets.length > 0) await checkTargets(call, tx, model, composed.newTargets)
  const row = edit.add(
    locale,
    fields,
    add.createdAt === undefined ? {} : { createdAt: add.createdAt },
  )
  const others = edit.held.filter((one) => one.isLatest && one.locale !== locale)
  carryShared(type, edit, row, touched, fields)
  const carried = others.flatMap((before) => {
    const after = edit.latest(before.locale)
    return after === null || after === before ? [] : [before, after]
  })
  requireSharedFields(grantOf(call, 'update', type), type, edit.id, carried)
  return row
}

/** Takes shared fields that changed to the latest versions of the entry's other locales. */
export function carryShared(
  type: TypeModel,
  edit: EntryEdit,
  row: Version,
  changed: ReadonlySet<string>,
  fields: Readonly<Record<string, unknown>>,
): void {
  const carried = [...changed].filter((name) => type.shared.has(name))
  if (carried.length === 0) return
  for (const other of edit.held.filter((one) => one.isLatest && one.locale !== row.locale))
    carry(type, edit, other, carried, fields)
}

function carry(
  type: TypeModel,
  edit: EntryEdit,
  other: Version,
  names: readonly string[],
  fields: Readonly<Record<string, unknown>>,
): void {
  const stored = storedFields(type, other)
  const differs = names.some(
    (name) => JSON.stringify(stored[name]) !== JSON.stringify(fields[name]),
  )
  if (!differs) return
  edit.add(other.locale, {
    ...stored,
    ...Object.fromEntries(names.map((name) => [name, fields[name]])),
  })
}

/** True if the caller goes on from this row. */
function isExpected(expected: Expected, row: Version): boolean {
  if (expected === null || expected === 'absent') return expected === null
  if (typeof expected === 'number') return expected === row.number
  return expected.seen.some(
    ({ locale, number }) => number === row.number && (locale === null || locale === row.locale),
  )
}

export type ExpectedCheck = {
  readonly expected: Expected
  /** The latest version of each locale that is to change. */
  readonly rows: readonly Version[]
  /** Where there is none: the versions of which the caller has seen one. */
  readonly instead?: readonly Version[]
  readonly yours: Readonly<Record<string, unknown>> | null
}

/** The optimistic lock, under the entry's lock. Throws `VersionConflictError` with both sides. */
export function checkExpected(
  call: Call,
  type: TypeModel,
  state: EntryState,
  { expected, rows, instead = [], yours }: ExpectedCheck,
): void {
  const isMissing = rows.length === 0
  if (isMissing && (expected === 'absent' || instead.some((row) => isExpected(expected, row))))
    return
  const conflict = isMissing ? instead[0] : rows.find((row) => !isExpected(expected, row))
  if (conflict !== undefined)
    throw new VersionConflictError(expected, viewFor(call, type, state.id, conflict), yours)
}
