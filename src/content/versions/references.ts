import type { Call } from '#content/content.ts'
import { UniqueConflictError, ValidationError } from '#content/errors.ts'
import type { Version } from '#content/versions/entry-state.ts'
import { versionColumns } from '#content/versions/entry-state.ts'
import { grantOf, mayRead } from '#content/entries/permission.ts'
import { currentFilter } from '#content/versions/upgraded-filter.ts'
import { storedFields } from '#content/entries/view.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import type { Fault } from '#content/validation/fault.ts'
import type { Target } from '#content/validation/target.ts'
import { typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/**
 * What the held versions of an entry, the latest and the published ones, hold besides themselves:
 * rows in `stoa.reference` for what they point to, and claims in `stoa.unique_value`. Both are made
 * from the versions as a whole under the entry's lock, so that they are right whatever came before.
 * A target that the entry did not hold by that field before is locked, and must be there: the
 * version may be an old one, and what only old versions point to can be deleted.
 */

/** The locale of claims of a field that all locales share. */
const everyLocale = '*'

export type Claim = { readonly field: string; readonly locale: string; readonly value: string }

export type ReferenceRow = {
  readonly locale: string
  readonly perspective: 'draft' | 'published'
  readonly path: string
  readonly target_kind: string
  readonly target_id: string
  readonly on_delete: string
}

/** Returns what is gone of the targets that were not held before. */
const syncReferences = sql<{ locale: string; path: string }>(`
  with wanted as (
    select * from json_to_recordset($2::json) as r (locale text, perspective text, path text, target_kind text, target_id uuid, on_delete text)
  ), fresh as (
    select w.locale, w.path, w.target_kind, w.target_id from wanted w where not exists (
      select from stoa.reference r where r.entry_id = $1 and r.path = w.path and r.target_id = w.target_id and r.target_kind = w.target_kind)
  ), entries as (
    select id from stoa.entry where id in (select target_id from fresh where target_kind = 'entry') order by id for key share
  ), assets as (
    select id from stoa.asset where id in (select target_id from fresh where target_kind = 'asset') order by id for key share
  ), gone as (
    delete from stoa.reference r where r.entry_id = $1 and not exists (
      select from wanted w where w.locale = r.locale and w.perspective = r.perspective and w.path = r.path and w.target_id = r.target_id)
  ), held as (
    insert into stoa.reference (entry_id, locale, perspective, path, target_kind, target_id, on_delete)
    select $1, locale, perspective, path, target_kind, target_id, on_delete from wanted
    on conflict (entry_id, locale, perspective, path, target_id) do update set on_delete = excluded.on_delete, target_kind = excluded.target_kind
    where stoa.reference.on_delete <> excluded.on_delete or stoa.reference.target_kind <> excluded.target_kind
  )
  select distinct locale, path from fresh
  where target_id not in (select id from entries union all select id from assets) order by locale, path limit 100`)

/**
 * Returns the model by which it is right: another may have made claims that this one knows nothing
 * of, and took away.
 */
const syncClaims = sql<{ model: string }>(`
  with wanted as (
    select * from json_to_recordset($3::json) as c (field text, locale text, value text)
  ), gone as (
    delete from stoa.unique_value u where u.entry_id = $1 and not exists (
      select from wanted w where w.field = u.field and w.locale = u.locale and w.value = u.value)
  ), made as (
    insert into stoa.unique_value (type, field, locale, value, entry_id)
    select $2, field, locale, value, $1 from wanted order by field, locale, value
    on conflict do nothing
  )
  select revision as model from stoa.model`)

const claimsOfOthers = sql<{ field: string; locale: string }>(`
  select w.field, w.locale from json_to_recordset($3::json) as w (field text, locale text, value text)
  where not exists (select from stoa.unique_value u
    where u.type = $2 and u.field = w.field and u.locale = w.locale and u.value = w.value and u.entry_id = $1)
  order by w.field, w.locale limit 1`)

/** The claims of one version. Its own filter may be from before the field became unique. */
export function claimsOf(type: TypeModel, row: Version): Claim[] {
  if (type.unique.length === 0) return []
  const filter = currentFilter(type, row)
  return type.unique.flatMap((field) => {
    const value = filter[field.name]
    return value === undefined
      ? []
      : [
          {
            field: field.name,
            locale: field.localized === true ? row.locale : everyLocale,
            value: String(value),
          },
        ]
  })
}

/** The references of one version, in each perspective that it stands for. */
export function referencesOf(type: TypeModel, row: Version): ReferenceRow[] {
  const stored = storedFields(type, row)
  const pointing: Record<string, unknown> = {}
  for (const name of type.pointing) if (Object.hasOwn(stored, name)) pointing[name] = stored[name]
  const perspectives = [
    ...(row.isLatest ? (['draft'] as const) : []),
    ...(row.isPublished ? (['published'] as const) : []),
  ]
  return type.validator.targets(pointing).flatMap((target) =>
    perspectives.map((perspective) => ({
      locale: row.locale,
      perspective,
      path: target.path,
      target_kind: target.kind,
      target_id: target.id,
      on_delete: target.onDelete,
    })),
  )
}

/** Each row once. */
export function once<Row extends object>(rows: readonly Row[]): Row[] {
  return [...new Map(rows.map((row) => [JSON.stringify(row), row])).values()]
}

/**
 * Brings reference rows and claims in line with the held versions. Throws `UniqueConflictError`
 * where another entry has a value, `ValidationError` where a version points to what is gone, and
 * `StaleModel` where the model is not that of `type` any more.
 */
export async function hold(
  tx: Queryable,
  { revision, type }: { readonly revision: string; readonly type: TypeModel },
  id: string,
  held: readonly Version[],
): Promise<void> {
  if (type.pointing.size > 0) {
    const gone = await tx.run(syncReferences, [
      id,
      JSON.stringify(once(held.flatMap((row) => referencesOf(type, row)))),
    ])
    if (gone.length > 0) throw new ValidationError(gone.map(goneFault))
  }
  if (type.unique.length === 0) return
  const claims = once(held.flatMap((row) => claimsOf(type, row)))
  const values = [id, type.definition.name, JSON.stringify(claims)]
  const [synced] = await tx.run(syncClaims, values)
  if (synced?.model !== revision) throw new StaleModel()
  if (claims.length === 0) return
  const [taken] = await tx.run(claimsOfOthers, values)
  if (taken !== undefined) throw new UniqueConflictError(taken.field, taken.locale)
}

function goneFault({ locale, path }: { readonly locale: string; readonly path: string }): Fault {
  return {
    path: `/${path.replaceAll('.', '/')}`,
    code: 'target',
    message: `The version in "${locale}" refers to something that was deleted. Save it without that, and publish what you saved.`,
  }
}

const takenValues = sql<{ value: string }>(`
  select value from stoa.unique_value where type = $1 and field = $2 and locale = $3 and value = any($4::text[]) and entry_id <> $5`)

const claimOne = sql<{ value: string }>(`
  insert into stoa.unique_value (type, field, locale, value, entry_id) values ($1, $2, $3, $4, $5)
  on conflict (type, field, locale, value) do update set entry_id = stoa.unique_value.entry_id where stoa.unique_value.entry_id = $5
  returning value`)

/** Numbers tried behind a slug, in rounds that grow; past the last one the id makes it unique. */
const slugRounds = [20, 200, 2_000] as const

/** The place of a slug's claim. */
function slugPlace(type: TypeModel, locale: string): readonly string[] {
  return [
    type.definition.name,
    type.slug?.name ?? '',
    type.slug?.localized === true ? locale : everyLocale,
  ]
}

function numbered(base: string, from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, index) =>
    from + index === 0 ? base : `${base}-${from + index + 1}`,
  )
}

