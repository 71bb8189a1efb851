import type { Grant } from '#content/authority.ts'
import type { SaveInput } from '#content/content.ts'
import { ValidationError } from '#content/errors.ts'
import { requireFields } from '#content/entries/permission.ts'
import type { TypeModel } from '#content/model/model.ts'
import type { Fault } from '#content/validation/fault.ts'
import { makeSlug } from '#content/validation/slug.ts'
import type { Target } from '#content/validation/target.ts'

/** The result of merging a save: all fields of the new version, and how they differ from before. */
export type Composed = {
  readonly fields: Record<string, unknown>
  readonly changed: ReadonlySet<string>
  /** The targets that changed values point to and did not point to before. */
  readonly newTargets: readonly Target[]
}

/**
 * Makes the fields of a new version out of the input and the version before it. With `merge`,
 * fields that the input leaves out stay; without, they are cleared, except for the slug (an address
 * does not change by being left out) and for fields that the grant does not reach. Unchanged values
 * are not checked again: a type may have become stricter since.
 */
export function compose(
  type: TypeModel,
  grant: Grant,
  input: Pick<SaveInput, 'fields'> & { readonly merge: boolean; readonly publishing: boolean },
  before: Readonly<Record<string, unknown>>,
): Composed {
  requireFields(grant, type, Object.keys(input.fields))
  const validated = type.validator.validate(input.fields, { publishing: false })
  const fields: Record<string, unknown> = {}
  for (const { name, kind } of type.definition.fields) {
    const given = Object.hasOwn(input.fields, name)
    const stays =
      !given && (input.merge || kind === 'slug' || grant.fields?.includes(name) === false)
    const kept = stays ? before[name] : undefined
    const value = given ? validated.fields[name] : kept
    if (value !== undefined) fields[name] = value
  }
  const changed = new Set<string>()
  for (const { name } of type.definition.fields) {
    if (
      fields[name] !== before[name] &&
      JSON.stringify(fields[name]) !== JSON.stringify(before[name])
    )
      changed.add(name)
  }
  // Unchanged values are accepted, even if the type would refuse them today.
  const faults = validated.faults.filter(
    (fault) => changed.has(fieldOf(fault.path)) || !Object.hasOwn(before, fieldOf(fault.path)),
  )
  if (faults.length > 0) throw new ValidationError(faults)
  if (input.publishing) checkCompleteOnceSaved(type, fields)
  return { fields, changed, newTargets: newTargets(type, validated.targets, changed, before) }
}

/**
 * Throws `ValidationError` with everything that keeps a version with these fields from being
 * published.
 */
export function checkComplete(
  type: TypeModel,
  fields: Readonly<Record<string, unknown>>,
  locale: string | null = null,
): void {
  refuseFaults(type.validator.validate(fields, { publishing: true }).faults, locale)
}

/** The same for fields before they are saved: saving makes a slug that is left out. */
export function checkCompleteOnceSaved(
  type: TypeModel,
  fields: Readonly<Record<string, unknown>>,
): void {
  const made = slugBase(type, fields) === null ? null : `/${type.slug?.name}`
  const { faults } = type.validator.validate(fields, { publishing: true })
  refuseFaults(
    faults.filter((fault) => fault.path !== made),
    null,
  )
}

function refuseFaults(faults: readonly Fault[], locale: string | null): void {
  if (faults.length === 0) return
  throw new ValidationError(
    locale === null
      ? faults
      : faults.map((fault) => ({ ...fault, message: `In ${locale}: ${fault.message}` })),
  )
}

function fieldOf(pointer: string): string {
  return (pointer.split('/')[1] ?? '').replaceAll('~1', '/').replaceAll('~0', '~')
}

function newTargets(
  type: TypeModel,
  targets: readonly Target[],
  changed: ReadonlySet<string>,
  before: Readonly<Record<string, unknown>>,
): readonly Target[] {
  const touched = targets.filter((target) => changed.has(fieldOf(target.pointer)))
  if (touched.length === 0) return touched
  const pointing: Record<string, unknown> = {}
  for (const name of type.pointing) if (Object.hasOwn(before, name)) pointing[name] = before[name]
  const had = new Set(
    type.validator.targets(pointing).map((target) => `${target.path} ${target.id}`),
  )
  return touched.filter((target) => !had.has(`${target.path} ${target.id}`))
}

/**
 * Returns the text to make a missing slug of; null if there is a slug, or nothing to make it of.
 */
export function slugBase(
  type: TypeModel,
  fields: Readonly<Record<string, unknown>>,
): string | null {
  const { slug } = type
  if (slug === null || slug.from === undefined || fields[slug.name] !== undefined) return null
  const source = fields[slug.from]
  if (typeof source !== 'string' || source.trim() === '') return null
  const made = makeSlug(source)
  return made === '' ? type.definition.name : made
}
