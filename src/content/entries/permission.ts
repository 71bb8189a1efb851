import { contentActions } from '#content/authority.ts'
import type { ContentAction, Grant } from '#content/authority.ts'
import type { Call } from '#content/content.ts'
import { EntryNotFoundError, ForbiddenError, TypeNotFoundError } from '#content/errors.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import type { FilterData } from '#content/query/normal-form.ts'
import type { QueryRow } from '#content/query/predicate.ts'
import { upgradedFilter } from '#content/versions/upgraded-filter.ts'
import { statusOf } from '#content/entries/view.ts'
import { compilePredicate } from '#content/query/predicate.ts'
import { grantFilter } from '#content/query/validate-query.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import type { VersionHead, Version } from '#content/versions/version.ts'

/**
 * Checks grants against entries in memory. A grant is checked before a write and after it, so that
 * a caller neither takes over an entry of others nor gives one away that they could not take back.
 */

/**
 * The type of this name for a caller who has some grant on it. A type without any is the same as
 * one that does not exist.
 */
export function typeFor(call: Call, model: Model, name: string): TypeModel {
  const type = model.types.get(name)
  if (type === undefined || contentActions.every((one) => grantOf(call, one, type) === null))
    throw new TypeNotFoundError(name)
  return type
}

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

/**
 * Returns whether the grant covers this version; the filter is evaluated as the database would. A
 * version from before a change of the type's filterable fields is seen as the type is now if its
 * content is at hand, and is else covered by no filter.
 */
export function grantCovers(
  grant: Grant | null,
  type: TypeModel,
  id: string,
  row: (VersionHead | Version) & { readonly status?: QueryRow['status'] },
): boolean {
  if (grant === null) return false
  if (grant.filter === null) return true
  const outdated = row.filterRevision < type.filterRevision
  const current =
    outdated && 'data' in row
      ? {
          ...row,
          filter: JSON.stringify(upgradedFilter(type, row)),
          filterRevision: type.filterRevision,
        }
      : row
  return compilePredicate(
    grant.filter,
    type.schema,
  )(queryRow(current, id, row.status ?? statusOf(row)))
}

/**
 * Returns whether published versions show the caller that a newer draft exists (`changed`): only a
 * caller who sees all drafts, since a filter would have to be evaluated on the draft.
 */
export function seesChanges(call: Call, type: TypeModel): boolean {
  return grantOf(call, 'readDraft', type)?.filter === null
}

/** Returns whether the caller may read the entry at all: some draft, or something published. */
export function mayRead(
  call: Call,
  type: TypeModel,
  state: { readonly id: string; readonly held: readonly (VersionHead | Version)[] },
): boolean {
  const drafts = grantOf(call, 'readDraft', type)
  const published = grantOf(call, 'read', type)
  return state.held.some(
    (row) =>
      (row.isLatest && grantCovers(drafts, type, state.id, row)) ||
      (row.isPublished && grantCovers(published, type, state.id, { ...row, status: 'published' })),
  )
}

/**
 * The grant for doing something to versions of an entry (default: the latest of every locale).
 * `EntryNotFoundError` where the caller may not read the entry, `ForbiddenError` where they may.
 */
export function requireGrant(
  call: Call,
  action: ContentAction,
  type: TypeModel,
  state: Pick<EntryState, 'id' | 'held'> & { readonly rows?: readonly Version[] },
): Grant {
  const rows = state.rows ?? state.held.filter((row) => row.isLatest)
  const grant = grantOf(call, action, type)
  if (grant !== null && rows.every((row) => grantCovers(grant, type, state.id, row))) return grant
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
  { id, row }: { readonly id: string; readonly row: Version },
): void {
  if (!grantCovers(grant, type, id, row)) throw forbidden(action, type)
}

/** Refuses fields that the grant does not name. */
export function requireFields(grant: Grant, type: TypeModel, names: readonly string[]): void {
  if (grant.fields === null) return
  const refused = names.filter((name) => grant.fields?.includes(name) === false)
  if (refused.length === 0) return
  throw new ForbiddenError(
    `You may not write these fields of "${type.definition.name}": ` +
      `${refused.join(', ').slice(0, 200)}.`,
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
    `You may not ${verbs[action]} this entry of "${type.definition.name}". Ask a user whose ` +
      `role may.`,
    { action, type: type.definition.name },
  )
}