/**
 * A slug that nobody has at this moment, without claiming it; null if the first numbers are all
 * taken.
 */
export async function freeSlug(
  tx: Queryable,
  type: TypeModel,
  entry: { readonly id: string; readonly locale: string },
  base: string,
): Promise<string | null> {
  const candidates = numbered(base, 0, slugRounds[0])
  const taken = new Set(
    (await tx.run(takenValues, [...slugPlace(type, entry.locale), candidates, entry.id])).map(
      (row) => row.value,
    ),
  )
  return candidates.find((one) => !taken.has(one)) ?? null
}

/**
 * Claims the first free of `base`, `base-2`, `base-3`, … for the entry, and returns it. The entry's
 * row must exist.
 */
export async function claimSlug(
  tx: Queryable,
  type: TypeModel,
  entry: { readonly id: string; readonly locale: string },
  base: string,
): Promise<string> {
  const place = slugPlace(type, entry.locale)
  let tried = 0
  for (const last of slugRounds) {
    const candidates = numbered(base, tried, last)
    tried = last
    const taken = new Set(
      (await tx.run(takenValues, [...place, candidates, entry.id])).map((row) => row.value),
    )
    for (const candidate of candidates.filter((one) => !taken.has(one))) {
      const [claimed] = await tx.run(claimOne, [...place, candidate, entry.id])
      if (claimed !== undefined) return candidate
    }
  }
  return `${base}-${entry.id.slice(-12)}`
}

