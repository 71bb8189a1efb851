import type { ContentAction, Grant } from '#content/authority.ts'
import type { Call, EntryView, Expected } from '#content/content.ts'
import { EntryArchivedError } from '#content/errors.ts'
import { checkComplete } from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { EntryEdit } from '#content/versions/entry-edit.ts'
import { writeEdits } from '#content/versions/write-edits.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import type { Version } from '#content/versions/version.ts'
import { entryState, localesOf, versionOf } from '#content/versions/entry-state.ts'
import { latestOf } from '#content/versions/version.ts'
import { noVersion, requireLocales, requireVersion } from '#content/entries/locale-rights.ts'
import { requireGrant, requireGrantAfterWrite, typeFor } from '#content/entries/permission.ts'
import { checkExpected } from '#content/entries/check-expected.ts'
import { storedFields } from '#content/versions/version.ts'
import { knownFields, refusingWithout, viewFor } from '#content/entries/visibility.ts'
import type { TypeModel } from '#content/model/model.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** Null as `locales`: every locale that the entry has for the caller. */
export type EntryTarget = {
  readonly type: string
  readonly id: string
  readonly locales: readonly string[] | null
  readonly expected: Expected
}

type Locked = {
  readonly tx: Queryable
  readonly type: TypeModel
  readonly state: EntryState
  readonly locales: readonly string[]
  readonly edit: EntryEdit
  readonly grant: Grant
}

/**
 * Runs `work` on an entry under its lock, after permission, locales and the optimistic lock are
 * checked. The version that the lock is compared with is that of the first locale: the only one
 * named, or the default one.
 */
async function underLock(
  context: Context,
  call: Call,
  { action, ...target }: EntryTarget & { readonly action: ContentAction },
  work: (locked: Locked) => Promise<EntryView[]>,
): Promise<EntryView[]> {
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const type = typeFor(call, model, target.type)
      const state = await entryState(tx, { model, type, id: target.id }, 'writing')
      const { grant, locales } =
        action === 'archive'
          ? { grant: requireGrant(call, action, type, state), locales: localesOf(state, model) }
          : requireLocales(call, action, { type, state, model }, target.locales)
      checkExpected(call, type, state, {
        expected: target.expected,
        rows: locales.flatMap((locale) => latestOf(state, locale) ?? []),
        yours: null,
      })
      const edit = new EntryEdit(type, state, { by: call.authority.actor, at: stampNow(context) })
      return work({ tx, type, state, locales, edit, grant })
    }),
  )
}

/**
 * Publishes a version of each locale. One that is published already stays as it is, and is returned
 * all the same.
 */
export async function publishEntry(
  context: Context,
  call: Call,
  { version, ...target }: EntryTarget & { readonly version: number | null },
): Promise<EntryView[]> {
  return underLock(context, call, { ...target, action: 'publish' }, async (locked) => {
    const { tx, type, state, locales, edit, grant } = locked
    if (state.archivedAt !== null) throw new EntryArchivedError()
    const rows: Version[] = []
    for (const locale of locales)
      rows.push(await versionToPublish(call, locked, { locale, version }))
    await refusingWithout(
      () => knownFields(call, type, state.id, { rows }),
      async () => {
        for (const row of rows)
          checkComplete(type, storedFields(type, row), rows.length > 1 ? row.locale : null)
      },
    )
    const published = rows.map((row) => edit.publish(row))
    for (const row of published)
      requireGrantAfterWrite(grant, 'publish', type, { id: state.id, row })
    await refusingWithout(
      () => knownFields(call, type, state.id, { rows: published }),
      () => writeEdits(tx, type, [edit]),
    )
    return published.map((row) => viewFor(call, type, state.id, row))
  })
}

/**
 * The version that is to be published. A named one must be covered by the grant as it is; one that
 * the caller may not read either is the same as one that does not exist.
 */
async function versionToPublish(
  call: Call,
  { tx, type, state, edit, grant }: Omit<Locked, 'locales'>,
  { locale, version }: { readonly locale: string; readonly version: number | null },
): Promise<Version> {
  const held = edit.held.find(
    (row) => row.locale === locale && (version === null ? row.isLatest : row.number === version),
  )
  const row =
    held ??
    (version === null ? null : await versionOf(tx, type, { id: edit.id, locale, number: version }))
  if (row === null) throw noVersion(locale, version)
  requireVersion(call, 'publish', grant, { type, id: state.id, row })
  return row
}

/** Unpublishes these locales. Where nothing is published, nothing happens. */
export async function unpublishEntry(
  context: Context,
  call: Call,
  target: EntryTarget,
): Promise<EntryView[]> {
  return underLock(context, call, { ...target, action: 'publish' }, async (locked) => {
    const { tx, type, state, locales, edit, grant } = locked
    for (const locale of locales) {
      const published = edit.published(locale)
      if (published !== null)
        requireVersion(call, 'publish', grant, { type, id: state.id, row: published })
      edit.unpublish(locale)
    }
    await writeEdits(tx, type, [edit])
    return latestViews(call, locked)
  })
}

const cancelWaiting = sql<object>(
  `update stoa.schedule set state = 'cancelled', finished_at = $2
    where entry_id = $1 and state = 'waiting'`,
)

/**
 * Puts an entry into the archive: it is unpublished in every locale, its waiting actions are
 * cancelled, and editors' lists leave it out. Or takes it out again, as drafts.
 */
export async function archiveEntry(
  context: Context,
  call: Call,
  { archived, ...target }: Omit<EntryTarget, 'locales'> & { readonly archived: boolean },
): Promise<EntryView[]> {
  const archive = { ...target, locales: null, action: 'archive' } as const
  return underLock(context, call, archive, async (locked) => {
    const { tx, type, state, locales, edit } = locked
    if (archived) {
      for (const locale of locales) edit.unpublish(locale)
      await tx.run(cancelWaiting, [state.id, stampNow(context)])
    }
    edit.archive(archived)
    await writeEdits(tx, type, [edit])
    return latestViews(call, locked)
  })
}

function latestViews(call: Call, { type, state, edit, locales }: Locked): EntryView[] {
  return locales
    .map((locale) => edit.latest(locale))
    .filter((row) => row !== null)
    .map((row) => viewFor(call, type, state.id, row))
}
