import type { Grant } from '#content/authority.ts'
import type { Call, ReleaseItem } from '#content/content.ts'
import type { Context } from '#content/context.ts'
import { stampNow } from '#content/context.ts'
import { checkComplete } from '#content/entries/compose.ts'
import { requireLocales } from '#content/entries/locale-rights.ts'
import { requireGrantAfterWrite } from '#content/entries/permission.ts'
import { knownFields, refusingWithout } from '#content/entries/visibility.ts'
import {
  ContentBusyError,
  EntryArchivedError,
  ForbiddenError,
  ReleaseRefusedError,
  UniqueConflictError,
  ValidationError,
  VersionNotFoundError,
} from '#content/errors.ts'
import type { RefusedItem } from '#content/errors.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { EntryEdit } from '#content/versions/entry-edit.ts'
import { entryState, versionOf } from '#content/versions/entry-state.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import { MissingTargetError, missingFault } from '#content/versions/references.ts'
import { storedFields } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import { writeEdits } from '#content/versions/write-edits.ts'
import { StoaError } from '#lib/stoa-error.ts'

/**
 * Publishing and undoing the items of a release. All entries of a type are written together, so
 * that one entry can take over a unique value that another one gives up in the same release. What
 * keeps items back is collected, and thrown with the entry, the locale and the reason of each.
 */

const refusedMax = 100

export type StoredItem = ReleaseItem & {
  readonly numberBefore: number | null
  readonly publishedBefore: string | null
}

/** `call.db` is the transaction. */
export type ReleaseWork = { readonly context: Context; readonly call: Call; readonly model: Model }

/** One entry of a release, locked, with the changes that its items make. */
type Plan = {
  readonly type: TypeModel
  readonly state: EntryState
  readonly edit: EntryEdit
  readonly items: readonly StoredItem[]
}

type PlanItem = (plan: Plan, item: StoredItem, grant: Grant) => Promise<void>

/** `keep` records what undoing the item is to put back. Throws `ReleaseRefusedError`. */
export async function publishItems(
  work: ReleaseWork,
  items: readonly StoredItem[],
  keep: (item: StoredItem, before: Version | null) => Promise<void>,
): Promise<void> {
  await applyItems(work, items, async (plan, item, grant) => {
    await keep(item, plan.edit.published(item.locale))
    await publishItem(work.call, plan, item, grant)
  })
}

/** Items that were superseded since are left to the caller. Throws `ReleaseRefusedError`. */
export async function undoItems(work: ReleaseWork, items: readonly StoredItem[]): Promise<void> {
  await applyItems(work, items, (plan, item, grant) => undoItem(work.call, plan, item, grant))
}

/** The items for which something else is published by now than what the release published. */
export async function supersededItems(
  { call, model }: ReleaseWork,
  items: readonly StoredItem[],
): Promise<StoredItem[]> {
  const superseded: StoredItem[] = []
  for (const [entryId, own] of byEntry(items)) {
    const { held } = await entryState(call.db, { model, type: null, id: entryId }, 'writing')
    for (const item of own) {
      const current = held.find((row) => row.isPublished && row.locale === item.locale)
      if ((current?.number ?? null) !== (item.action === 'publish' ? item.version : null))
        superseded.push(item)
    }
  }
  return superseded
}

async function applyItems(
  work: ReleaseWork,
  items: readonly StoredItem[],
  apply: PlanItem,
): Promise<void> {
  const { context, call, model } = work
  const refused: RefusedItem[] = []
  const plans: Plan[] = []
  for (const [entryId, own] of byEntry(items)) {
    const state = await entryState(call.db, { model, type: null, id: entryId }, 'writing')
    const type = model.type(state.type)
    const edit = new EntryEdit(type, state, { by: call.authority.actor, at: stampNow(context) })
    const plan = { type, state, edit, items: own }
    plans.push(plan)
    for (const item of own) {
      try {
        const { grant } = requireLocales(call, 'publish', { type, state, model }, [item.locale])
        await apply(plan, item, grant)
      } catch (error) {
        refused.push(...refusalsOf(error, item))
      }
    }
  }
  if (refused.length === 0) refused.push(...(await writePlans(call, plans)))
  if (refused.length > 0) throw new ReleaseRefusedError(refused.slice(0, refusedMax))
}

/**
 * The items by entry, in the order of ids: every transaction over many entries locks them in this
 * order.
 */
