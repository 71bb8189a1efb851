import { storedFields } from '#content/versions/version.ts'
import type { Grant } from '#content/authority.ts'
import type { EntryView } from '#content/content.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import type { VersionHead, Version } from '#content/versions/version.ts'
import type { TypeModel } from '#content/model/model.ts'
import type { EntryRow } from '#content/query/sql.ts'

/** Names to show; null: all. */
export type Shown = readonly string[] | null

/** Returns the fields that are shown where both a grant and the reader limit them. */
export function shownFields(grant: Grant, asked: Shown): Shown {
  if (grant.fields === null) return asked
  return asked === null ? grant.fields : asked.filter((name) => grant.fields?.includes(name))
}

/**
 * The JSON text of an entry's fields. Data that is valid for the type, for a reader who may see all
 * of it, stays the very text that was stored; data from before the type lost a field is brought to
 * what the type has now.
 */
export function fieldsJson(
  type: TypeModel,
  data: string,
  typeRevision: number,
  shown: Shown,
): string {
  const old = typeRevision < type.shapeRevision
  if (!old && shown === null) return data
  const fields = storedFields(type, { data, typeRevision })
  if (shown === null) return JSON.stringify(fields)
  const kept: Record<string, unknown> = {}
  for (const name of Object.keys(fields)) if (shown.includes(name)) kept[name] = fields[name]
  return JSON.stringify(kept)
}

/**
 * As `EntryView.status` for readers of drafts. Only for rows that are the latest or published.
 */
export function statusOf(
  row: Pick<VersionHead, 'isArchived' | 'isPublished' | 'isLatest' | 'publishedAt'>,
): 'draft' | 'published' | 'changed' | 'archived' {
  if (row.isArchived) return 'archived'
  if (row.isPublished) return row.isLatest ? 'published' : 'changed'
  return row.publishedAt === null ? 'draft' : 'changed'
}

/** A row of a query as a reader sees it who may see these fields. */
export function viewOfRow(type: TypeModel, row: EntryRow, shown: Shown): EntryView {
  return {
    id: row.id,
    type: type.definition.name,
    locale: row.locale,
    version: row.version,
    status: row.status,
    createdAt: row.createdAt,
    updatedAt: row.updatedAt,
    publishedAt: row.publishedAt,
    firstPublishedAt: row.firstPublishedAt,
    fieldsJson: fieldsJson(type, row.data, row.typeRevision, shown),
  }
}

/** A version in memory as a caller with this grant sees it. */
export function viewOf(
  type: TypeModel,
  state: Pick<EntryState, 'id'>,
  row: Version,
  grant: Grant,
): EntryView {
  return {
    id: state.id,
    type: type.definition.name,
    locale: row.locale,
    version: row.number,
    status: statusOf(row),
    createdAt: row.createdAt,
    updatedAt: row.savedAt,
    publishedAt: row.publishedAt,
    firstPublishedAt: row.firstPublishedAt,
    fieldsJson: fieldsJson(type, row.data, row.typeRevision, grant.fields),
  }
}
