import type { Grant } from '#content/authority.ts'
import type { BulkItem, BulkOutcome } from '#content/bulk/bulk.ts'
import type { Call } from '#content/content.ts'
import { EntryArchivedError, EntryExistsError, ValidationError } from '#content/errors.ts'
import { checkCompleteOnceSaved, compose, slugBase } from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { stampNow } from '#content/context.ts'
import { importedTimes } from '#content/entries/create.ts'
import { EntryEdit, encodeFields } from '#content/versions/entry-edit.ts'
import type { Version } from '#content/versions/version.ts'
import { entryHeads, entryStates } from '#content/versions/entry-state.ts'
import type { ExistingTargets } from '#content/versions/references.ts'
import { claimSlug } from '#content/versions/claims.ts'
import { lockTargets, targetFaults } from '#content/versions/references.ts'
import { carryShared, sharedFields } from '#content/entries/save.ts'
import { storedFields } from '#content/versions/version.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { isId } from '#lib/id.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { StoaError } from '#lib/stoa-error.ts'

const insertEntries = sql<{ id: string }>(`
  insert into stoa.entry (id, type, created_at, created_by)
  select id, $3::text, created_at, $4::json
  from unnest($1::uuid[], $2::timestamptz[]) as wanted (id, created_at) order by id
  on conflict (id) do nothing returning id`)

const everything: Grant = { filter: null, fields: null }

/** Items of one type that are saved in one transaction, which is `call.db`. */
export type Batch = {
  readonly context: Context
  readonly call: Call
  readonly model: Model
  readonly type: TypeModel
}

/** `empty`: entries that were made here and got no version. */
type Saved = {
  readonly outcomes: BulkOutcome[]
  readonly edits: readonly EntryEdit[]
  readonly empty: readonly string[]
}

/**
 * Prepares the saves of a batch over entries that are locked and read together. An item that breaks
 * a rule by itself is refused in its outcome; the changes of the others are in the edits, to be
 * written in the same transaction. A fault that shows only while an edit is being made, such as
 * another locale that becomes too large, is thrown, since the edit is half made then.
 */
export async function saveItems(batch: Batch, items: readonly BulkItem[]): Promise<Saved> {
  const { edits, made } = await lockAll(batch, items)
  const targets = items.flatMap((item) => targetsOf(batch.type, item))
  const existing = await lockTargets(batch.call.db, targets)
  const outcomes: BulkOutcome[] = []
  for (const item of items) {
    const checked = checkedItem(batch, edits.get(item.id), item, existing)
    outcomes.push(
      typeof checked === 'string'
        ? { outcome: 'refused', reason: checked }
        : await saveItem(batch, checked, item),
    )
  }
  return {
    outcomes,
    edits: [...edits.values()],
    empty: made.filter((id) => edits.get(id)?.held.length === 0),
  }
}

/** Makes the entries that do not exist, locks all in the order of their ids, and reads them. */
async function lockAll(
  { context, call, model, type }: Batch,
  items: readonly BulkItem[],
): Promise<{ edits: Map<string, EntryEdit>; made: readonly string[] }> {
  const { db: tx, authority } = call
  const stamp = { by: authority.actor, at: stampNow(context) }
  const ids = [...new Set(items.filter((item) => isId(item.id)).map((item) => item.id))]
  let heads = await entryHeads(tx, ids, 'writing')
  const there = new Set(heads.map((head) => head.id))
  const fresh = new Map(
    items
      .filter((item) => isId(item.id) && !there.has(item.id) && isPlausible(type, item))
      .map((item) => [item.id, importedTimes(item).createdAt ?? stamp.at]),
  )
  const made: string[] = []
  if (fresh.size > 0) {
    const inserted = await tx.run(insertEntries, [
      [...fresh.keys()],
      [...fresh.values()],
      type.definition.name,
      JSON.stringify(authority.actor),
    ])
    made.push(...inserted.map((row) => row.id))
    heads = await entryHeads(tx, ids, 'writing')
  }
  const own = heads.filter((head) => head.type === type.definition.name)
  const states = await entryStates(tx, { revision: model.revision, type }, own, 'writing')
  const edits = new Map(states.map((state) => [state.id, new EntryEdit(type, state, stamp)]))
  return { edits, made }
}

