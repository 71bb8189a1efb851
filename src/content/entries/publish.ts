import type { ContentAction } from '#content/authority.ts'
import type { Call, EntryView, Expected } from '#content/content.ts'
import { EntryArchivedError, VersionNotFoundError } from '#content/errors.ts'
import { checkComplete } from '#content/entries/compose.ts'
import type { Context } from '#content/context.ts'
import { atomically, stampNow } from '#content/context.ts'
import { EntryEdit } from '#content/versions/entry-edit.ts'
import type { EntryState, Version } from '#content/versions/entry-state.ts'
import { entryState, latestOf, localesOf, versionOf } from '#content/versions/entry-state.ts'
import { requireGrant, requireGrantAfterWrite, grantOf } from '#content/entries/permission.ts'
import { checkExpected } from '#content/entries/save.ts'
import { storedFields, viewOf } from '#content/entries/view.ts'
import type { Model, TypeModel } from '#content/model/model.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

type Target = {
  readonly type: string
  readonly id: string
  readonly locales: readonly string[] | null
  readonly expected: Expected
}
type Locked = {
  readonly tx: Queryable
  readonly model: Model
  readonly type: TypeModel
  readonly state: EntryState
  readonly locales: readonly string[]
  readonly edit: EntryEdit
}

/**
 * Runs `work` on an entry under its lock, after permission, locales and the optimistic lock are
 * checked. The lock's version is that of the first locale: the only one named, or the default one.
 */
async function underLock(
  context: Context,
  call: Call,
  action: ContentAction,
  target: Target,
  work: (locked: Locked) => Promise<EntryView[]>,
): Promise<EntryView[]> {
  return context.models.use(call.db, (model) =>
    atomically(call.db, async (tx) => {
      const type = model.type(target.type)
      const state = await entryState(tx, model, type, target.id, 'writing')
      const all = localesOf(state, model)
      const locales =
        target.locales === null
          ? all
          : [...new Set(target.locales.map((code) => model.locale(code)))]
      const latest = locales.map((code) => latestOf(state, code)).filter((row) => row !== null)
      const grant = requireGrant(
        call,
        action,
        type,
        state,
        latest.length === 0 ? undefined : latest,
      )
      const absent = locales.find((code) => latestOf(state, code) === null)
      if (absent !== undefined)
        throw new VersionNotFoundError(`The entry has no version in the locale "${absent}".`, {
          locale: absent,
        })
      checkExpected(call, type, state, {
        expected: target.expected,
        grant,
        row: latest[0] ?? null,
        yours: null,
      })
      const edit = new EntryEdit(type, state, { by: call.authority.actor, at: stampNow(context) })
      return work({ tx, model, type, state, locales, edit })
    }),
  )
}

export type PublishWhat = {
  readonly locales: readonly string[] | null
  readonly version: number | null
}

/**
 * Publishes a version of each locale. One that is published already stays as it is, and is returned
 * all the same.
 */
export async function publishEntry(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  what: PublishWhat,
  expected: Expected,
): Promise<EntryView[]> {
  const target = { type: typeName, id, locales: what.locales, expected }
  return underLock(context, call, 'publish', target, async (locked) => {
    const { tx, type, state, locales, edit } = locked
    if (state.archivedAt !== null) throw new EntryArchivedError()
    const grant = requireGrant(call, 'publish', type, state)
    const published: Version[] = []
    for (const locale of locales) {
      const row = await wanted(locked, locale, what.version)
      checkComplete(type, storedFields(type, row), locales.length > 1 ? locale : null)
      const result = edit.publish(row)
      requireGrantAfterWrite(grant, 'publish', type, id, result)
      published.push(result)
    }
    await edit.flush(tx)
    const shown = grantOf(call, 'readDraft', type) ?? grantOf(call, 'read', type) ?? grant
    return published.map((row) => viewOf(type, state, row, shown))
  })
}

async function wanted(
  { tx, type, edit }: Locked,
  locale: string,
  version: number | null,
): Promise<Version> {
  const held = edit.held.find(
    (row) => row.locale === locale && (version === null ? row.isLatest : row.number === version),
  )
  const row =
    held ??
    (version === null ? null : await versionOf(tx, type, { id: edit.id, locale, number: version }))
  if (row !== null) return row
  throw new VersionNotFoundError(
    `The entry has no version ${version ?? ''} in the locale "${locale}".`,
    { locale, version },
  )
}

/**
 * Takes the published versions of these locales back. Where nothing is published, nothing happens.
 */
export async function unpublishEntry(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  codes: readonly string[] | null,
  expected: Expected,
): Promise<EntryView[]> {
  return underLock(
    context,
    call,
    'publish',
    { type: typeName, id, locales: codes, expected },
    async ({ tx, type, state, locales, edit }) => {
      const grant = requireGrant(call, 'publish', type, state)
      for (const locale of locales) edit.unpublish(locale)
      await edit.flush(tx)
      return latestViews(call, type, edit, locales, grant)
    },
  )
}

const cancelWaiting = sql<object>(
  `update stoa.schedule set state = 'cancelled', finished_at = $2 where entry_id = $1 and state = 'waiting'`,
)

/**
 * Into the archive: unpublished in every locale, what is scheduled cancelled, out of editors'
 * lists. Or back out, as drafts.
 */
export async function archiveEntry(
  context: Context,
  call: Call,
  typeName: string,
  id: string,
  archived: boolean,
  expected: Expected,
): Promise<EntryView[]> {
  return underLock(
    context,
    call,
    'archive',
    { type: typeName, id, locales: null, expected },
    async ({ tx, type, state, locales, edit }) => {
      const grant = requireGrant(call, 'archive', type, state)
      if (archived) {
        for (const locale of locales) edit.unpublish(locale)
        await tx.run(cancelWaiting, [id, stampNow(context)])
      }
      edit.archive(archived)
      await edit.flush(tx)
      return latestViews(call, type, edit, locales, grant)
    },
  )
}

function latestViews(
  call: Call,
  type: TypeModel,
  edit: EntryEdit,
  locales: readonly string[],
  fallback: ReturnType<typeof requireGrant>,
): EntryView[] {
  const shown = grantOf(call, 'readDraft', type) ?? fallback
  return locales
    .map((locale) => edit.latest(locale))
    .filter((row) => row !== null)
    .map((row) => viewOf(type, edit, row, shown))
}
