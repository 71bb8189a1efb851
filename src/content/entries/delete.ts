import type { Call, DeleteOutcome, Expected } from '#content/content.ts'
import type { Field, OnDelete } from '#content/content-type.ts'
import type { Referrer } from '#content/errors.ts'
import { DeleteTooWideError, EntryNotFoundError, EntryReferencedError } from '#content/errors.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { EntryEdit } from '#content/versions/entry-edit.ts'
import { writeEdits } from '#content/versions/write-edits.ts'
import type { EntryState, LockMode } from '#content/versions/entry-state.ts'
import type { Version } from '#content/versions/version.ts'
import { entryState, localesOf } from '#content/versions/entry-state.ts'
import { latestOf } from '#content/versions/version.ts'
import {
  grantCovers,
  grantOf,
  mayRead,
  requireGrant,
  typeFor,
} from '#content/entries/permission.ts'
import { checkExpected } from '#content/entries/check-expected.ts'
import { storedFields } from '#content/versions/version.ts'
import { visibleFields } from '#content/entries/visibility.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { systemActor } from '#lib/actor.ts'
import { isId } from '#lib/id.ts'

/** Entries that one delete may delete, and entries that it may take references out of. */
const entriesMax = 1_000
/** References of all of them that one delete looks at; with more it is refused. */
const referencesMax = 10_000
const namedMax = 20
/** Referrers looked at to find those that the caller may read. */
const lookedAtMax = 200

type ReferenceRow = {
  readonly id: string
  readonly type: string
  readonly locale: string
  readonly path: string
}

const referrers = sql<ReferenceRow>(`
  select distinct r.entry_id as id, e.type, r.locale, r.path
  from stoa.reference r join stoa.entry e on e.id = r.entry_id
  where r.target_kind = 'entry' and r.target_id = any($1::uuid[]) and r.entry_id <> all($1::uuid[])
  order by r.entry_id, r.locale, r.path limit ${referencesMax + 1}`)

/** Those of fields that the type of the referrer does not have any more. */
const deleteReferences = sql<object>(
  `delete from stoa.reference where target_kind = $2 and target_id = any($1::uuid[])`,
)
const deleteItems = sql<object>(`delete from stoa.release_item where entry_id = any($1::uuid[])`)
const deleteEntries = sql<object>(`delete from stoa.entry where id = any($1::uuid[])`)

/**
 * Deletes an entry with all its versions. What refers to it decides: entries that refer to it by
 * fields that cascade are deleted too, if the caller may delete them; then any other entry that
 * restricts stops it; the rest gets new versions without the reference, by the type's designer's
 * declaration and so as the system. The lock on each deleted entry keeps new references out until
 * the end.
 */
export async function deleteEntry(
  context: Context,
  call: Call,
  target: { readonly type: string; readonly id: string; readonly expected: Expected },
): Promise<DeleteOutcome> {
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const type = typeFor(call, model, target.type)
      const state = await entryState(tx, { model, type, id: target.id }, 'deleting')
      requireGrant(call, 'delete', type, state)
      checkExpected(call, type, state, {
        expected: target.expected,
        rows: localesOf(state, model).flatMap((locale) => latestOf(state, locale) ?? []),
        yours: null,
      })
      const work: Work = { context, call, tx, model }
      const removed = await cascade(work, state)
      const ids = [...removed.keys()]
      const left = await referrersOf(tx, ids)
      const policies = Map.groupBy(left, (row) => policyOf(model, row))
      const restricting = [...(policies.get('restrict') ?? []), ...(policies.get('cascade') ?? [])]
      await refuseRestricting(work, restricting)
      const holders = new Set(policies.get('unset')?.map((row) => row.id))
      const unset = await takeOut(work, [...holders].sort(), new Set(ids))
      await tx.run(deleteReferences, [ids, 'entry'])
      await tx.run(deleteItems, [ids])
      await tx.run(deleteEntries, [ids])
      return {
        deleted: [...removed.values()]
          .filter((one) => one === state || mayRead(call, model.type(one.type), one))
          .map((one) => one.id),
        unset,
      }
    }),
  )
}

/** All references to these entries from others. Throws `DeleteTooWideError`. */
async function referrersOf(tx: Queryable, ids: readonly string[]): Promise<ReferenceRow[]> {
  return whole(await tx.run(referrers, [ids]))
}

/**
 * Refuses an incomplete list: a reference that was not read would be neither refused nor removed.
 */
function whole(rows: ReferenceRow[]): ReferenceRow[] {
  if (rows.length > referencesMax) throw tooWide()
  return rows
}

type Work = {
  readonly context: Context
  readonly call: Call
  readonly tx: Queryable
  readonly model: Model
}

/**
 * Null: the field was taken out of the type, so the entry does not refer to the target any more.
 */
