import assert from 'node:assert/strict'
import { UniqueConflictError } from '#content/errors.ts'
import { touchLatest } from '#content/versions/entry-edit.ts'
import type { EntryEdit } from '#content/versions/entry-edit.ts'
import type { Version } from '#content/versions/entry-state.ts'
import { claimsOf, once, referencesOf } from '#content/versions/references.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

const byKey = sql<object>(`set local enable_seqscan = off`)

/**
 * Settings of one batch's transaction. Every statement of a batch finds its rows by key; on tables
 * that grow from nothing PostgreSQL does not know yet that they are large, plans to read them
 * whole, and keeps that plan: each batch would take longer than the one before.
 */
export async function beginBatch(tx: Queryable): Promise<void> {
  await tx.run(byKey)
}

/** The statements of entry-edit.ts and hold.ts, each for many entries of one type at once. */

const changeVersions = typeSql<object>(
  (table) => `
  update ${table} v set is_latest = c.is_latest, is_published = c.is_published, is_archived = c.is_archived,
    published_at = c.published_at, published_by = c.published_by, first_published_at = c.first_published_at
  from json_to_recordset($1::json) as c (id uuid, locale text, number int, is_latest boolean, is_published boolean, is_archived boolean,
    published_at timestamptz, published_by json, first_published_at timestamptz)
  where v.entry_id = c.id and v.locale = c.locale and v.number = c.number`,
)

/**
 * Columns as arrays: `data` arrives as the very text it is kept as. Versions that are not held go
 * into the history.
 */
const insertVersions = typeSql<{ model: string }>(
  (table) => `
  with r as (
    select id, locale, number, $1::text as type, data::json, filter::jsonb, type_revision, filter_revision, is_latest, is_published, is_archived,
      created_at, created_by_id, saved_at, saved_by::json, published_at, published_by::json, first_published_at
    from unnest($2::uuid[], $3::text[], $4::int[], $5::text[], $6::text[], $7::int[], $8::int[], $9::boolean[], $10::boolean[], $11::boolean[],
      $12::timestamptz[], $13::text[], $14::timestamptz[], $15::text[], $16::timestamptz[], $17::text[], $18::timestamptz[])
      as r (id, locale, number, data, filter, type_revision, filter_revision, is_latest, is_published, is_archived,
        created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at)
  ), inserted as (
    insert into ${table} (entry_id, locale, number, type, data, filter, type_revision, filter_revision, is_latest, is_published, is_archived,
      created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at)
    select * from r where is_latest or is_published
  ), kept as (
    insert into stoa.version_history (entry_id, locale, number, type, data, filter, type_revision, filter_revision,
      created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at)
    select id, locale, number, type, data, filter, type_revision, filter_revision,
      created_at, created_by_id, saved_at, saved_by, published_at, published_by, first_published_at
    from r where not (is_latest or is_published)
  )
  select revision as model from stoa.model`,
)

const countLocales = sql<object>(`
  update stoa.entry e set locale_count = c.locales from unnest($1::uuid[], $2::int[]) as c (id, locales) where e.id = c.id`)

const syncReferences = sql<object>(`
  with wanted as (
    select * from json_to_recordset($2::json) as r (entry_id uuid, locale text, perspective text, path text, target_kind text, target_id uuid, on_delete text)
  ), gone as (
    delete from stoa.reference r where r.entry_id = any($1::uuid[]) and not exists (
      select from wanted w where w.entry_id = r.entry_id and w.locale = r.locale and w.perspective = r.perspective and w.path = r.path and w.target_id = r.target_id)
  )
  insert into stoa.reference (entry_id, locale, perspective, path, target_kind, target_id, on_delete)
  select entry_id, locale, perspective, path, target_kind, target_id, on_delete from wanted
  on conflict (entry_id, locale, perspective, path, target_id) do update set on_delete = excluded.on_delete, target_kind = excluded.target_kind
  where stoa.reference.on_delete <> excluded.on_delete or stoa.reference.target_kind <> excluded.target_kind`)

const syncClaims = sql<{ model: string }>(`
  with wanted as (
    select * from json_to_recordset($3::json) as c (entry_id uuid, field text, locale text, value text)
  ), gone as (
    delete from stoa.unique_value u where u.entry_id = any($1::uuid[]) and not exists (
      select from wanted w where w.entry_id = u.entry_id and w.field = u.field and w.locale = u.locale and w.value = u.value)
  ), made as (
    insert into stoa.unique_value (type, field, locale, value, entry_id)
    select $2::text, field, locale, value, entry_id from wanted order by field, locale, value
    on conflict do nothing
  )
  select revision as model from stoa.model`)

