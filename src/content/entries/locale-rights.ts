import type { ContentAction, Grant } from '#content/authority.ts'
import type { Call } from '#content/content.ts'
import { EntryNotFoundError, ForbiddenError, VersionNotFoundError } from '#content/errors.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import type { Version } from '#content/versions/version.ts'
import { latestOf } from '#content/versions/version.ts'
import { localesOf } from '#content/versions/entry-state.ts'
import {
  forbidden,
  grantCovers,
  grantOf,
  mayRead,
  requireGrant,
} from '#content/entries/permission.ts'
import type { Model, TypeModel } from '#content/model/model.ts'

/** Rights in single locales of an entry: a grant's filter can be on the locale. */

type Held = { readonly type: TypeModel; readonly state: EntryState; readonly model: Model }

/**
 * The grant for an action in some locales (null: all that the entry has for the caller), and these
 * locales. One that the caller may neither read nor change is the same as one that is not there.
 */
export function requireLocales(
  call: Call,
  action: ContentAction,
  { type, state, model }: Held,
  codes: readonly string[] | null,
): { readonly grant: Grant; readonly locales: readonly string[] } {
  const grant = grantOf(call, action, type)
  const covered = (locale: string): boolean => {
    const row = latestOf(state, locale)
    return row !== null && grantCovers(grant, type, state.id, row)
  }
  const exists = (locale: string): boolean => {
    const held = state.held.filter((row) => row.locale === locale)
    return covered(locale) || mayRead(call, type, { id: state.id, held })
  }
  const named = codes === null ? null : [...new Set(codes.map((code) => model.locale(code)))]
  const locales = named ?? localesOf(state, model).filter(exists)
  if (!locales.some(covered) && !mayRead(call, type, state)) throw new EntryNotFoundError()
  for (const locale of locales) if (!exists(locale)) throw noVersion(locale, null)
  if (grant === null || locales.length === 0 || !locales.every(covered))
    throw forbidden(action, type)
  return { grant, locales }
}

/**
 * The grant for saving in one locale. Where the entry has no version there yet, its latest versions
 * are taken as though they were in that locale, so that a translator can begin a translation of
 * what they may read.
 */
export function requireGrantInLocale(
  call: Call,
  action: ContentAction,
  { type, state }: Pick<Held, 'type' | 'state'>,
  locale: string,
): Grant {
  const latest = latestOf(state, locale)
  if (latest !== null) return requireGrant(call, action, type, { ...state, rows: [latest] })
  if (!mayRead(call, type, state)) throw new EntryNotFoundError()
  const rows = state.held.filter((row) => row.isLatest).map((row) => ({ ...row, locale }))
  return requireGrant(call, action, type, { ...state, rows })
}

/** A version of an entry. */
export type VersionAt = {
  readonly type: TypeModel
  readonly id: string
  readonly row: Version
}

/**
 * Throws unless the grant covers the version as it is. One that the caller may not read either is
 * the same as one that does not exist.
 */
export function requireVersion(
  call: Call,
  action: ContentAction,
  grant: Grant,
  { type, id, row }: VersionAt,
): void {
  if (grantCovers(grant, type, id, row)) return
  if (grantCovers(grantOf(call, 'readDraft', type), type, id, row)) throw forbidden(action, type)
  throw noVersion(row.locale, row.number)
}

/** A change of fields that all locales share, in one of them. */
export type SharedChange = {
  readonly grant: Grant | null
  readonly type: TypeModel
  readonly id: string
  /** The version with the new values. */
  readonly row: Version
  /** The versions of other locales that get the new values, before and after. */
  readonly carried: readonly Version[]
}

/**
 * Throws unless the grant covers what other locales become by a change of a shared field. It has to
 * cover the change in every locale of the site: so a grant that is limited to some locales reaches
 * no shared field, and its refusal does not show in which other locales the entry is.
 */
export function requireSharedFields(
  { grant, type, id, row, carried }: SharedChange,
  model: Model,
): void {
  if (grant?.filter === null) return
  const anywhere = model.locales.map(({ code }) => ({ ...row, locale: code }))
  if ([...anywhere, ...carried].every((one) => grantCovers(grant, type, id, one))) return
  throw new ForbiddenError(
    'All locales of the entry share a field that you change, and you may not change them all.',
    { type: type.definition.name },
  )
}

export function noVersion(locale: string, version: number | null): VersionNotFoundError {
  return version === null
    ? new VersionNotFoundError(`The entry has no version in the locale "${locale}".`, { locale })
    : new VersionNotFoundError(`The entry has no version ${version} in the locale "${locale}".`, {
        locale,
        version,
      })
}
