import type { Call, EntryView } from '#content/content.ts'
import { UniqueConflictError, ValidationError } from '#content/errors.ts'
import type { Version } from '#content/versions/version.ts'
import { grantCovers, grantOf, seesChanges } from '#content/entries/permission.ts'
import { statusOf, viewOf } from '#content/entries/view.ts'
import type { Shown } from '#content/entries/view.ts'
import type { TypeModel } from '#content/model/model.ts'
import { FilterValueTooLongError } from '#content/query/errors.ts'

/**
 * What a caller may be shown is decided here, for responses, conflicts and refusals alike: by the
 * version itself, never by its type alone.
 */

/** The fields of a version that the caller may read, as a draft or as published; null: all. */
export function visibleFields(call: Call, type: TypeModel, id: string, row: Version): Shown {
  const drafts = grantOf(call, 'readDraft', type)
  const published = row.isPublished ? grantOf(call, 'read', type) : null
  const visible = new Set<string>()
  for (const [grant, status] of [
    [drafts, statusOf(row)],
    [published, 'published'],
  ] as const) {
    if (grant === null || !grantCovers(grant, type, id, { ...row, status })) continue
    if (grant.fields === null) return null
    for (const name of grant.fields) visible.add(name)
  }
  return [...visible]
}

/**
 * A version as the caller may see it. A caller who may write it but not read it gets its id,
 * version, status and dates, and no fields.
 */
export function viewFor(call: Call, type: TypeModel, id: string, row: Version): EntryView {
  const view = viewOf(type, { id }, row, {
    filter: null,
    fields: visibleFields(call, type, id, row),
  })
  return row.isPublished && !seesChanges(call, type) ? { ...view, status: 'published' } : view
}

/**
 * Fields that a refusal may name: those of the request itself, and those that the caller may see in
 * every version that the refusal can be about. Null: all.
 */
export function knownFields(
  call: Call,
  type: TypeModel,
  id: string,
  about: { readonly rows: readonly Version[]; readonly given?: readonly string[] },
): Shown {
  let known: Shown = about.rows.length === 0 ? [] : null
  for (const row of about.rows) {
    const visible = visibleFields(call, type, id, row)
    if (visible === null) continue
    known = known === null ? visible : known.filter((name) => visible.includes(name))
  }
  return known === null ? null : [...known, ...(about.given ?? [])]
}

/**
 * Runs `work` and rewrites its refusal, if there is one, so that it names no field beside
 * `known()`.
 */
export async function refusingWithout<T>(known: () => Shown, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw withoutHidden(error, known)
  }
}

function withoutHidden(error: unknown, known: () => Shown): unknown {
  if (error instanceof ValidationError) {
    const fields = known()
    if (fields === null) return error
    const named = error.faults.filter(({ path }) => path === '' || fields.includes(fieldOf(path)))
    if (named.length === error.faults.length) return error
    return new ValidationError([...named, hiddenFault])
  }
  if (error instanceof UniqueConflictError) {
    const fields = known()
    return fields === null || fields.includes(String(error.facts['field']))
      ? error
      : new ValidationError([hiddenFault])
  }
  if (error instanceof FilterValueTooLongError) {
    const fields = known()
    return fields === null || fields.includes(String(error.facts['field']))
      ? error
      : new ValidationError([hiddenFault])
  }
  return error
}

/** Stands for everything that is wrong with fields that the caller may not see. */
const hiddenFault = {
  path: '',
  code: 'hidden',
  message: 'Fields that you may not see keep it from being done. Ask a user whose role sees them.',
} as const

/** The field that a JSON pointer begins with. */
export function fieldOf(pointer: string): string {
  return (pointer.split('/')[1] ?? '').replaceAll('~1', '/').replaceAll('~0', '~')
}
