import type { Call, DeleteOutcome, Expected } from '#content/content.ts'
import type { Field } from '#content/content-type.ts'
import type { Referrer } from '#content/errors.ts'
import { DeleteTooWideError, EntryNotFoundError, EntryReferencedError } from '#content/errors.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { EntryEdit } from '#content/versions/entry-edit.ts'
import type { EntryState, LockMode } from '#content/versions/entry-state.ts'
import { entryState, latestOf, localesOf } from '#content/versions/entry-state.ts'
import { requireGrant, mayRead } from '#content/entries/permission.ts'
import { checkExpected } from '#content/entries/save.ts'
import { storedFields } from '#content/entries/view.ts'
import type { Model } from '#content/model/model.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'
import { isId } from '#lib/id.ts'

/** Entries that one delete may delete, and entries that it may take references out of. */
const entriesMax = 1_000
const namedMax = 20
/** Referrers looked at to find those that the caller may read. */
const lookedAtMax = 200

type ReferenceRow = {
  readonly id: string
  readonly type: string
  readonly locale: string
  readonly path: string
  readonly on_delete: 'restrict' | 'unset' | 'cascade'
}

const referrers = sql<ReferenceRow>(`
  select distinct r.entry_id as id, e.type, r.locale, r.path, r.on_delete
  from stoa.reference r join stoa.entry e on e.id = r.entry_id
  where r.target_kind = 'entry' and r.target_id = any($1::uuid[]) and r.entry_id <> all($1::uuid[])
  order by r.entry_id, r.locale, r.path limit ${entriesMax * 10}`)

const deleteItems = sql<object>(`delete from stoa.release_item where entry_id = any($1::uuid[])`)
const deleteEntries = sql<object>(`delete from stoa.entry where id = any($1::uuid[])`)

/**
 * Deletes an entry with all its versions. What refers to it decides: fields that cascade are
 * deleted too, then any other entry that restricts stops it, and the rest gets new versions without
 * the reference. The lock on each deleted entry keeps new references out until the end.
 */
export async function deleteEntry(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  expected: Expected,
): Promise<DeleteOutcome> {
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const type = model.type(typeName)
      const state = await entryState(tx, model, type, id, 'deleting')
      const grant = requireGrant(call, 'delete', type, state)
      const [first] = localesOf(state, model)
      checkExpected(call, type, state, {
        expected,
        grant,
        row: first === undefined ? null : latestOf(state, first),
        yours: null,
      })
      const doomed = await cascade(call, tx, model, id)
      const left = await tx.run(referrers, [[...doomed]])
      await refuse(call, tx, model, left)
      const ids = [...new Set(left.map((row) => row.id))].sort()
      if (ids.length > entriesMax) throw tooWide()
      const unset: string[] = []
      for (const referrer of ids)
        if (await takeOut(context, call, tx, model, referrer, doomed)) unset.push(referrer)
      await tx.run(deleteItems, [[...doomed]])
      await tx.run(deleteEntries, [[...doomed]])
      return { deleted: [...doomed], unset }
    }),
  )
}

function tooWide(): DeleteTooWideError {
  return new DeleteTooWideError(
    `Deleting it would change more than ${entriesMax} other entries. Delete or change those first.`,
    { limit: entriesMax },
  )
}

/**
 * The entry and all that goes with it, locked. Each must be one that the caller may delete. What
 * let go of its reference before it was locked stays.
 */
async function cascade(
  call: Call,
  tx: Queryable,
  model: Model,
  id: string,
): Promise<ReadonlySet<string>> {
  const doomed = new Set([id])
  const cascading = async (): Promise<Set<string>> => {
    const rows = await tx.run(referrers, [[...doomed]])
    return new Set(rows.filter((row) => row.on_delete === 'cascade').map((row) => row.id))
  }
  for (;;) {
    const next = await cascading()
    if (next.size === 0) return doomed
    if (doomed.size + next.size > entriesMax) throw tooWide()
    const states: EntryState[] = []
    for (const one of next) states.push(...(await ifThere(tx, model, one, 'deleting')))
    const still = await cascading()
    for (const state of states.filter((one) => still.has(one.id))) {
      requireGrant(call, 'delete', model.type(state.type), state)
      doomed.add(state.id)
    }
  }
}

/** A referrer; nothing if somebody deleted it meanwhile. */
async function ifThere(
  tx: Queryable,
  model: Model,
  id: string,
  hold: LockMode,
): Promise<EntryState[]> {
  try {
    return [await entryState(tx, model, null, id, hold)]
  } catch (error) {
    if (error instanceof EntryNotFoundError) return []
    throw error
  }
}