const claimsOfOthers = sql<{ field: string; locale: string }>(`
  select w.field, w.locale from json_to_recordset($2::json) as w (entry_id uuid, field text, locale text, value text)
  where not exists (select from stoa.unique_value u
    where u.type = $1 and u.field = w.field and u.locale = w.locale and u.value = w.value and u.entry_id = w.entry_id)
  order by w.field, w.locale limit 1`)

/** What is written of one version, with the entry that it belongs to. */
export type OwnedRow = { readonly id: string; readonly row: Version }

/**
 * Writes what came of these edits. Throws `UniqueConflictError` where another entry has a value,
 * and `StaleModel`.
 */
export async function flushTogether(
  tx: Queryable,
  model: Model,
  type: TypeModel,
  edits: readonly EntryEdit[],
): Promise<void> {
  const changes = edits
    .map((edit) => ({ id: edit.id, held: edit.held, ...edit.changes() }))
    .filter((each) => each.changed)
  if (changes.length === 0) return
  assert.ok(
    changes.every((each) => each.revived.length === 0),
    'a batch publishes no old versions',
  )
  const owned = (key: 'lost' | 'added' | 'gained'): OwnedRow[] =>
    changes.flatMap((each) => each[key].map((row) => ({ id: each.id, row })))
  await changeRows(tx, type, owned('lost'))
  await insertRows(tx, model, type, owned('added'))
  await changeRows(tx, type, owned('gained'))
  const counted = changes.filter((each) => each.localeCount !== null)
  if (counted.length > 0)
    await tx.run(countLocales, [
      counted.map((each) => each.id),
      counted.map((each) => each.localeCount),
    ])
  const grown = counted.filter((each) => each.grew).map((each) => each.id)
  if (grown.length > 0) await tx.run(type.statements.of(touchLatest), [grown])
  await holdTogether(tx, model, type, changes)
}

async function changeRows(
  tx: Queryable,
  type: TypeModel,
  rows: readonly OwnedRow[],
): Promise<void> {
  if (rows.length === 0) return
  const values = rows.map(({ id, row }) => ({
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
  await tx.run(type.statements.of(changeVersions), [JSON.stringify(values)])
}

/**
 * Inserts versions exactly as they are given. Throws `StaleModel` where the types changed since the
 * model was read.
 */
export async function insertRows(
  tx: Queryable,
  model: Model,
  type: TypeModel,
  owned: readonly OwnedRow[],
): Promise<void> {
  if (owned.length === 0) return
  const column = (read: (row: Version) => unknown): unknown[] => owned.map(({ row }) => read(row))
  const [written] = await tx.run(type.statements.of(insertVersions), [
    type.definition.name,
    owned.map(({ id }) => id),
    column((row) => row.locale),
    column((row) => row.number),
    column((row) => row.data),
    column((row) => row.filter),
    column((row) => row.typeRevision),
    column((row) => row.filterRevision),
    column((row) => row.isLatest),
    column((row) => row.isPublished),
    column((row) => row.isArchived),
    column((row) => row.createdAt),
    column((row) => row.createdById),
    column((row) => row.savedAt),
    column((row) => row.savedBy),
    column((row) => row.publishedAt),
    column((row) => row.publishedBy),
    column((row) => row.firstPublishedAt),
  ])
  if (written?.model !== model.revision) throw new StaleModel()
}

/** Brings reference rows and claims of these entries in line with the versions they hold. */
export async function holdTogether(
  tx: Queryable,
  model: Model,
  type: TypeModel,
  entries: readonly { readonly id: string; readonly held: readonly Version[] }[],
): Promise<void> {
  const ids = entries.map((entry) => entry.id)
  if (type.pointing.size > 0) {
    const wanted = entries.flatMap(({ id, held }) =>
      once(held.flatMap((row) => referencesOf(type, row))).map((reference) => ({
        entry_id: id,
        ...reference,
      })),
    )
    await tx.run(syncReferences, [ids, JSON.stringify(wanted)])
  }
  if (type.unique.length === 0) return
  const claims = JSON.stringify(
    entries.flatMap(({ id, held }) =>
      once(held.flatMap((row) => claimsOf(type, row))).map((claim) => ({ entry_id: id, ...claim })),
    ),
  )
  const [synced] = await tx.run(syncClaims, [ids, type.definition.name, claims])
  if (synced?.model !== model.revision) throw new StaleModel()
  const [taken] = await tx.run(claimsOfOthers, [type.definition.name, claims])
  if (taken !== undefined) throw new UniqueConflictError(taken.field, taken.locale)
}