const lockEntryTargets = sql<{ id: string; type: string }>(
  `select id, type from stoa.entry where id = any($1::uuid[]) order by id for key share`,
)
const lockAssets = sql<{ id: string }>(
  `select id from stoa.asset where id = any($1::uuid[]) order by id for key share`,
)

/** What is there of what references point to: the type of each entry, and the assets. */
export type ExistingTargets = {
  readonly types: ReadonlyMap<string, string>
  readonly assets: ReadonlySet<string>
}

/** Looks up what these point to, and keeps it from being deleted until the transaction ends. */
export async function lockTargets(
  tx: Queryable,
  targets: readonly Target[],
): Promise<ExistingTargets> {
  const ids = (kind: Target['kind']): string[] =>
    [...new Set(targets.filter((target) => target.kind === kind).map((target) => target.id))].sort()
  const [entryIds, assetIds] = [ids('entry'), ids('asset')]
  const types = new Map<string, string>()
  if (entryIds.length > 0)
    for (const row of await tx.run(lockEntryTargets, [entryIds])) types.set(row.id, row.type)
  const assets = new Set(
    assetIds.length === 0 ? [] : (await tx.run(lockAssets, [assetIds])).map((row) => row.id),
  )
  return { types, assets }
}

/**
 * Checks that what new references point to exists, is of an allowed type and may be read by the one
 * who refers to it, and keeps it from being deleted until the transaction ends.
 */
export async function checkTargets(
  call: Call,
  tx: Queryable,
  model: Model,
  targets: readonly Target[],
): Promise<void> {
  const known = await lockTargets(tx, targets)
  const faults = targetFaults(targets, {
    ...known,
    types: await onlyReadable(call, tx, model, known.types),
  })
  if (faults.length > 0) throw new ValidationError(faults)
}

const heldOfMany = typeSql<Version & { id: string }>(
  (table) => `
  select v.entry_id as id, ${versionColumns} from ${table} v where v.entry_id = any($1::uuid[]) and (v.is_latest or v.is_published)`,
)

/**
 * Without the entries that the caller may not read, so that a reference cannot tell whether a
 * hidden one exists.
 */
async function onlyReadable(
  call: Call,
  tx: Queryable,
  model: Model,
  types: ReadonlyMap<string, string>,
): Promise<ReadonlyMap<string, string>> {
  const doubtful = [...types].filter(([, name]) => {
    const type = model.types.get(name)
    const drafts = type === undefined ? null : grantOf(call, 'readDraft', type)
    return drafts === null || drafts.filter !== null
  })
  if (doubtful.length === 0) return types
  const hidden = new Set<string>()
  for (const [name, group] of Map.groupBy(doubtful, ([, one]) => one)) {
    const type = model.types.get(name)
    const ids = group.map(([id]) => id)
    const rows = type === undefined ? [] : await tx.run(type.statements.of(heldOfMany), [ids])
    for (const id of ids) {
      const held = rows.filter((row) => row.id === id)
      if (type === undefined || !mayRead(call, type, { id, held })) hidden.add(id)
    }
  }
  return new Map([...types].filter(([id]) => !hidden.has(id)))
}

/** What is wrong with references to these, at most 100 faults. */
export function targetFaults(targets: readonly Target[], known: ExistingTargets): readonly Fault[] {
  const faults: Fault[] = []
  for (const target of targets) {
    const { id, kind, pointer } = target
    if (kind === 'asset') {
      if (!known.assets.has(id))
        faults.push({ path: pointer, code: 'target', message: 'There is no asset with this id.' })
      continue
    }
    const type = known.types.get(id)
    if (type === undefined)
      faults.push({
        path: pointer,
        code: 'target',
        message: 'There is no entry with this id, or it is not yours to read.',
      })
    else if (target.types !== null && !target.types.includes(type))
      faults.push({
        path: pointer,
        code: 'target',
        message: `It may refer to: ${target.types.join(', ')}; this is of type ${type}.`,
      })
  }
  return faults.slice(0, 100)
}
