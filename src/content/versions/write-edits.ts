import type { RevisedType, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { namedTypeSql, typeSql } from '#content/version-table.ts'
import { claimsOf, syncClaims } from '#content/versions/claims.ts'
import type { EntryEdit } from '#content/versions/entry-edit.ts'
import { referencesOf, syncReferences } from '#content/versions/references.ts'
import { perspectivesOf, searchOf, versionFields } from '#content/versions/version.ts'
import type { Version } from '#content/versions/version.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** The one place where versions are written, of one entry or of many of a type. */

const byKey = sql<object>(`set local enable_seqscan = off`)

/**
 * Settings of one batch's transaction. Every statement of a batch finds its rows by key; on tables
 * that grow from nothing PostgreSQL does not know yet that they are large, plans to read them
 * whole, and keeps that plan: each batch would take longer than the one before.
 */
export async function beginBatch(tx: Queryable): Promise<void> {
  await tx.run(byKey)
}

/** A version together with the id of its entry. */
export type OwnedVersion = { readonly id: string; readonly row: Version }

const names = versionFields.map(({ name }) => name).join(', ')
const keptNames = versionFields.flatMap(({ name, kept }) => (kept ? [name] : [])).join(', ')
const isJson = (type: string): boolean => type === 'json' || type === 'jsonb'

const castNames = versionFields
  .map(({ name, type }) => (isJson(type) ? `${name}::${type}` : name))
  .join(', ')
const arrays = versionFields
  .map(({ key, type }) => `:${key}::${isJson(type) ? 'text' : type}[]`)
  .join(', ')

/** JSON travels as the very text that is kept. Versions that are not held go into the history. */
const insertStatement = namedTypeSql<Record<string, unknown>, { model: string }>(
  (table) => `
  with r as (
    select entry_id, :type::text as type, ${castNames}, search
    from unnest(:ids::uuid[], ${arrays}, :search::text[]) as r (entry_id, ${names}, search)
  ), held as (
    insert into ${table} (entry_id, type, ${names}, search, search_number, search_revision)
    select entry_id, type, ${names}, stoa.search_vector(locale, search::json), number, :revision
    from r where is_latest or is_published
  ), kept as (
    insert into stoa.version_history (entry_id, type, ${keptNames})
    select entry_id, type, ${keptNames} from r where not (is_latest or is_published)
  )
  select revision as model from stoa.model`,
)

const changeStatement = typeSql<object>(
  (table) => `
  update ${table} v set is_latest = c.is_latest, is_published = c.is_published,
    is_archived = c.is_archived,
    published_at = c.published_at, published_by = c.published_by,
    first_published_at = c.first_published_at
  from json_to_recordset($1::json) as c (id uuid, locale text, number int, is_latest boolean,
    is_published boolean, is_archived boolean,
    published_at timestamptz, published_by json, first_published_at timestamptz)
  where v.entry_id = c.id and v.locale = c.locale and v.number = c.number`,
)

const takeFromHistory = sql<object>(`
  delete from stoa.version_history h
  using unnest($1::uuid[], $2::text[], $3::int[]) as r (id, locale, number)
  where h.entry_id = r.id and h.locale = r.locale and h.number = r.number`)

const countLocales = sql<object>(`
  update stoa.entry e set locale_count = c.locales
    from unnest($1::uuid[], $2::int[]) as c (id, locales) where e.id = c.id`)

/** An optimistic save that saw fewer locales finds that its row was changed since. */
const touchLatest = typeSql<object>(
  (table) =>
    `update ${table} set is_latest = is_latest where entry_id = any($1::uuid[]) and is_latest`,
)

const setArchived = sql<object>(`
  update stoa.entry e set archived_at = a.at
  from unnest($1::uuid[], $2::timestamptz[]) as a (id, at) where e.id = a.id`)

/**
 * Writes these edits, all of one type and made with the same model, and brings references and
 * claims in line. Throws `UniqueConflictError` where another entry has a value, `ValidationError`
 * where a version points to what is gone, and `StaleModel` where the model has changed since.
 */
export async function writeEdits(
  tx: Queryable,
  type: TypeModel,
  edits: readonly EntryEdit[],
): Promise<void> {
  const changes = edits
    .map((edit) => ({ edit, id: edit.id, ...edit.changes() }))
    .filter((each) => each.changed || each.archivedChanged)
  const [first] = changes
  if (first === undefined) return
  const { revision } = first.edit
  const owned = (key: 'lost' | 'added' | 'revived' | 'gained'): OwnedVersion[] =>
    changes.flatMap((each) => each[key].map((row) => ({ id: each.id, row })))
  await changeVersions(tx, type, owned('lost'))
  const revived = owned('revived')
  if (revived.length > 0)
    await tx.run(takeFromHistory, [
      revived.map(({ id }) => id),
      revived.map(({ row }) => row.locale),
      revived.map(({ row }) => row.number),
    ])
  await insertVersions(tx, { revision, type }, [...revived, ...owned('added')])
  await changeVersions(tx, type, owned('gained'))
  await writeEntries(tx, type, changes)
  const held = changes
    .filter((each) => each.changed)
    .map(({ id, edit }) => ({ id, held: edit.held }))
  await syncReferencesAndClaims(tx, { revision, type }, held)
}

type Change = { readonly edit: EntryEdit; readonly id: string } & ReturnType<EntryEdit['changes']>

async function writeEntries(
  tx: Queryable,
  type: TypeModel,
  changes: readonly Change[],
): Promise<void> {
  const ids = (some: readonly Change[]): string[] => some.map((each) => each.id)
  const counted = changes.filter((each) => each.localeCount !== null)
  if (counted.length > 0)
    await tx.run(countLocales, [ids(counted), counted.map((each) => each.localeCount)])
  const grown = ids(counted.filter((each) => each.grew))
  if (grown.length > 0) await tx.run(type.statements.of(touchLatest), [grown])
  const archived = changes.filter((each) => each.archivedChanged)
  if (archived.length > 0)
    await tx.run(setArchived, [ids(archived), archived.map((each) => each.edit.archivedAt)])
}

async function changeVersions(
  tx: Queryable,
  type: TypeModel,
  owned: readonly OwnedVersion[],
): Promise<void> {
  if (owned.length === 0) return
  const values = owned.map(({ id, row }) => ({
    id,
    locale: row.locale,
    number: row.number,
    is_latest: row.isLatest,
    is_published: row.isPublished,
    is_archived: row.isArchived,
    published_at: row.publishedAt,
    published_by: row.publishedBy === null ? null : (JSON.parse(row.publishedBy) as unknown),
    first_published_at: row.firstPublishedAt,
  }))
  await tx.run(type.statements.of(changeStatement), [JSON.stringify(values)])
}

/** Inserts versions exactly as they are given. Throws `StaleModel`. */
export async function insertVersions(
  tx: Queryable,
  { revision, type }: RevisedType,
  owned: readonly OwnedVersion[],
): Promise<void> {
  if (owned.length === 0) return
  const columns = versionFields.map(({ key }) => [key, owned.map(({ row }) => row[key])] as const)
  const [written] = await tx.run(
    type.statements.of(insertStatement),
    insertStatement.values({
      type: type.definition.name,
      ids: owned.map(({ id }) => id),
      search: owned.map(({ row }) => searchOf(type, row)),
      revision: type.revision,
      ...Object.fromEntries(columns),
    }),
  )
  if (written?.model !== revision) throw new StaleModel()
}

/** Brings references and claims of these entries in line with the versions that they hold. */
export async function syncReferencesAndClaims(
  tx: Queryable,
  model: RevisedType,
  entries: readonly { readonly id: string; readonly held: readonly Version[] }[],
): Promise<void> {
  const { type } = model
  const ids = entries.map((entry) => entry.id)
  if (ids.length === 0) return
  const rows = entries.flatMap(({ id, held }) => held.map((row) => ({ id, row })))
  if (type.pointing.size > 0) {
    const references = rows.flatMap(({ id, row }) =>
      referencesOf(type, row).map((one) => ({ entry_id: id, ...one })),
    )
    await syncReferences(tx, ids, distinct(references))
  }
  if (type.unique.length === 0) return
  const claims = rows.flatMap(({ id, row }) =>
    perspectivesOf(row).flatMap((perspective) =>
      claimsOf(type, row).map((one) => ({ entry_id: id, perspective, ...one })),
    ),
  )
  await syncClaims(tx, model, ids, distinct(claims))
}

/** Each record once. */
export function distinct<Row extends object>(rows: readonly Row[]): Row[] {
  return [...new Map(rows.map((row) => [JSON.stringify(row), row])).values()]
}
