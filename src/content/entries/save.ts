import { checkExpected } from '#content/entries/check-expected.ts'
import { saveOptimistically } from '#content/entries/optimistic-save.ts'
import type { EntrySave, Save } from '#content/entries/optimistic-save.ts'
import type { Grant } from '#content/authority.ts'
import type { Call, EntryRef, EntryView, Expected } from '#content/content.ts'
import { EntryArchivedError, EntryNotFoundError } from '#content/errors.ts'
import type { Composed } from '#content/entries/compose.ts'
import { checkComplete, compose, slugBase } from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { importedTimes } from '#content/entries/create.ts'
import { EntryEdit } from '#content/versions/entry-edit.ts'
import { writeEdits } from '#content/versions/write-edits.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import type { Version } from '#content/versions/version.ts'
import { entryState, localesOf } from '#content/versions/entry-state.ts'
import { latestOf } from '#content/versions/version.ts'
import { checkTargets } from '#content/entries/check-targets.ts'
import { claimSlug } from '#content/versions/claims.ts'
import { requireGrantInLocale, requireSharedFields } from '#content/entries/locale-rights.ts'
import { requireGrantAfterWrite, grantOf, typeFor } from '#content/entries/permission.ts'
import { storedFields } from '#content/versions/version.ts'
import type { Shown } from '#content/entries/view.ts'
import { knownFields, refusingWithout, viewFor } from '#content/entries/visibility.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'

/**
 * Attempts of an optimistic save, each after another write came between, before it waits for the
 * entry's lock.
 */
const optimisticAttemptsMax = 2

type SaveTarget = EntryRef & { readonly input: EntrySave; readonly expected: Expected }

/**
 * Saves a version. Most saves change neither references nor unique values nor what other locales
 * share; they take two statements: one that reads, and one that makes the new version the latest
 * under the condition that nothing changed since. Everything else happens under the entry's lock.
 */
export async function saveEntry(
  context: Context,
  call: Call,
  { type: typeName, id, input, expected }: SaveTarget,
): Promise<EntryView> {
  if (!isId(id)) throw new EntryNotFoundError()
  return context.models.use(call.db, async (model) => {
    const type = typeFor(call, model, typeName)
    const save: Save = { model, type, id, input, expected, read: [] }
    const known = (): Shown =>
      knownFields(call, type, id, { rows: save.read, given: Object.keys(input.fields) })
    return refusingWithout(known, async () => {
      for (let attempt = 1; attempt <= optimisticAttemptsMax; attempt += 1) {
        const outcome = await saveOptimistically(context, call, save)
        if (outcome.kind === 'saved') return outcome.view
        if (outcome.kind === 'needsLock') break
      }
      return atomically(call.db, (tx) => saveUnderLock(context, call, tx, save))
    })
  })
}

async function saveUnderLock(
  context: Context,
  call: Call,
  tx: Queryable,
  save: Save,
): Promise<EntryView> {
  const { model, type, id, input, expected } = save
  const locale = model.locale(input.locale)
  const state = await entryState(tx, { model, type, id }, 'writing')
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

/** Returns the fields that all locales share: a new locale starts with them. */
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
  carryShared(type, edit, { row, changed: touched, fields })
  if (![...touched].some((name) => type.shared.has(name))) return row
  const carried = others.flatMap((before) => {
    const after = edit.latest(before.locale)
    return after === null || after === before ? [] : [before, after]
  })
  const grant = grantOf(call, 'update', type)
  requireSharedFields({ grant, type, id: edit.id, row, carried }, model)
  return row
}

/** A new version, with its fields and the names of those that changed. */
export type ChangedVersion = {
  readonly row: Version
  readonly changed: ReadonlySet<string>
  readonly fields: Readonly<Record<string, unknown>>
}

/** Takes shared fields that changed to the latest versions of the entry's other locales. */
export function carryShared(
  type: TypeModel,
  edit: EntryEdit,
  { row, changed, fields }: ChangedVersion,
): void {
  const names = [...changed].filter((name) => type.shared.has(name))
  if (names.length === 0) return
  const carried = Object.fromEntries(names.map((name) => [name, fields[name]]))
  for (const other of edit.held.filter((one) => one.isLatest && one.locale !== row.locale)) {
    const stored = storedFields(type, other)
    const differs = names.some(
      (name) => JSON.stringify(stored[name]) !== JSON.stringify(fields[name]),
    )
    if (differs) edit.add(other.locale, { ...stored, ...carried })
  }
}