function policyOf(model: Model, row: ReferenceRow): OnDelete | null {
  return model.type(row.type).pointers.get(row.path) ?? null
}

function tooWide(): DeleteTooWideError {
  return new DeleteTooWideError(
    `Deleting it would change more than ${entriesMax} other entries, or more than ` +
      `${referencesMax} references. Delete or change those first.`,
    { limit: entriesMax },
  )
}

/**
 * The entry and all that goes with it, locked. The caller must be allowed to delete each of them.
 * An entry that drops its reference before it is locked stays.
 */
async function cascade(
  { call, tx, model }: Work,
  first: EntryState,
): Promise<ReadonlyMap<string, EntryState>> {
  const removed = new Map([[first.id, first]])
  const cascading = async (): Promise<ReferenceRow[]> => {
    const rows = await referrersOf(tx, [...removed.keys()])
    return rows.filter((row) => policyOf(model, row) === 'cascade')
  }
  for (;;) {
    const next = new Set((await cascading()).map((row) => row.id))
    if (next.size === 0) return removed
    if (removed.size + next.size > entriesMax) throw tooWide()
    const states: EntryState[] = []
    for (const id of next) states.push(...(await stateIfThere(tx, model, id, 'deleting')))
    const rows = await cascading()
    const still = states.filter((state) => rows.some((row) => row.id === state.id))
    const kept = still.filter((state) => !mayDelete(call, model, state))
    await refuseRestricting(
      { call, tx, model },
      rows.filter((row) => kept.some((state) => state.id === row.id)),
    )
    for (const state of still) removed.set(state.id, state)
  }
}

function mayDelete(call: Call, model: Model, state: EntryState): boolean {
  const type = model.type(state.type)
  const grant = grantOf(call, 'delete', type)
  return state.held
    .filter((row) => row.isLatest)
    .every((row) => grantCovers(grant, type, state.id, row))
}

/** The state of an entry; nothing if it was deleted meanwhile. */
async function stateIfThere(
  tx: Queryable,
  model: Model,
  id: string,
  hold: LockMode,
): Promise<EntryState[]> {
  try {
    return [await entryState(tx, { model, type: null, id }, hold)]
  } catch (error) {
    if (error instanceof EntryNotFoundError) return []
    throw error
  }
}

/** Refuses for these references, if there are any, and names what of them the caller may see. */
async function refuseRestricting(
  { call, tx, model }: Omit<Work, 'context'>,
  rows: readonly ReferenceRow[],
): Promise<void> {
  if (rows.length === 0) return
  const visible: Referrer[] = []
  for (const row of rows.slice(0, lookedAtMax)) {
    if (visible.length >= namedMax) break
    if (visible.some((one) => one.id === row.id)) continue
    const [state] = await stateIfThere(tx, model, row.id, 'reading')
    if (state !== undefined) visible.push(...visibleReferrer(call, model, state, row))
  }
  throw new EntryReferencedError(visible)
}

/** The referrer if the caller may read a version of it that refers, in a field that they see. */
function visibleReferrer(
  call: Call,
  model: Model,
  state: EntryState,
  { id, locale, path }: ReferenceRow,
): readonly Referrer[] {
  const type = model.type(state.type)
  const shown = state.held
    .filter((row) => row.locale === locale)
    .some((row) => visibleFields(call, type, id, row)?.includes(fieldOfPath(path)) !== false)
  return shown ? [{ id, type: state.type, locale, path }] : []
}

/** The field that the path of a reference begins with. */
function fieldOfPath(path: string): string {
  return path.split('.')[0] ?? path
}

const holdersOfAsset = sql<ReferenceRow>(`
  select distinct r.entry_id as id, e.type, r.locale, r.path from stoa.reference r
    join stoa.entry e on e.id = r.entry_id
  where r.target_id = $1 and r.target_kind = 'asset' order by r.entry_id
    limit ${referencesMax + 1}`)

/**
 * Takes an asset that is about to be deleted out of the fields that say `unset`. Where a field
 * restricts, nothing is changed: deleting the asset in the same transaction finds it in use.
 */
export async function takeOutAsset(
  context: Context,
  call: Call,
  assetId: string,
): Promise<readonly string[]> {
  if (!isId(assetId)) return []
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const rows = whole(await tx.run(holdersOfAsset, [assetId]))
      const policies = Map.groupBy(rows, (row) => policyOf(model, row))
      if (policies.has('restrict')) return []
      const holders = new Set(policies.get('unset')?.map((row) => row.id))
      const unset = await takeOut({ context, call, tx, model }, [...holders], new Set([assetId]))
      await tx.run(deleteReferences, [[assetId], 'asset'])
      return unset
    }),
  )
}

