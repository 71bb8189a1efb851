import type { Grant } from '#content/authority.ts'
import type { Call, EntryRef, EntryView, Expected, VersionSummary } from '#content/content.ts'
import { EntryArchivedError, EntryNotFoundError, ValidationError } from '#content/errors.ts'
import { compose } from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { EntryEdit } from '#content/versions/entry-edit.ts'
import { writeEdits } from '#content/versions/write-edits.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import type { VersionHead, Version } from '#content/versions/version.ts'
import { entryState, localesOf, versionOf } from '#content/versions/entry-state.ts'
import {
  headColumns,
  latestOf,
  publicationOf,
  publishedOf,
  versionColumns,
} from '#content/versions/version.ts'
import { noVersion, requireLocales, requireVersion } from '#content/entries/locale-rights.ts'
import {
  forbidden,
  grantCovers,
  grantOf,
  mayRead,
  requireGrantAfterWrite,
  typeFor,
  seesChanges,
} from '#content/entries/permission.ts'
import { checkExpected } from '#content/entries/check-expected.ts'
import { addVersion } from '#content/entries/save.ts'
import { callInOneSnapshot } from '#content/entries/snapshot.ts'
import { statusOf, viewOf } from '#content/entries/view.ts'
import { storedFields } from '#content/versions/version.ts'
import { knownFields, refusingWithout, viewFor } from '#content/entries/visibility.ts'
import type { TypeModel } from '#content/model/model.ts'
import { QueryLimitError } from '#content/query/errors.ts'
import { anyVersionOf, typeSql } from '#content/version-table.ts'
import type { Queryable } from '#database/database.ts'
import type { Actor } from '#lib/actor.ts'
import { isId } from '#lib/id.ts'

/** Versions on one page at most: 200, and one that shows whether there is a next page. */
export const versionsPageMax = 201
/** Versions read at a time, and in all, to find those of a page that the grant's filter covers. */
const versionsPerLook = 20
const versionsLookedAtMax = 1_000

type VersionTarget = EntryRef & { readonly locale: string | null; readonly version: number }

/**
 * Makes a new latest version with the content of an old one; what locales share is carried as in
 * any save. Restoring shows the old version, so the caller must be able to read it as a draft, and
 * of its fields only those come back that the caller may both read there and write.
 */
export async function restoreVersion(
  context: Context,
  call: Call,
  from: VersionTarget & { readonly expected: Expected },
): Promise<EntryView> {
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const type = typeFor(call, model, from.type)
      const locale = model.locale(from.locale)
      const state = await entryState(tx, { model, type, id: from.id }, 'writing')
      const { grant } = requireLocales(call, 'update', { type, state, model }, [locale])
      const latest = latestOf(state, locale)
      checkExpected(call, type, state, {
        expected: from.expected,
        rows: latest === null ? [] : [latest],
        yours: null,
      })
      if (state.archivedAt !== null) throw new EntryArchivedError()
      const old = await versionOf(tx, type, { id: state.id, locale, number: from.version })
      const drafts = grantOf(call, 'readDraft', type)
      if (latest === null || old === null || drafts === null) throw noVersion(locale, from.version)
      if (!grantCovers(drafts, type, state.id, old)) throw noVersion(locale, from.version)
      requireVersion(call, 'update', grant, { type, id: state.id, row: old })
      const reached = fieldsInBoth(grant, drafts)
      const fields = Object.fromEntries(
        Object.entries(storedFields(type, old)).filter(
          ([name]) => reached.fields?.includes(name) !== false,
        ),
      )
      const edit = new EntryEdit(type, state, { by: call.authority.actor, at: stampNow(context) })
      const known = (): ReturnType<typeof knownFields> =>
        knownFields(call, type, state.id, { rows: [old, latest] })
      return refusingWithout(known, async () => {
        const composed = compose(
          type,
          reached,
          { fields, merge: false, publishing: false },
          storedFields(type, latest),
        )
        const row = await addVersion(call, tx, model, { type, edit, locale, composed })
        requireGrantAfterWrite(grant, 'update', type, { id: state.id, row })
        await writeEdits(tx, type, [edit])
        return viewFor(call, type, state.id, row)
      })
    }),
  )
}