async function refuse(
  call: Call,
  tx: Queryable,
  model: Model,
  rows: readonly ReferenceRow[],
): Promise<void> {
  const restricting = rows.filter((row) => row.on_delete !== 'unset')
  if (restricting.length === 0) return
  const visible: Referrer[] = []
  const ids = [...new Set(restricting.map((row) => row.id))]
  for (const id of ids.slice(0, lookedAtMax)) {
    if (visible.length >= namedMax) break
    const [state] = await ifThere(tx, model, id, 'reading')
    const row = restricting.find((one) => one.id === id)
    if (state !== undefined && row !== undefined && mayRead(call, model.type(state.type), state))
      visible.push({ id, type: row.type, locale: row.locale, path: row.path })
  }
  throw new EntryReferencedError(visible, ids.length)
}

const holdersOfAsset = sql<{ id: string; restricted: boolean }>(`
  select entry_id as id, bool_or(on_delete <> 'unset') as restricted from stoa.reference
  where target_id = $1 and target_kind = 'asset' group by entry_id order by entry_id limit ${entriesMax + 1}`)

/**
 * Takes an asset that is about to be deleted out of the fields that say `unset`. Where a field
 * restricts, nothing is changed: whoever deletes the asset, in the same transaction, finds it in
 * use.
 */
export async function takeOutAsset(
  context: Context,
  call: Call,
  assetId: string,
): Promise<readonly string[]> {
  if (!isId(assetId)) return []
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const holders = await tx.run(holdersOfAsset, [assetId])
      if (holders.some((holder) => holder.restricted)) return []
      if (holders.length > entriesMax) throw tooWide()
      const changed: string[] = []
      for (const { id } of holders)
        if (await takeOut(context, call, tx, model, id, new Set([assetId]))) changed.push(id)
      return changed
    }),
  )
}

/** Those of them whose entries the one who asks may read. */
export async function readableAmong<
  Referrer extends { readonly type: string; readonly entry: string },
>(context: Context, call: Call, referrers: readonly Referrer[]): Promise<Referrer[]> {
  return context.models.use(call.db, async (model) => {
    const readable: Referrer[] = []
    for (const referrer of referrers) {
      const type = model.types.get(referrer.type)
      const [state] =
        type === undefined ? [] : await ifThere(call.db, model, referrer.entry, 'reading')
      if (type !== undefined && state !== undefined && mayRead(call, type, state))
        readable.push(referrer)
    }
    return readable
  })
}

/**
 * New versions of a referrer without the references, published where the old ones were. False: it
 * has let go by itself.
 */
async function takeOut(
  context: Context,
  call: Call,
  tx: Queryable,
  model: Model,
  id: string,
  doomed: ReadonlySet<string>,
): Promise<boolean> {
  const [state] = await ifThere(tx, model, id, 'writing')
  if (state === undefined) return false
  const type = model.type(state.type)
  const edit = new EntryEdit(type, state, { by: call.authority.actor, at: stampNow(context) })
  for (const row of state.held) {
    const stored = storedFields(type, row)
    const fields = withoutTargets(type.definition.fields, stored, doomed)
    if (JSON.stringify(fields) === JSON.stringify(stored)) continue
    const added = edit.add(row.locale, fields, row.isLatest ? {} : { beside: row })
    if (row.isPublished) edit.publish(added, row.publishedAt ?? undefined)
  }
  const { changed } = edit.changes()
  await edit.flush(tx)
  return changed
}

type Values = Readonly<Record<string, unknown>>

/** The values without references to these entries or assets, at any depth. */
export function withoutTargets(
  fields: readonly Field[],
  values: Values,
  doomed: ReadonlySet<string>,
): Record<string, unknown> {
  const result: Record<string, unknown> = { ...values }
  for (const field of fields) {
    const value = values[field.name]
    if (value === undefined || value === null) continue
    const kept = withoutTarget(field, value, doomed)
    if (kept === undefined) delete result[field.name]
    else result[field.name] = kept
  }
  return result
}

function withoutTarget(field: Field, value: unknown, doomed: ReadonlySet<string>): unknown {
  const gone = (one: unknown): boolean => typeof one === 'string' && doomed.has(one)
  switch (field.kind) {
    case 'asset':
    case 'reference':
      return Array.isArray(value)
        ? value.filter((one) => !gone(one))
        : gone(value)
          ? undefined
          : value
    case 'group':
      return withoutTargets(field.fields, value as Values, doomed)
    case 'list':
      return Array.isArray(value)
        ? value
            .map((one) => withoutTarget(field.of, one, doomed))
            .filter((one) => one !== undefined)
        : value
    case 'blocks':
      return Array.isArray(value)
        ? (value as Values[]).map((one) =>
            withoutTargets(
              field.blocks.find((block) => block.name === one['block'])?.fields ?? [],
              one,
              doomed,
            ),
          )
        : value
    default:
      return value
  }
}