/** Returns whether the fields that the caller sees of a version refer to the target. */
function showsTarget(
  call: Call,
  type: TypeModel,
  { id, row }: { readonly id: string; readonly row: Version },
  targetId: string,
): boolean {
  const visible = visibleFields(call, type, id, row)
  const shown = Object.entries(storedFields(type, row)).filter(
    ([name]) => visible?.includes(name) !== false,
  )
  const targets = type.validator.targets(Object.fromEntries(shown))
  return targets.some((target) => target.id === targetId)
}

type AnyReferrer = { readonly type: string; readonly entry: string; readonly locale: string }

/**
 * The referrers whose versions the caller may read, by fields that they may see. One query per
 * referrer: use for short lists.
 */
export async function readableAmong<Referrer extends AnyReferrer>(
  context: Context,
  call: Call,
  targetId: string,
  referrers: readonly Referrer[],
): Promise<Referrer[]> {
  return context.models.use(call.db, async (model) => {
    const readable: Referrer[] = []
    for (const referrer of referrers) {
      const type = model.types.get(referrer.type)
      const [state] =
        type === undefined ? [] : await stateIfThere(call.db, model, referrer.entry, 'reading')
      const rows = state?.held.filter((row) => row.locale === referrer.locale) ?? []
      if (
        type !== undefined &&
        rows.some((row) => showsTarget(call, type, { id: referrer.entry, row }, targetId))
      )
        readable.push(referrer)
    }
    return readable
  })
}

/**
 * Gives the holders new versions without references to these targets, published where the old ones
 * were, as the system. Returns those of them that the caller may read. Where a published version
 * would lack a required value, the reference restricts instead.
 */
async function takeOut(
  { context, call, tx, model }: Work,
  holders: readonly string[],
  targets: ReadonlySet<string>,
): Promise<readonly string[]> {
  if (holders.length > entriesMax) throw tooWide()
  const changed: string[] = []
  for (const id of holders) {
    const [state] = await stateIfThere(tx, model, id, 'writing')
    if (state === undefined) continue
    const type = model.type(state.type)
    const edit = new EntryEdit(type, state, { by: systemActor, at: stampNow(context) })
    for (const row of state.held) {
      const stored = storedFields(type, row)
      const fields = withoutTargets(type.definition.fields, stored, targets)
      if (JSON.stringify(fields) === JSON.stringify(stored)) continue
      if (row.isPublished && isComplete(type, stored) && !isComplete(type, fields))
        throw new EntryReferencedError(requiredBy(call, model, state, row))
      const added = edit.add(row.locale, fields, row.isLatest ? {} : { beside: row })
      if (row.isPublished) edit.publish(added, row.publishedAt ?? undefined)
    }
    await writeEdits(tx, type, [edit])
    if (edit.changes().changed && mayRead(call, type, state)) changed.push(id)
  }
  return changed
}

function isComplete(type: TypeModel, fields: Values): boolean {
  return type.validator.validate(fields, { publishing: true }).faults.length === 0
}

/** The entry whose published version needs the reference, if the caller may see that. */
function requiredBy(
  call: Call,
  model: Model,
  { id, type }: EntryState,
  row: Version,
): readonly Referrer[] {
  const visible = visibleFields(call, model.type(type), id, row)
  return visible === null ? [{ id, type, locale: row.locale, path: '' }] : []
}

type Values = Readonly<Record<string, unknown>>

/** The values without references to these entries or assets, at any depth. */
export function withoutTargets(
  fields: readonly Field[],
  values: Values,
  targets: ReadonlySet<string>,
): Record<string, unknown> {
  const result: Record<string, unknown> = { ...values }
  for (const field of fields) {
    const value = values[field.name]
    if (value === undefined || value === null) continue
    const kept = withoutTarget(field, value, targets)
    if (kept === undefined) delete result[field.name]
    else result[field.name] = kept
  }
  return result
}

function withoutTarget(field: Field, value: unknown, targets: ReadonlySet<string>): unknown {
  const gone = (one: unknown): boolean => typeof one === 'string' && targets.has(one)
  switch (field.kind) {
    case 'asset':
    case 'reference':
      if (Array.isArray(value)) return value.filter((one) => !gone(one))
      return gone(value) ? undefined : value
    case 'group':
      return withoutTargets(field.fields, value as Values, targets)
    case 'list':
      return Array.isArray(value)
        ? value
            .map((one) => withoutTarget(field.of, one, targets))
            .filter((one) => one !== undefined)
        : value
    case 'blocks':
      return Array.isArray(value)
        ? (value as Values[]).map((one) =>
            withoutTargets(
              field.blocks.find((block) => block.name === one['block'])?.fields ?? [],
              one,
              targets,
            ),
          )
        : value
    default:
      return value
  }
}
