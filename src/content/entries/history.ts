import type { Call, EntryView, Expected, VersionSummary } from '#content/content.ts'
import {
  EntryArchivedError,
  EntryNotFoundError,
  ValidationError,
  VersionNotFoundError,
} from '#content/errors.ts'
import { compose } from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { EntryEdit } from '#content/versions/entry-edit.ts'
import type { EntryState, Version } from '#content/versions/entry-state.ts'
import {
  entryState,
  latestOf,
  localesOf,
  publishedOf,
  versionOf,
} from '#content/versions/entry-state.ts'
import {
  requireGrant,
  requireGrantAfterWrite,
  forbidden,
  grantOf,
  mayRead,
  grantCovers,
  statusOf,
} from '#content/entries/permission.ts'
import { addVersion, checkExpected } from '#content/entries/save.ts'
import { storedFields, viewOf } from '#content/entries/view.ts'
import type { TypeModel } from '#content/model/model.ts'
import { anyVersionOf, typeSql } from '#content/version-table.ts'
import type { Actor } from '#lib/actor.ts'

/** Versions on one page at most: 200, and one that tells whether there is a next page. */
export const versionsPageMax = 201

/**
 * Makes a new latest version with the content of an old one; what locales share is carried as in
 * any save.
 */
export async function restoreVersion(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  from: { readonly locale: string | null; readonly version: number },
  expected: Expected,
): Promise<EntryView> {
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const type = model.type(typeName)
      const locale = model.locale(from.locale)
      const state = await entryState(tx, model, type, id, 'writing')
      const latest = latestOf(state, locale)
      const grant = requireGrant(
        call,
        'update',
        type,
        state,
        latest === null ? undefined : [latest],
      )
      checkExpected(call, type, state, { expected, grant, row: latest, yours: null })
      if (state.archivedAt !== null) throw new EntryArchivedError()
      const old =
        latest === null ? null : await versionOf(tx, type, { id, locale, number: from.version })
      if (latest === null || old === null) throw noVersion(locale, from.version)
      // Only what fits the type as it is now comes back, and only where the caller may write.
      const fields = Object.fromEntries(
        Object.entries(
          type.validator.project(JSON.parse(old.data) as Record<string, unknown>),
        ).filter(([name]) => grant.fields?.includes(name) !== false),
      )
      const composed = compose(
        type,
        grant,
        { fields, merge: false, publishing: false },
        storedFields(type, latest),
      )
      const edit = new EntryEdit(type, state, { by: call.authority.actor, at: stampNow(context) })
      const row = await addVersion(call, tx, model, { type, edit, locale, composed })
      requireGrantAfterWrite(grant, 'update', type, id, row)
      await edit.flush(tx)
      return viewOf(type, state, row, grantOf(call, 'readDraft', type) ?? grant)
    }),
  )
}

function noVersion(locale: string, version: number): VersionNotFoundError {
  return new VersionNotFoundError(
    `The entry has no version ${version} in the locale "${locale}".`,
    { locale, version },
  )
}

/**
 * Who asks for history must be one who sees the draft in that locale; where the entry has none, of
 * the entry.
 */
function requireHistory(
  call: Call,
  type: TypeModel,
  state: EntryState,
  locale: string,
): ReturnType<typeof requireGrant> {
  const grant = grantOf(call, 'readDraft', type)
  const latest = latestOf(state, locale)
  const rows = latest === null ? state.held.filter((row) => row.isLatest) : [latest]
  const reached =
    grant !== null && rows.some((row) => grantCovers(grant, type, state.id, row, statusOf(row)))
  if (reached) return grant
  if (!mayRead(call, type, state)) throw new EntryNotFoundError()
  throw forbidden('readDraft', type)
}

type SummaryRow = {
  readonly locale: string
  readonly number: number
  readonly saved_at: string
  readonly saved_by: string
  readonly published_at: string | null
  readonly is_latest: boolean
  readonly is_published: boolean
}

const listVersions = typeSql<SummaryRow>(
  (table) => `
  select locale, number, saved_at, saved_by, case when published_by is not null then published_at end as published_at, is_latest, is_published
  from ${anyVersionOf(table)} v where entry_id = $1 and locale = $2 and number < $3 order by number desc limit $4`,
)

/**
 * Versions of one locale, the newest first; `before` is the number of the last one on the page
 * before.
 */
export async function versionsOf(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  page: { readonly locale: string | null; readonly limit: number; readonly before: number | null },
): Promise<VersionSummary[]> {
  return context.models.use(call.db, async (model) => {
    const type = model.type(typeName)
    const state = await entryState(call.db, model, type, id, 'reading')
    const locale = model.locale(page.locale)
    requireHistory(call, type, state, locale)
    if (!Number.isInteger(page.limit) || page.limit < 1 || page.limit > versionsPageMax) {
      throw new ValidationError([
        { path: '/limit', code: 'tooLarge', message: `Ask for 1 to ${versionsPageMax} versions.` },
      ])
    }
    const rows = await call.db.run(type.statements.of(listVersions), [
      id,
      locale,
      page.before ?? 2_147_483_647,
      page.limit,
    ])
    return rows.map((row) => ({
      locale: row.locale,
      version: row.number,
      savedAt: row.saved_at,
      savedBy: JSON.parse(row.saved_by) as Actor,
      publishedAt: row.published_at,
      isLatest: row.is_latest,
      isPublished: row.is_published,
    }))
  })
}

/**
 * One version with its content. Its status is what it is now: `draft` for one that neither is the
 * latest nor published.
 */
export async function oneVersion(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  which: { readonly locale: string | null; readonly version: number },
): Promise<EntryView> {
  return context.models.use(call.db, async (model) => {
    const type = model.type(typeName)
    const state = await entryState(call.db, model, type, id, 'reading')
    const locale = model.locale(which.locale)
    const grant = requireHistory(call, type, state, locale)
    const row =
      Number.isInteger(which.version) && which.version > 0 && which.version < 2_147_483_648
        ? await versionOf(call.db, type, { id, locale, number: which.version })
        : null
    if (row === null) throw noVersion(locale, which.version)
    return viewOf(type, state, settledRow(row), grant)
  })
}

function settledRow(row: Version): Version {
  return row.isLatest || row.isPublished || row.publishedBy !== null
    ? row
    : { ...row, publishedAt: null }
}

/**
 * Every locale of an entry, the default one first: published versions for those who may read them,
 * or latest ones.
 */
export async function localesOfEntry(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  perspective: 'published' | 'draft',
): Promise<EntryView[]> {
  return context.models.use(call.db, async (model) => {
    const type = model.type(typeName)
    const state = await entryState(call.db, model, type, id, 'reading')
    const drafts = grantOf(call, 'readDraft', type)
    const grant = perspective === 'published' ? grantOf(call, 'read', type) : drafts
    const rows = localesOf(state, model)
      .map((locale) =>
        perspective === 'published' ? publishedOf(state, locale) : latestOf(state, locale),
      )
      .filter((row) => row !== null)
    const seen =
      grant === null
        ? []
        : rows.filter((row) =>
            grantCovers(
              grant,
              type,
              id,
              row,
              perspective === 'published' && drafts === null ? 'published' : statusOf(row),
            ),
          )
    if (grant === null || seen.length === 0) {
      if (grant === null && mayRead(call, type, state))
        throw forbidden(perspective === 'published' ? 'read' : 'readDraft', type)
      throw new EntryNotFoundError()
    }
    return seen.map((row) => ({
      ...viewOf(type, state, row, grant),
      ...(perspective === 'published' && drafts === null ? { status: 'published' as const } : {}),
    }))
  })
}