/** A grant of the fields that both grant. */
function fieldsInBoth(grant: Grant, other: Grant): Grant {
  if (grant.fields === null || other.fields === null)
    return { filter: null, fields: grant.fields ?? other.fields }
  return {
    filter: null,
    fields: grant.fields.filter((name) => other.fields?.includes(name) === true),
  }
}

/**
 * The `readDraft` grant for the history of one locale. The caller must see a draft of the entry,
 * and then sees those versions that the grant covers as they were. Null: the draft in this locale
 * is hidden, which looks as if there were none.
 */
function requireHistory(
  call: Call,
  type: TypeModel,
  state: EntryState,
  locale: string,
): Grant | null {
  const grant = grantOf(call, 'readDraft', type)
  const drafts = state.held.filter((row) => row.isLatest)
  if (grant === null || !drafts.some((row) => grantCovers(grant, type, state.id, row))) {
    if (!mayRead(call, type, state)) throw new EntryNotFoundError()
    throw forbidden('readDraft', type)
  }
  const latest = latestOf(state, locale)
  return latest === null || grantCovers(grant, type, state.id, latest) ? grant : null
}

const versionsBelow = (table: string): string => `from ${anyVersionOf(table)} v
  where v.entry_id = $1 and v.locale = $2 and v.number < $3 order by v.number desc limit $4`
const listVersions = typeSql<VersionHead>(
  (table) => `select ${headColumns} ${versionsBelow(table)}`,
)
/** With the content, by which a grant's filter is evaluated. */
const listWhole = typeSql<Version>((table) => `select ${versionColumns} ${versionsBelow(table)}`)

/**
 * Versions of one locale that the caller may read, the newest first; `before` is the number of the
 * last one on the page before. Looks at a bounded number of versions, so a page can end early.
 */
export async function versionsOf(
  context: Context,
  call: Call,
  { type: typeName, id }: EntryRef,
  page: { readonly locale: string | null; readonly limit: number; readonly before: number | null },
): Promise<VersionSummary[]> {
  return context.models.use(call.db, (model) =>
    callInOneSnapshot(call, async (call) => {
      const type = typeFor(call, model, typeName)
      const state = await entryState(call.db, { model, type, id }, 'reading')
      const locale = model.locale(page.locale)
      const grant = requireHistory(call, type, state, locale)
      if (grant === null) return []
      if (!Number.isInteger(page.limit) || page.limit < 1 || page.limit > versionsPageMax) {
        throw new ValidationError([
          {
            path: '/limit',
            code: 'tooLarge',
            message: `Ask for 1 to ${versionsPageMax} versions.`,
          },
        ])
      }
      const before = page.before ?? 2_147_483_647
      if (grant.filter === null)
        return (
          await call.db.run(type.statements.of(listVersions), [id, locale, before, page.limit])
        ).map(summaryOf)
      const found: VersionSummary[] = []
      for await (const row of versionsFrom(call.db, type, { id, locale, before })) {
        if (grantCovers(grant, type, id, row)) found.push(summaryOf(row))
        if (found.length >= page.limit) break
      }
      return found
    }),
  )
}

async function* versionsFrom(
  db: Queryable,
  type: TypeModel,
  start: { readonly id: string; readonly locale: string; readonly before: number },
): AsyncGenerator<Version> {
  let { before } = start
  for (let looked = 0; looked < versionsLookedAtMax; looked += versionsPerLook) {
    const rows = await db.run(type.statements.of(listWhole), [
      start.id,
      start.locale,
      before,
      versionsPerLook,
    ])
    yield* rows
    if (rows.length < versionsPerLook) return
    before = rows.at(-1)!.number
  }
}

