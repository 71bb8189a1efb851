import { UniqueConflictError } from '#content/errors.ts'
import type { RevisedType, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { currentFilter } from '#content/versions/upgraded-filter.ts'
import type { Version } from '#content/versions/version.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/**
 * The values of unique fields, which an entry claims: in `stoa.unique_draft_value` those of its
 * latest versions, and in `stoa.unique_value` those of its published ones. So no two drafts have
 * one value, and no two published versions; but a draft may have what another entry still has
 * published.
 */

/** The locale of claims of a field that all locales share. */
const everyLocale = '*'

export type Perspective = 'draft' | 'published'
export type Claim = { readonly field: string; readonly locale: string; readonly value: string }

/** The claims of one version. Its own filter may be from before the field became unique. */
export function claimsOf(type: TypeModel, row: Version): Claim[] {
  if (type.unique.length === 0) return []
  const filter = currentFilter(type, row)
  return type.unique.flatMap(({ name, localized }) => {
    const value = filter[name]
    if (value === undefined || value === null) return []
    const locale = localized === true ? row.locale : everyLocale
    return [{ field: name, locale, value: String(value) }]
  })
}

const tables = { draft: 'stoa.unique_draft_value', published: 'stoa.unique_value' } as const
const eachTable = (textFor: (table: string, perspective: Perspective) => string): string[] =>
  (['draft', 'published'] as const).map((one) => textFor(tables[one], one))

const records = `json_to_recordset($3::json)
    as w (entry_id uuid, perspective text, field text, locale text, value text)`

/**
 * Deleting is a statement before the one that inserts, so that entries of one batch can take over
 * or exchange values.
 */
const deleteOthers = sql<object>(`
  with ${eachTable(
    (table, perspective) => `
  ${perspective} as (
    delete from ${table} u where u.entry_id = any($1::uuid[]) and u.type = $2::text and not exists (
      select from ${records} where w.perspective = '${perspective}'
        and w.entry_id = u.entry_id and w.field = u.field and w.locale = u.locale
        and w.value = u.value)
  )`,
  ).join(',')}
  select`)

/** Also returns the revision of the model: a newer one may have claims that this one misses. */
const insertWanted = sql<{ model: string }>(`
  with ${eachTable(
    (table, perspective) => `
  ${perspective} as (
    insert into ${table} (type, field, locale, value, entry_id)
    select $2::text, field, locale, value, entry_id from ${records}
    where entry_id = any($1::uuid[]) and perspective = '${perspective}'
    order by field, locale, value
    on conflict do nothing
  )`,
  ).join(',')}
  select revision as model from stoa.model`)

const claimsOfOthers = sql<OwnedClaim>(`
  select w.* from ${records} where w.entry_id = any($1::uuid[])${eachTable(
    (table, perspective) => `
    and (w.perspective <> '${perspective}' or not exists (select from ${table} u
      where u.type = $2::text and u.field = w.field and u.locale = w.locale and u.value = w.value
        and u.entry_id = w.entry_id))`,
  ).join('')}
  order by w.perspective, w.field, w.locale, w.entry_id limit 1`)

export type OwnedClaim = Claim & { readonly entry_id: string; readonly perspective: Perspective }

/**
 * Makes these the claims of the entries. Throws `UniqueConflictError` where another entry has a
 * value, and `StaleModel` where the model has another revision by now.
 */
export async function syncClaims(
  tx: Queryable,
  model: RevisedType,
  ids: readonly string[],
  claims: readonly OwnedClaim[],
): Promise<void> {
  const values = [ids, model.type.definition.name, JSON.stringify(claims)]
  await tx.run(deleteOthers, values)
  const [synced] = await tx.run(insertWanted, values)
  if (synced?.model !== model.revision) throw new StaleModel()
  if (claims.length === 0) return
  const [taken] = await tx.run(claimsOfOthers, values)
  if (taken !== undefined) throw new UniqueConflictError(taken, taken.entry_id)
}

const takenValues = sql<{ value: string }>(
  eachTable(
    (table) =>
      `select value from ${table} where type = $1 and field = $2 and locale = $3
        and value = any($4::text[]) and entry_id <> $5`,
  ).join(' union all '),
)

const claimOne = sql<{ value: string }>(`
  insert into ${tables.draft} as u (type, field, locale, value, entry_id)
    values ($1, $2, $3, $4, $5)
  on conflict (type, field, locale, value) do update set entry_id = u.entry_id where u.entry_id = $5
  returning value`)

/** Numbers tried behind a slug, in rounds that grow; past the last one the id makes it unique. */
const slugRounds = [20, 200, 2_000] as const

type SlugPlace = { readonly id: string; readonly locale: string }

function placeOf(type: TypeModel, locale: string): readonly string[] {
  const { slug } = type
  return [type.definition.name, slug?.name ?? '', slug?.localized === true ? locale : everyLocale]
}

function numbered(base: string, from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, index) =>
    from + index === 0 ? base : `${base}-${from + index + 1}`,
  )
}

async function untaken(
  tx: Queryable,
  place: readonly string[],
  candidates: readonly string[],
  id: string,
): Promise<string[]> {
  const rows = await tx.run(takenValues, [...place, candidates, id])
  const taken = new Set(rows.map((row) => row.value))
  return candidates.filter((one) => !taken.has(one))
}

/** A slug that is free at this moment, without claiming it; null if the first numbers are taken. */
export async function freeSlug(
  tx: Queryable,
  type: TypeModel,
  { id, locale }: SlugPlace,
  base: string,
): Promise<string | null> {
  const free = await untaken(tx, placeOf(type, locale), numbered(base, 0, slugRounds[0]), id)
  return free[0] ?? null
}

/**
 * Claims the first free of `base`, `base-2`, `base-3`, … for the entry, and returns it. The entry's
 * row must exist.
 */
export async function claimSlug(
  tx: Queryable,
  type: TypeModel,
  { id, locale }: SlugPlace,
  base: string,
): Promise<string> {
  const place = placeOf(type, locale)
  let tried = 0
  for (const last of slugRounds) {
    for (const candidate of await untaken(tx, place, numbered(base, tried, last), id)) {
      const [claimed] = await tx.run(claimOne, [...place, candidate, id])
      if (claimed !== undefined) return candidate
    }
    tried = last
  }
  return `${base}-${id.slice(-12)}`
}
