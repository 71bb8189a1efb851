import type { Call, Expected } from '#content/content.ts'
import { VersionConflictError } from '#content/errors.ts'
import type { EntryState } from '#content/versions/entry-state.ts'
import type { Version } from '#content/versions/version.ts'
import { mayRead } from '#content/entries/permission.ts'
import { viewFor } from '#content/entries/visibility.ts'
import type { TypeModel } from '#content/model/model.ts'

/** True if the caller goes on from this row. */
export function isExpected(expected: Expected, row: Version): boolean {
  if (expected === null || expected === 'absent') return expected === null
  if (typeof expected === 'number') return expected === row.number
  return expected.seen.some(
    ({ locale, number }) => number === row.number && (locale === null || locale === row.locale),
  )
}

export type ExpectedCheck = {
  readonly expected: Expected
  /** The latest version of each locale that is to change. */
  readonly rows: readonly Version[]
  /** Where there is none: the versions of which the caller has seen one, if they may read it. */
  readonly instead?: readonly Version[]
  readonly yours: Readonly<Record<string, unknown>> | null
}

/** The optimistic lock, under the entry's lock. Throws `VersionConflictError` with both sides. */
export function checkExpected(
  call: Call,
  type: TypeModel,
  state: EntryState,
  { expected, rows, instead = [], yours }: ExpectedCheck,
): void {
  const isMissing = rows.length === 0
  const seen = instead.filter((row) => mayRead(call, type, { id: state.id, held: [row] }))
  if (isMissing && (expected === 'absent' || seen.some((row) => isExpected(expected, row)))) return
  const [first = instead[0]] = seen
  const conflict = isMissing ? first : rows.find((row) => !isExpected(expected, row))
  if (conflict !== undefined)
    throw new VersionConflictError(expected, viewFor(call, type, state.id, conflict), yours)
}
