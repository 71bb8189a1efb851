import { ValidationError } from '#content/errors.ts'
import type { TypeModel } from '#content/model/model.ts'
import type { Fault } from '#content/validation/fault.ts'
import type { Target } from '#content/validation/target.ts'
import { perspectivesOf, storedFields } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/**
 * The rows of `stoa.reference`: where the latest and the published versions of an entry point to.
 * They are made from the versions as a whole under the entry's lock, so that they are right
 * whatever was there before. What deleting a target does is not kept here: the type says it.
 */

const faultsMax = 100

export type Reference = {
  readonly locale: string
  readonly perspective: 'draft' | 'published'
  readonly path: string
  readonly target_kind: string
  readonly target_id: string
}
export type OwnedReference = Reference & { readonly entry_id: string }

/** The columns of `OwnedReference` as `json_to_recordset` needs them. */
export const referenceRecord = `(entry_id uuid, locale text, perspective text, path text,
  target_kind text, target_id uuid)`

/** The references of one version, in each perspective that shows it. */
export function referencesOf(type: TypeModel, row: Version): Reference[] {
  if (type.pointing.size === 0) return []
  const stored = storedFields(type, row)
  const pointing: Record<string, unknown> = {}
  for (const name of type.pointing) if (Object.hasOwn(stored, name)) pointing[name] = stored[name]
  return type.validator.targets(pointing).flatMap((target) =>
    perspectivesOf(row).map((perspective) => ({
      locale: row.locale,
      perspective,
      path: target.path,
      target_kind: target.kind,
      target_id: target.id,
    })),
  )
}

/**
 * A target to which the entry did not point by that field before is locked, and must exist: the
 * version may be an old one, and a target of old versions only can be deleted. Returns the missing.
 */
const syncStatement = sql<{ entry_id: string; locale: string; path: string }>(`
  with wanted as (
    select * from json_to_recordset($2::json) as r ${referenceRecord}
  ), fresh as (
    select w.entry_id, w.locale, w.path, w.target_kind, w.target_id from wanted w where not exists (
      select from stoa.reference r
      where r.entry_id = w.entry_id and r.path = w.path and r.target_id = w.target_id
        and r.target_kind = w.target_kind)
  ), entries as (
    select id from stoa.entry
    where id in (select target_id from fresh where target_kind = 'entry')
    order by id for key share
  ), assets as (
    select id from stoa.asset
    where id in (select target_id from fresh where target_kind = 'asset')
    order by id for key share
  ), removed as (
    delete from stoa.reference r where r.entry_id = any($1::uuid[]) and not exists (
      select from wanted w where w.entry_id = r.entry_id and w.locale = r.locale
        and w.perspective = r.perspective
        and w.path = r.path and w.target_id = r.target_id)
  ), added as (
    insert into stoa.reference (entry_id, locale, perspective, path, target_kind, target_id)
    select entry_id, locale, perspective, path, target_kind, target_id from wanted
    on conflict (entry_id, locale, perspective, path, target_id) do update
      set target_kind = excluded.target_kind
    where stoa.reference.target_kind <> excluded.target_kind
  )
  select distinct entry_id, locale, path from fresh
  where target_id not in (select id from entries union all select id from assets)
  order by entry_id, locale, path limit ${faultsMax}`)

/**
 * Makes these the references of the entries. Throws `ValidationError` where one leads to what is
 * gone.
 */
export async function syncReferences(
  tx: Queryable,
  ids: readonly string[],
  references: readonly OwnedReference[],
): Promise<void> {
  const missing = await tx.run(syncStatement, [ids, JSON.stringify(references)])
  if (missing.length > 0) throw new MissingTargetError(missing)
}

export type MissingTarget = {
  readonly entry_id: string
  readonly locale: string
  readonly path: string
}

/** Versions refer to what is gone. A batch over many entries needs to know which. */
export class MissingTargetError extends ValidationError {
  readonly missing: readonly MissingTarget[]

  constructor(missing: readonly MissingTarget[]) {
    super(missing.map(missingFault))
    this.missing = missing
  }
}

export function missingFault(at: { readonly locale: string; readonly path: string }): Fault {
  return {
    path: `/${at.path.replaceAll('.', '/')}`,
    code: 'target',
    message:
      `The version in "${at.locale}" refers to something that was deleted. ` +
      'Save it without that, and publish it then.',
  }
}

const lockEntries = sql<{ id: string; type: string }>(
  `select id, type from stoa.entry where id = any($1::uuid[]) order by id for key share`,
)
const lockAssets = sql<{ id: string }>(
  `select id from stoa.asset where id = any($1::uuid[]) order by id for key share`,
)

/** Which of the targets exist: the type of each entry, and the assets. */
export type ExistingTargets = {
  readonly types: ReadonlyMap<string, string>
  readonly assets: ReadonlySet<string>
}

/** Looks the targets up, and keeps them from being deleted until the transaction ends. */
export async function lockTargets(
  tx: Queryable,
  targets: readonly Target[],
): Promise<ExistingTargets> {
  const ids = (kind: Target['kind']): string[] =>
    [...new Set(targets.filter((target) => target.kind === kind).map((target) => target.id))].sort()
  const [entryIds, assetIds] = [ids('entry'), ids('asset')]
  const entries = entryIds.length === 0 ? [] : await tx.run(lockEntries, [entryIds])
  const assets = assetIds.length === 0 ? [] : await tx.run(lockAssets, [assetIds])
  return {
    types: new Map(entries.map((row) => [row.id, row.type])),
    assets: new Set(assets.map((row) => row.id)),
  }
}

/** The faults of references to these targets. */
export function targetFaults(
  targets: readonly Target[],
  existing: ExistingTargets,
): readonly Fault[] {
  return targets
    .flatMap((target) => {
      const message = problemOf(target, existing)
      return message === null ? [] : [{ path: target.pointer, code: 'target' as const, message }]
    })
    .slice(0, faultsMax)
}

function problemOf({ id, kind, types }: Target, existing: ExistingTargets): string | null {
  if (kind === 'asset') return existing.assets.has(id) ? null : 'There is no asset with this id.'
  const type = existing.types.get(id)
  if (type === undefined) return 'There is no entry with this id, or it is not yours to read.'
  return types === null || types.includes(type)
    ? null
    : `It may refer to: ${types.join(', ')}; this is of type ${type}.`
}
