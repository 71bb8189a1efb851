import type { EntryView, Expected } from '#content/content.ts'
import type { Fault } from '#content/validation/fault.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** The caller may read what it is about, but not do this. */
export class ForbiddenError extends StoaError {
  readonly code = 'E_FORBIDDEN'
}

/** There is no such entry, or none that the caller may read: both have the same text. */
export class EntryNotFoundError extends StoaError {
  readonly code = 'E_ENTRY_NOT_FOUND'

  constructor(
    message = 'There is no such entry, or it is not yours to read. Check its id, type and locale.',
  ) {
    super(message)
  }
}

/** An entry was to be created with an id that is taken. */
export class EntryExistsError extends StoaError {
  readonly code = 'E_ENTRY_EXISTS'
}

/** An archived entry can neither be saved nor published. */
export class EntryArchivedError extends StoaError {
  readonly code = 'E_ENTRY_ARCHIVED'

  constructor() {
    super('The entry is archived. Take it out of the archive first.')
  }
}

/** The entry has no such version in this locale. */
export class VersionNotFoundError extends StoaError {
  readonly code = 'E_VERSION_NOT_FOUND'
}

/** The values do not fit the type: every fault at once, each with a JSON pointer. */
export class ValidationError extends StoaError {
  readonly code = 'E_VALIDATION'
  readonly faults: readonly Fault[]

  constructor(faults: readonly Fault[]) {
    const subject = faults.length === 1 ? 'One value does' : `${faults.length} values do`
    super(`${subject} not fit the type. ${placed(faults[0])}`.trim(), { faults })
    this.faults = faults
  }
}

function placed(fault: Fault | undefined): string {
  if (fault === undefined) return ''
  return fault.path === '' ? fault.message : `${fault.path}: ${fault.message}`
}

/**
 * Another caller saved since the version that this caller has seen, which is `expected`; `current`
 * is the latest now.
 */
export class VersionConflictError extends StoaError {
  readonly code = 'E_VERSION_CONFLICT'
  readonly expected: Expected
  readonly current: EntryView
  readonly yours: Readonly<Record<string, unknown>> | null

  constructor(
    expected: Expected,
    current: EntryView,
    yours: Readonly<Record<string, unknown>> | null,
  ) {
    const { locale, version } = current
    const numbers = versionsIn(expected)
    super(conflictMessage(expected, numbers, current), {
      expected: numbers.length > 1 ? numbers : numbers[0],
      current: version,
      locale,
    })
    this.expected = expected
    this.current = current
    this.yours = yours
  }
}

function versionsIn(expected: Expected): readonly number[] {
  if (typeof expected === 'number') return [expected]
  return typeof expected === 'object' && expected !== null
    ? expected.seen.map(({ number }) => number)
    : []
}

function conflictMessage(
  expected: Expected,
  numbers: readonly number[],
  { locale, version }: EntryView,
): string {
  if (expected === 'absent')
    return `The entry has the locale ${locale} already, at version ${version}.`
  if (numbers.length === 0)
    return (
      `If-Match names no version of an entry. Send the ETag of a read or of a write; the entry ` +
      `is at version ${version} in ${locale} now.`
    )
  return (
    `The entry is at version ${version} in ${locale} now, which If-Match does not name. ` +
    `Merge your change with it, and name the version of each locale that you change.`
  )
}

/** A value of a unique field, as the latest or the published version of an entry would have it. */
export type UniqueValue = {
  readonly field: string
  readonly locale: string
  readonly perspective: 'draft' | 'published'
}

/** Another entry holds this value of a unique field. */
export class UniqueConflictError extends StoaError {
  readonly code = 'E_UNIQUE_CONFLICT'

  /** The entry that wanted the value; null: one that is only being made. */
  readonly entryId: string | null

  constructor({ field, locale, perspective }: UniqueValue, entryId: string | null = null) {
    super(
      perspective === 'draft'
        ? `Another entry has this value of the unique field "${field}". Choose another one.`
        : `Another entry is published with this value of the unique field "${field}". ` +
            'Choose another one, or publish both in one release.',
      { field, locale, perspective },
    )
    this.entryId = entryId
  }
}

export type Referrer = {
  readonly id: string
  readonly type: string
  readonly locale: string
  readonly path: string
}

/**
 * Other entries refer to it by a field that restricts deleting, or would lack a required value.
 * Names up to 20 of those that the caller may see; there can be others.
 */
export class EntryReferencedError extends StoaError {
  readonly code = 'E_ENTRY_REFERENCED'

