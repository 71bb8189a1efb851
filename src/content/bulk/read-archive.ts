import type {
  ArchivedAction,
  ArchivedEntry,
  ArchivedRelease,
  ArchivedVersion,
} from '#content/bulk/archive.ts'
import type { Call } from '#content/content.ts'
import type { Version } from '#content/versions/version.ts'
import { versionColumns } from '#content/versions/version.ts'
import { storedFields } from '#content/versions/version.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { StaleModel } from '#content/model/model.ts'
import { anyVersionOf, typeSql } from '#content/version-table.ts'
import { sql } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'

type EntryRow = {
  readonly id: string
  readonly createdAt: string
  readonly createdBy: string
  readonly archivedAt: string | null
}

const readEntries = sql<EntryRow>(`
  select id, created_at as "createdAt", created_by as "createdBy", archived_at as "archivedAt"
  from stoa.entry where type = $1 and ($2::uuid is null or id > $2) order by id limit $3`)

const readChosen = sql<EntryRow>(`
  select id, created_at as "createdAt", created_by as "createdBy", archived_at as "archivedAt"
    from stoa.entry where id = any($1::uuid[]) order by id`)

const readVersions = typeSql<Version & { model: string; id: string | null }>(
  (table) => `
  select m.revision as model, v.entry_id as id, ${versionColumns}
  from stoa.model m left join ${anyVersionOf(table)} v on v.entry_id = any($1::uuid[]) and (
    $2::boolean or v.is_latest or v.is_published
    or exists (select from stoa.release_item i
      where i.entry_id = v.entry_id and i.locale = v.locale
        and (i.number = v.number or i.number_before = v.number))
    or exists (select from stoa.schedule s
      where s.entry_id = v.entry_id and s.locale = v.locale
        and s.number = v.number and s.state = 'waiting'))
  order by v.entry_id, v.locale collate "C", v.number`,
)

const readSchedule = sql<
  Omit<ArchivedAction, 'createdBy'> & { entryId: string; createdBy: string }
>(`
  select id, entry_id as "entryId", locale, action, number as version, due_at as "dueAt",
    created_at as "createdAt", created_by as "createdBy"
  from stoa.schedule where entry_id = any($1::uuid[]) and state = 'waiting' order by id`)

const readReleases = sql<
  Omit<ArchivedRelease, 'items' | 'createdBy' | 'publishedBy'> & {
    createdBy: string
    publishedBy: string | null
    items: string | null
  }
>(`
  select r.id, r.name, r.state, r.created_at as "createdAt", r.created_by as "createdBy",
    r.published_at as "publishedAt", r.published_by as "publishedBy",
    (select json_agg(json_build_object(
        'entryId', i.entry_id, 'locale', i.locale, 'action', i.action, 'version', i.number,
        'versionBefore', i.number_before,
        'publishedBefore',
        to_char(i.published_before at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
      order by i.entry_id, i.locale collate "C")
     from stoa.release_item i where i.release_id = r.id) as items
  from stoa.release r where $1::uuid is null or r.id > $1 order by r.id limit $2`)

export async function readArchive(
  call: Call,
  model: Model,
  type: TypeModel,
  page: { readonly after: string | null; readonly limit: number; readonly history: boolean },
): Promise<ArchivedEntry[]> {
  const entries = await call.db.run(readEntries, [type.definition.name, page.after, page.limit])
  return withVersions(call, { model, type, history: page.history }, entries)
}

/** Returns these entries as an export would have them. */
export async function readChosenArchive(
  call: Call,
  model: Model,
  type: TypeModel,
  ids: readonly string[],
): Promise<ArchivedEntry[]> {
  const entries = await call.db.run(readChosen, [ids])
  return withVersions(call, { model, type, history: false }, entries)
}

type Reading = { readonly model: Model; readonly type: TypeModel; readonly history: boolean }

async function withVersions(
  call: Call,
  { model, type, history }: Reading,
  entries: readonly EntryRow[],
): Promise<ArchivedEntry[]> {
  const ids = entries.map((entry) => entry.id)
  if (ids.length === 0) return []
  const rows = await call.db.run(type.statements.of(readVersions), [ids, history])
  if (rows[0]?.model !== model.revision) throw new StaleModel()
  const versions = Map.groupBy(
    rows.filter((row) => row.id !== null),
    (row) => row.id,
  )
  const schedule = Map.groupBy(await call.db.run(readSchedule, [ids]), (row) => row.entryId)
  return entries.map(({ id, createdAt, createdBy, archivedAt }) => {
    const locales = Map.groupBy(versions.get(id) ?? [], (row) => row.locale)
    return {
      id,
      type: type.definition.name,
      createdAt,
      createdBy: JSON.parse(createdBy) as Actor,
      archivedAt,
      locales: Object.fromEntries(
        [...locales].map(([locale, own]) => [locale, own.map((row) => archivedVersion(type, row))]),
      ),
      schedule: (schedule.get(id) ?? []).map(({ entryId: _entryId, ...action }) => ({
        ...action,
        createdBy: JSON.parse(action.createdBy) as Actor,
      })),
    }
  })
}

function archivedVersion(type: TypeModel, row: Version): ArchivedVersion {
  return {
    number: row.number,
    latest: row.isLatest,
    published: row.isPublished,
    createdAt: row.createdAt,
    savedAt: row.savedAt,
    savedBy: JSON.parse(row.savedBy) as Actor,
    publishedAt: row.publishedAt,
    publishedBy: row.publishedBy === null ? null : (JSON.parse(row.publishedBy) as Actor),
    firstPublishedAt: row.firstPublishedAt,
    fields: storedFields(type, row),
  }
}

export async function readReleaseArchive(
  call: Call,
  page: { readonly after: string | null; readonly limit: number },
): Promise<ArchivedRelease[]> {
  const rows = await call.db.run(readReleases, [page.after, page.limit])
  return rows.map((row) => ({
    ...row,
    createdBy: JSON.parse(row.createdBy) as Actor,
    publishedBy: row.publishedBy === null ? null : (JSON.parse(row.publishedBy) as Actor),
    items: row.items === null ? [] : (JSON.parse(row.items) as ArchivedRelease['items']),
  }))
}