function byEntry(items: readonly StoredItem[]): [string, StoredItem[]][] {
  const groups = Map.groupBy(items, (item) => item.entryId)
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1))
}

async function publishItem(
  call: Call,
  { type, state, edit }: Plan,
  item: StoredItem,
  grant: Grant,
): Promise<void> {
  if (state.archivedAt !== null) throw new EntryArchivedError()
  if (item.action === 'unpublish') {
    edit.unpublish(item.locale)
    return
  }
  const row = await versionIn(call, { type, edit }, item.locale, item.version ?? 0)
  await refusingWithout(
    () => knownFields(call, type, state.id, { rows: [row] }),
    async () => checkComplete(type, storedFields(type, row)),
  )
  requireGrantAfterWrite(grant, 'publish', type, { id: state.id, row: edit.publish(row) })
}

async function undoItem(
  call: Call,
  { type, state, edit }: Plan,
  item: StoredItem,
  grant: Grant,
): Promise<void> {
  const { locale, numberBefore } = item
  if (numberBefore === null) edit.unpublish(locale)
  else if (numberBefore !== (edit.published(locale)?.number ?? null)) {
    if (state.archivedAt !== null) throw new EntryArchivedError()
    const row = await versionIn(call, { type, edit }, locale, numberBefore)
    const published = edit.publish(row, item.publishedBefore ?? undefined)
    requireGrantAfterWrite(grant, 'publish', type, { id: state.id, row: published })
  }
}

async function versionIn(
  call: Call,
  { type, edit }: Pick<Plan, 'type' | 'edit'>,
  locale: string,
  number: number,
): Promise<Version> {
  const held = edit.held.find((row) => row.locale === locale && row.number === number)
  const row = held ?? (await versionOf(call.db, type, { id: edit.id, locale, number }))
  if (row !== null) return row
  throw new VersionNotFoundError(`There is no version ${number} in the locale "${locale}".`)
}

/** Why the entries of a type could not be written; those of other types are then not tried. */
async function writePlans(call: Call, plans: readonly Plan[]): Promise<RefusedItem[]> {
  for (const [type, own] of Map.groupBy(plans, (plan) => plan.type)) {
    try {
      await writeEdits(
        call.db,
        type,
        own.map((plan) => plan.edit),
      )
    } catch (error) {
      return writeRefusals(call, own, error)
    }
  }
  return []
}

async function writeRefusals(
  call: Call,
  plans: readonly Plan[],
  error: unknown,
): Promise<RefusedItem[]> {
  const refused: RefusedItem[] = []
  for (const one of byPlace(error)) {
    const plan = plans.find(({ state }) => state.id === one.entryId)
    if (plan === undefined) throw error
    const { type, state, edit, items } = plan
    const rows = edit.held.filter((row) => row.isPublished)
    const known = () => knownFields(call, type, state.id, { rows })
    const shown = await refusingWithout(known, () => Promise.reject(one.error)).catch(
      (reason: unknown) => reason,
    )
    const item = items.find(({ locale }) => locale === one.locale) ?? items[0]!
    refused.push(...refusalsOf(shown, item))
  }
  return refused
}

type Placed = { readonly entryId: string; readonly locale: string; readonly error: StoaError }

/** The parts of what a batch threw, each with the entry that it is about. */
function byPlace(error: unknown): Placed[] {
  if (error instanceof MissingTargetError)
    return error.missing.map((missing) => ({
      entryId: missing.entry_id,
      locale: missing.locale,
      error: new ValidationError([missingFault(missing)]),
    }))
  if (error instanceof UniqueConflictError && error.entryId !== null)
    return [{ entryId: error.entryId, locale: String(error.facts['locale']), error }]
  throw error
}

/** Throws again what is no refusal of content, and what the caller has no right to. */
function refusalsOf(error: unknown, { entryId, type, locale }: StoredItem): RefusedItem[] {
  const place = { entryId, type, locale }
  if (error instanceof ForbiddenError)
    throw new ForbiddenError(`Entry ${entryId}, ${locale}: ${error.message}`, {
      ...error.facts,
      ...place,
    })
  const isRefusal =
    error instanceof StoaError &&
    !(error instanceof ContentBusyError) &&
    !error.code.startsWith('E_DATABASE_')
  if (!isRefusal) throw error
  if (!(error instanceof ValidationError))
    return [{ ...place, code: error.code, message: error.message }]
  return error.faults.map(({ path, message }) => ({
    ...place,
    code: error.code,
    message: path === '' ? message : `${path}: ${message}`,
  }))
}