  constructor(referrers: readonly Referrer[]) {
    super(
      referrers.length === 0
        ? 'Entries that you may not see refer to it. Ask a user whose role sees them.'
        : 'Other entries refer to it. Change them first, or delete them.',
      { referrers },
    )
  }
}

/**
 * Deleting would reach more entries by cascade, or by taking references out, than one request may
 * change.
 */
export class DeleteTooWideError extends StoaError {
  readonly code = 'E_DELETE_TOO_WIDE'
}

/** Others kept changing the same entry, or the types, while this was tried several times. */
export class ContentBusyError extends StoaError {
  readonly code = 'E_CONTENT_BUSY'

  constructor() {
    super('Others keep changing the same content. Try again.')
  }
}

/** A file or address names a type that does not exist, or that the caller may not read. */
export class TypeNotFoundError extends StoaError {
  readonly code = 'E_TYPE_NOT_FOUND'

  constructor(name: string) {
    super(`There is no content type "${name.slice(0, 100)}", or it is not yours to read.`, {
      name: name.slice(0, 100),
    })
  }
}

/**
 * A type's definition is wrong: every fault at once, each with a JSON pointer into the definition.
 */
export class TypeInvalidError extends StoaError {
  readonly code = 'E_TYPE_INVALID'
  readonly faults: readonly Fault[]

  constructor(faults: readonly Fault[]) {
    const [first] = faults
    const reason = first === undefined ? '' : ` ${first.path}: ${first.message}`
    super(`The definition of the content type is not valid.${reason}`, { faults })
    this.faults = faults
  }
}

/** Another caller changed the type since the revision that this caller has seen. */
export class TypeConflictError extends StoaError {
  readonly code = 'E_TYPE_CONFLICT'

  constructor(name: string, expected: number, current: number) {
    super(
      `The type "${name}" is at revision ${current} now, not ${expected}. Read it again and ` +
        `repeat the change.`,
      { name, expected, current },
    )
  }
}

/** The change would lose values that entries have. */
export class TypeLossError extends StoaError {
  readonly code = 'E_TYPE_LOSS'
}

/** A type with entries, or one that another type refers to, cannot be deleted. */
export class TypeInUseError extends StoaError {
  readonly code = 'E_TYPE_IN_USE'
}

/** There is no such locale. */
export class LocaleNotFoundError extends StoaError {
  readonly code = 'E_LOCALE_NOT_FOUND'

  constructor(locale: string) {
    super(`There is no locale "${locale.slice(0, 40)}". Ask for one that exists, or add it.`, {
      locale: locale.slice(0, 40),
    })
  }
}

/** A locale with a wrong code, a fallback that leads back to it, or one too many. */
export class LocaleInvalidError extends StoaError {
  readonly code = 'E_LOCALE_INVALID'
}

/** The default locale, one with versions, or one that another falls back to cannot be deleted. */
export class LocaleInUseError extends StoaError {
  readonly code = 'E_LOCALE_IN_USE'
}

/** There is no such release. */
export class ReleaseNotFoundError extends StoaError {
  readonly code = 'E_RELEASE_NOT_FOUND'

  constructor() {
    super('There is no such release. Check its id.')
  }
}

export type RefusedItem = {
  readonly entryId: string
  readonly type: string
  readonly locale: string
  readonly code: string
  readonly message: string
}

/**
 * Items of a release could not be published or undone, and nothing was. Names up to 100 of them,
 * each with its reason.
 */
export class ReleaseRefusedError extends StoaError {
  readonly code = 'E_RELEASE_REFUSED'

  constructor(items: readonly RefusedItem[]) {
    const [first] = items
    const subject = items.length === 1 ? 'One item keeps' : `${items.length} items keep`
    const reason =
      first === undefined ? '' : ` Entry ${first.entryId}, ${first.locale}: ${first.message}`
    super(`${subject} the release back; nothing was changed.${reason}`, { items })
  }
}

/** The release is in a state in which this cannot be done, or has no room. */
export class ReleaseStateError extends StoaError {
  readonly code = 'E_RELEASE_STATE'
}

/**
 * Something newer was published since the release, so undoing it would take that back too. Nothing
 * was undone.
 */
export class ReleaseSupersededError extends StoaError {
  readonly code = 'E_RELEASE_SUPERSEDED'
}

/** There is no such scheduled action on this entry. */
export class ScheduleNotFoundError extends StoaError {
  readonly code = 'E_SCHEDULE_NOT_FOUND'

  constructor() {
    super('There is no such scheduled action on this entry.')
  }
}

/** A time that cannot be used, or an action that is not waiting any more. */
export class ScheduleInvalidError extends StoaError {
  readonly code = 'E_SCHEDULE_INVALID'
}
