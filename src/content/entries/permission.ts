import type { ContentAction, Grant } from '#content/authority.ts'
import type { Call } from '#content/content.ts'
import { EntryNotFoundError, ForbiddenError } from '#content/errors.ts'
import type { TypeModel } from '#content/model/model.ts'
import type { FilterData } from '#content/query/normal-form.ts'
import type { QueryRow } from '#content/query/predicate.ts'
import { compilePredicate } from '#content/query/predicate.ts'
import { grantFilter } from '#content/query/validate-query.ts'
import type { EntryState, VersionHead, Version } from '#content/versions/entry-state.ts'

/**
 * What the one who asks may do, over entries as they are in memory. A grant is checked against the
 * entry before a write and after it, so that nobody takes over what is not theirs, nor gives away
 * what they could not take back.
 */

/**
 * The grant for an action; null where there is none. A filter that does not fit the type (any more)
 * comes out as one that matches nothing.
 */
export function grantOf(call: Call, action: ContentAction, type: TypeModel): Grant | null {
  const grant = call.authority.grant(action, type.definition.name)
  if (grant === null || grant.filter === null) return grant
  const filter = grantFilter({ type: type.definition, grant }, type.filterRevision)
  return { filter, fields: grant.fields }
}

function queryRow(row: VersionHead, id: string, status: QueryRow['status']): QueryRow {
  return {
    id,
    locale: row.locale,
    version: row.number,
    status,
    createdAt: row.createdAt,
    updatedAt: row.savedAt,
    publishedAt: row.publishedAt,
    firstPublishedAt: row.firstPublishedAt,
    createdBy: row.createdById,
    filter: JSON.parse(row.filter) as FilterData,
    filterRevision: row.filterRevision,
  }
}

/** Whether the grant reaches this version; the filter is evaluated as the database would. */
export function grantCovers(
  grant: Grant | null,
  type: TypeModel,
  id: string,
  row: VersionHead,
  status: QueryRow['status'],
): boolean {
  if (grant === null) return false
  return (
    grant.filter === null || compilePredicate(grant.filter, type.schema)(queryRow(row, id, status))
  )
}

/** Whether the one who asks may read the entry at all: some draft of it, or something published. */
export function mayRead(
  call: Call,
  type: TypeModel,
  state: Pick<EntryState, 'id' | 'held'>,
): boolean {
  const drafts = grantOf(call, 'readDraft', type)
  const published = grantOf(call, 'read', type)
  return state.held.some(
    (row) =>
      (row.isLatest && grantCovers(drafts, type, state.id, row, statusOf(row))) ||
      (row.isPublished && grantCovers(published, type, state.id, row, 'published')),
  )
}

/**
 * As `EntryView.status` for one who sees drafts. Only for rows that are the latest or published.
 */
export function statusOf(row: VersionHead): 'draft' | 'published' | 'changed' | 'archived' {
  if (row.isArchived) return 'archived'
  if (row.isPublished) return row.isLatest ? 'published' : 'changed'
  return row.publishedAt === null ? 'draft' : 'changed'
}

/**
 * The grant for doing something to an entry. `EntryNotFoundError` for those who may not read it,
 * `ForbiddenError` for the rest.
 */
export function requireGrant(
  call: Call,
  action: ContentAction,
  type: TypeModel,
  state: Pick<EntryState, 'id' | 'held'>,
  rows: readonly Version[] = state.held.filter((row) => row.isLatest),
): Grant {
  const grant = grantOf(call, action, type)
  if (grant !== null && rows.every((row) => grantCovers(grant, type, state.id, row, statusOf(row))))
    return grant
  if (!mayRead(call, type, state)) throw new EntryNotFoundError()
  throw forbidden(action, type)
}

/** The grant for an action without an entry at hand. */
export function requireGrantOnType(call: Call, action: ContentAction, type: TypeModel): Grant {
  const grant = grantOf(call, action, type)
  if (grant === null) throw forbidden(action, type)
  return grant
}

/** After a write: what came out must still be within the grant. */
export function requireGrantAfterWrite(
  grant: Grant,
  action: ContentAction,
  type: TypeModel,
  id: string,
  row: Version,
): void {
  if (!grantCovers(grant, type, id, row, statusOf(row))) throw forbidden(action, type)
}

/** Refuses fields that the grant does not name. */
export function requireFields(grant: Grant, type: TypeModel, names: readonly string[]): void {
  if (grant.fields === null) return
  const refused = names.filter((name) => grant.fields?.includes(name) === false)
  if (refused.length === 0) return
  throw new ForbiddenError(
    `You may not write these fields of "${type.definition.name}": ${refused.join(', ').slice(0, 200)}.`,
    { type: type.definition.name, fields: refused.slice(0, 20) },
  )
}

const verbs: Readonly<Record<ContentAction, string>> = {
  read: 'read',
  readDraft: 'read drafts of',
  create: 'create',
  update: 'change',
  publish: 'publish',
  archive: 'archive',
  delete: 'delete',
}

export function forbidden(action: ContentAction, type: TypeModel): ForbiddenError {
  return new ForbiddenError(
    `You may not ${verbs[action]} this entry of "${type.definition.name}". Ask somebody whose role may.`,
    { action, type: type.definition.name },
  )
}