function summaryOf(row: VersionHead): VersionSummary {
  return {
    locale: row.locale,
    version: row.number,
    savedAt: row.savedAt,
    savedBy: JSON.parse(row.savedBy) as Actor,
    publishedAt: publicationOf(row)?.at ?? null,
    publishedBy: publicationOf(row)?.by ?? null,
    isLatest: row.isLatest,
    isPublished: row.isPublished,
  }
}

/**
 * One version with its content. Its status is what it is now: `draft` for one that neither is the
 * latest nor published.
 */
export async function oneVersion(
  context: Context,
  call: Call,
  { type: typeName, id, ...which }: VersionTarget,
): Promise<EntryView> {
  return context.models.use(call.db, (model) =>
    callInOneSnapshot(call, async (call) => {
      const type = typeFor(call, model, typeName)
      const state = await entryState(call.db, { model, type, id }, 'reading')
      const locale = model.locale(which.locale)
      const grant = requireHistory(call, type, state, locale)
      const row =
        Number.isInteger(which.version) && which.version > 0 && which.version < 2_147_483_648
          ? await versionOf(call.db, type, { id, locale, number: which.version })
          : null
      if (grant === null || row === null || !grantCovers(grant, type, id, row))
        throw noVersion(locale, which.version)
      return ownDate(viewOf(type, state, row, grant), row)
    }),
  )
}

/** History shows when the version itself was published, not since when its locale is. */
function ownDate(view: EntryView, row: Version): EntryView {
  return { ...view, publishedAt: publicationOf(row)?.at ?? null }
}

/** Bytes of all versions that an entry holds, up to which they are read together. */
const heldBytesMax = 8 * 1024 * 1024

type HeldHead = VersionHead & { readonly id: string; readonly bytes: number }
const heldHeads = typeSql<HeldHead>(
  (table) =>
    `select v.entry_id as id, ${headColumns}, octet_length(v.data::text) as bytes from ${table} v
      where v.entry_id = $1 and (v.is_latest or v.is_published)`,
)

/**
 * Throws `QueryLimitError` where an entry that the caller may read is too large to be read whole.
 */
async function refuseTooLarge(call: Call, type: TypeModel, id: string): Promise<void> {
  if (!isId(id)) return
  const held = await call.db.run(type.statements.of(heldHeads), [id])
  if (held.reduce((sum, row) => sum + row.bytes, 0) <= heldBytesMax) return
  if (!mayRead(call, type, { id, held })) throw new EntryNotFoundError()
  throw new QueryLimitError(
    `All locales of this entry are more than ${heldBytesMax} bytes together. ` +
      'Read them one by one, with `locale`.',
    { limit: heldBytesMax },
  )
}

/**
 * Every locale of an entry, the default one first: published versions for those who may read them,
 * or latest ones. Throws `QueryLimitError`.
 */
export async function localesOfEntry(
  context: Context,
  call: Call,
  { type: typeName, id }: EntryRef,
  perspective: 'published' | 'draft',
): Promise<EntryView[]> {
  return context.models.use(call.db, async (model) => {
    const type = typeFor(call, model, typeName)
    await refuseTooLarge(call, type, id)
    const state = await entryState(call.db, { model, type, id }, 'reading')
    const drafts = grantOf(call, 'readDraft', type)
    const grant = perspective === 'published' ? grantOf(call, 'read', type) : drafts
    const rows = localesOf(state, model)
      .map((locale) =>
        perspective === 'published' ? publishedOf(state, locale) : latestOf(state, locale),
      )
      .filter((row) => row !== null)
    const status = (row: Version): EntryView['status'] =>
      perspective === 'published' && !seesChanges(call, type) ? 'published' : statusOf(row)
    const seen =
      grant === null
        ? []
        : rows.filter((row) => grantCovers(grant, type, id, { ...row, status: status(row) }))
    if (grant === null || seen.length === 0) {
      if (grant === null && mayRead(call, type, state))
        throw forbidden(perspective === 'published' ? 'read' : 'readDraft', type)
      throw new EntryNotFoundError()
    }
    return seen.map((row) => ({ ...viewOf(type, state, row, grant), status: status(row) }))
  })
}