/** False where validation is bound to refuse the item, so that it leaves no empty entry behind. */
function isPlausible(type: TypeModel, item: BulkItem): boolean {
  return type.validator.validate(item.fields, { publishing: false }).faults.length === 0
}

function targetsOf(type: TypeModel, item: BulkItem): ReturnType<TypeModel['validator']['targets']> {
  const pointing: Record<string, unknown> = {}
  for (const name of type.pointing)
    if (Object.hasOwn(item.fields, name)) pointing[name] = item.fields[name]
  return type.validator.targets(pointing)
}

type Checked = {
  readonly edit: EntryEdit
  readonly locale: string
  readonly latest: Version | null
  readonly fields: Record<string, unknown>
  readonly changed: ReadonlySet<string>
}

/** Returns the checked item, or why it is refused. */
function checkedItem(
  batch: Batch,
  edit: EntryEdit | undefined,
  item: BulkItem,
  existing: ExistingTargets,
): Checked | string {
  try {
    if (edit === undefined)
      throw new EntryExistsError(
        'There is an entry of another type with this id, or it is no id.',
        { id: item.id },
      )
    return check(batch, edit, item, existing)
  } catch (error) {
    if (!(error instanceof StoaError) || error.code.startsWith('E_DATABASE_')) throw error
    return reasonOf(error)
  }
}

function check(
  { model, type }: Batch,
  edit: EntryEdit,
  item: BulkItem,
  existing: ExistingTargets,
): Checked {
  const locale = model.locale(item.locale)
  // An invalid date is refused like any other value.
  importedTimes(item)
  if (edit.isArchived) throw new EntryArchivedError()
  const latest = edit.latest(locale)
  const before = latest === null ? sharedFields(type, edit, model) : storedFields(type, latest)
  const given = latest === null ? { ...before, ...item.fields } : item.fields
  const { fields, changed, newTargets } = compose(
    type,
    everything,
    { fields: given, merge: latest === null, publishing: false },
    before,
  )
  const faults = targetFaults(newTargets, existing)
  if (faults.length > 0) throw new ValidationError(faults)
  if (item.publish) checkCompleteOnceSaved(type, fields)
  encodeFields(type, fields)
  return { edit, locale, latest, fields, changed }
}

async function saveItem(batch: Batch, checked: Checked, item: BulkItem): Promise<BulkOutcome> {
  const { edit, locale, latest } = checked
  const times = importedTimes(item)
  const row = await versionFor(batch.call.db, batch.type, checked, times.createdAt)
  const wasPublished = edit.published(locale)?.number === row.number
  if (item.publish && !wasPublished) edit.publish(row, times.publishedAt)
  const version = row.number
  if (latest === null) return { outcome: 'made', version }
  const isSame = version === latest.number && (wasPublished || !item.publish)
  return { outcome: isSame ? 'unchanged' : 'changed', version }
}

async function versionFor(
  tx: Queryable,
  type: TypeModel,
  { edit, locale, latest, fields, changed }: Checked,
  createdAt: string | undefined,
): Promise<Version> {
  const base = slugBase(type, fields)
  if (latest !== null && changed.size === 0 && base === null) return latest
  const touched = new Set(changed)
  if (base !== null && type.slug !== null) {
    fields[type.slug.name] = await claimSlug(tx, type, { id: edit.id, locale }, base)
    touched.add(type.slug.name)
  }
  const row = edit.add(locale, fields, createdAt === undefined ? {} : { createdAt })
  carryShared(type, edit, { row, changed: touched, fields })
  return row
}

/** Returns why an item is refused, in a line of a report. */
export function reasonOf(error: StoaError): string {
  if (!(error instanceof ValidationError)) return error.message
  const shown = error.faults
    .slice(0, 3)
    .map((fault) => (fault.path === '' ? fault.message : `${fault.path}: ${fault.message}`))
  const more = error.faults.length > 3 ? ` And ${error.faults.length - 3} more.` : ''
  return `${shown.join(' ')}${more}`
}
