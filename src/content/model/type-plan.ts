import { isDeepStrictEqual } from 'node:util'
import type { TypePlan } from '#content/content.ts'
import type { ContentType, Field } from '#content/content-type.ts'
import { innerFields } from '#content/field-kinds.ts'
import type { NarrowedField, TypeModel } from '#content/model/model.ts'
import { modelOfType } from '#content/model/model.ts'
import { countMax, lostValues, refusedValues } from '#content/model/stored-values.ts'
import type { Refused } from '#content/model/stored-values.ts'
import { claimProblem } from '#content/model/unique-claims.ts'
import type { ClaimedField } from '#content/model/unique-claims.ts'
import { queryFieldOf } from '#content/query/normal-form.ts'
import { searchedFields } from '#content/search/searched-fields.ts'
import { sql } from '#database/database.ts'
import type { Queryable } from '#database/database.ts'

/** The consequences of a change of a type for existing versions. */
export type TypeChange = TypePlan & {
  /** Values saved before may not be what the type now says: they are narrowed when read. */
  readonly shape: boolean
  /** The normal form, the claims or the references of entries have to be made anew. */
  readonly filter: boolean
  /** The words of entries have to be made anew. */
  readonly search: boolean
  /** Fields whose claims have to be made in the same transaction. */
  readonly claims: readonly ClaimedField[]
  /** Names of fields whose claims have to go. */
  readonly unclaimed: readonly string[]
  readonly past: Past
}

/** How the type reads what was saved before it was changed: see `TypeModel`. */
type Past = {
  readonly removed_fields: Readonly<Record<string, number>>
  readonly narrowed_fields: readonly NarrowedField[]
}

type Step = TypePlan['steps'][number]

/**
 * The same with all that the new definition would refuse of what there is: for people, who want to
 * know before they save it.
 */
export async function explainType(
  db: Queryable,
  before: TypeModel | null,
  next: ContentType,
): Promise<TypePlan> {
  const { change, steps, claims } = await planType(db, before, next)
  if (before === null || change !== 'update') return { change, steps }
  const touched = next.fields.filter((field) =>
    steps.some((step) => step.what === 'changeField' && step.name === field.name),
  )
  const refused = await refusedValues(db, before, next, touched)
  const explained: Step[] = []
  for (const step of steps) {
    const claimed = claims.find(({ field }) => field.name === step.name)
    const problem =
      step.what !== 'changeField' || claimed === undefined
        ? null
        : await claimProblem(db, next, claimed)
    const notes = step.what === 'changeField' ? refusalNotes(step.name, refused) : []
    explained.push({
      ...step,
      blocked: problem !== null,
      note: [step.note, ...notes, problem?.message ?? ''].filter((note) => note !== '').join(' '),
    })
  }
  return { change, steps: explained }
}

function refusalNotes(name: string, { values, missing }: Refused): string[] {
  const [refused, lacking] = [values.get(name) ?? 0, missing.get(name) ?? 0]
  return [
    ...(refused > 0
      ? [`${amount(refused)} a value that stays, but is refused when it is saved again.`]
      : []),
    ...(lacking > 0 ? [`${amount(lacking)} none.`] : []),
  ]
}

/**
 * Finds what saving `next` would change, looking at the versions that there are where a change
 * could lose values.
 */
export async function planType(
  db: Queryable,
  before: TypeModel | null,
  next: ContentType,
): Promise<TypeChange> {
  if (before === null) return creation(next)
  const old = before.definition
  const names = new Set(old.fields.map((field) => field.name))
  if (isDeepStrictEqual(plain(next), old)) return noChange(before)
  const removed = old.fields.filter((field) =>
    next.fields.every((other) => other.name !== field.name),
  )
  const changed = next.fields.flatMap((field) => {
    const was = old.fields.find((other) => other.name === field.name)
    return was === undefined || isDeepStrictEqual(plain(field), was) ? [] : [{ field, was }]
  })
  const narrowed = changed.filter(({ field, was }) => !keepsShape(was, field))
  const shape = removed.length > 0 || narrowed.length > 0
  const past = pastOf(
    before,
    removedPaths(old.fields, next.fields),
    narrowed.map(({ field }) => field),
  )
  const after = modelOfType(next, {
    revision: before.revision + 1,
    shape_revision: shape ? before.revision + 1 : before.shapeRevision,
    filter_revision: before.filterRevision,
    ...past,
  })
  const touched = [...removed.map((field) => field.name), ...changed.map(({ field }) => field.name)]
  const forgotten = [...names].filter(
    (name) => !touched.includes(name) && past.removed_fields[name] !== before.removed.get(name),
  )
  const lost = await lostValues(db, before, after, shape ? [...touched, ...forgotten] : [])
  const steps: Step[] = [
    ...next.fields
      .filter((field) => old.fields.every((other) => other.name !== field.name))
      .map(added),
    ...(await changes(db, old, changed, lost)),
    ...removed.map((field) => removal(field.name, lost.get(field.name) ?? 0)),
    ...forgotten.map((name) => forgetting(name, lost.get(name) ?? 0)),
    ...indexNames(next)
      .filter((name) => !indexNames(old).includes(name))
      .map((name) => indexStep('addIndex', name)),
    ...indexNames(old)
      .filter((name) => !indexNames(next).includes(name))
      .map((name) => indexStep('removeIndex', name)),
  ]
  const claimKey = (field: Field): string =>
    isClaimed(field) ? `unique ${field.localized === true}` : ''
  const reclaimed = changed.filter(({ field, was }) => claimKey(field) !== claimKey(was))
  // No version has a value of a field that is new, so none has to be made anew for it.
  const existing = { ...next, fields: next.fields.filter((field) => names.has(field.name)) }
  return {
    change: 'update',
    steps,
    shape,
    filter: shape || reclaimed.length > 0 || changesFilter(old, existing),
    search: changesSearch(old, next, shape),
    claims: reclaimed
      .filter(({ field }) => isClaimed(field))
      .map(({ field }) => ({ field, since: past.removed_fields[field.name] ?? 0 })),
    unclaimed: [
      ...reclaimed.map(({ field }) => field.name),
      ...removed.filter(isClaimed).map((field) => field.name),
    ],
    past,
  }
}

/**
 * Of the changes that narrowed fields so many are remembered. What was saved before an older one is
 * read as though the field had been removed then.
 */
const narrowedMax = 50

function pastOf(
  { revision: current, removed, narrowed }: TypeModel,
  paths: readonly string[],
  fields: readonly Field[],
): Past {
  const revision = current + 1
  // The later of two equal fields narrows all that both narrow.
  const isGone = ({ field }: NarrowedField): boolean =>
    paths.includes(field.name) || fields.some((one) => isDeepStrictEqual(plain(one), field))
  const all: readonly NarrowedField[] = [
    ...narrowed.filter((one) => !isGone(one)),
    ...fields.map((field) => ({ revision, field })),
  ]
  const gone = new Map(removed)
  for (const { field, revision: at } of all.slice(0, -narrowedMax))
    gone.set(field.name, Math.max(at, gone.get(field.name) ?? 0))
  for (const path of paths) gone.set(path, revision)
  return {
    removed_fields: Object.fromEntries(gone),
    narrowed_fields: all
      .slice(-narrowedMax)
      .map(({ revision: at, field }) => ({ revision: at, field })),
  }
}

/** As the database has it: without what is undefined. */
function plain(value: object): unknown {
  return JSON.parse(JSON.stringify(value))
}

function creation(next: ContentType): TypeChange {
  const steps: Step[] = [
    ...next.fields.map((field) => added(field)),
    ...indexNames(next).map((name) => indexStep('addIndex', name)),
  ]
  const past = { removed_fields: {}, narrowed_fields: [] }
  const search = false
  return {
    change: 'create',
    steps,
    shape: false,
    filter: true,
    search,
    claims: [],
    unclaimed: [],
    past,
  }
}

function noChange(before: TypeModel): TypeChange {
  const past = pastOf(before, [], [])
  const none = { steps: [], shape: false, filter: false, search: false, claims: [], unclaimed: [] }
  return { change: 'none', ...none, past }
}

/** The paths of fields and blocks that are there before and not after. */
function removedPaths(before: readonly Field[], after: readonly Field[], prefix = ''): string[] {
  return before.flatMap((field) => {
    const path = `${prefix}${field.name}`
    const other = after.find((one) => one.name === field.name)
    return other === undefined ? [path] : removedParts(field, other, path)
  })
}

function removedParts(was: Field, field: Field, path: string): string[] {
  if (was.kind === 'group' && field.kind === 'group')
    return removedPaths(was.fields, field.fields, `${path}.`)
  if (was.kind === 'list' && field.kind === 'list') return removedParts(was.of, field.of, path)
  if (was.kind !== 'blocks' || field.kind !== 'blocks') return []
  return was.blocks.flatMap((block) => {
    const at = `${path}.${block.name}`
    const other = field.blocks.find((one) => one.name === block.name)
    return other === undefined ? [at] : removedPaths(block.fields, other.fields, `${at}.`)
  })
}

function isClaimed(field: Field): boolean {
  return field.kind === 'slug' || ('unique' in field && field.unique)
}

function changesFilter(old: ContentType, existing: ContentType): boolean {
  return (
    !isDeepStrictEqual(queryShape(old), queryShape(existing)) ||
    !isDeepStrictEqual(pointers(old.fields), pointers(existing.fields))
  )
}

/** Values that a change lost are no longer found. */
function changesSearch(old: ContentType, next: ContentType, shape: boolean): boolean {
  const losesWords = shape && searchedFields(next).length > 0
  return losesWords || !isDeepStrictEqual(searchShape(old), searchShape(next))
}

/**
 * What is searched, and how it is ranked. The parts of a field count: text of a part that is gone
 * is no longer found.
 */
function searchShape(type: ContentType): unknown[] {
  return searchedFields(type).map(({ field, group }) => [field.name, group, shapeOf(field)])
}

function shapeOf(field: Field): unknown {
  const inside = innerFields(field).map(({ prefix, fields }) => [prefix, fields.map(shapeOf)])
  return [field.name, field.kind, inside]
}

function queryShape(type: ContentType): unknown[] {
  return type.fields.map(queryFieldOf).filter((field) => field !== null)
}

/** Where the fields can point. */
function pointers(fields: readonly Field[], path = ''): string[] {
  return fields.flatMap((field) => {
    const at = `${path}${field.name}`
    if (field.kind === 'asset' || field.kind === 'reference') return [`${at} ${field.kind}`]
    return innerFields(field, path).flatMap(({ prefix, fields }) => pointers(fields, prefix))
  })
}

/** True when every value of the old field is one of the new field too, in kind and form. */
function keepsShape(was: Field, field: Field): boolean {
  if (was.kind !== field.kind) return false
  if (was.kind === 'select' && field.kind === 'select')
    return was.many === field.many && was.options.every((option) => field.options.includes(option))
  if ('many' in was || 'many' in field)
    return ('many' in was && was.many) === ('many' in field && field.many)
  if (was.kind === 'group' && field.kind === 'group') return keepsFields(was.fields, field.fields)
  if (was.kind === 'list' && field.kind === 'list') return keepsShape(was.of, field.of)
  if (was.kind === 'number' && field.kind === 'number')
    return field.integer !== true || was.integer === true
  if (was.kind !== 'blocks' || field.kind !== 'blocks') return true
  return was.blocks.every((block) => {
    const other = field.blocks.find((one) => one.name === block.name)
    return other !== undefined && keepsFields(block.fields, other.fields)
  })
}

function keepsFields(was: readonly Field[], fields: readonly Field[]): boolean {
  return was.every((field) => {
    const other = fields.find((one) => one.name === field.name)
    return other !== undefined && keepsShape(field, other)
  })
}

function added(field: Field): Step {
  return {
    what: 'addField',
    name: field.name,
    losesData: false,
    blocked: false,
    note: field.required === true ? 'Entries need a value before they are published again.' : '',
  }
}

function removal(name: string, count: number): Step {
  return {
    what: 'removeField',
    name,
    losesData: count > 0,
    blocked: false,
    note: count > 0 ? `${amount(count)} a value.` : 'No version has a value.',
  }
}

function forgetting(name: string, count: number): Step {
  return {
    what: 'changeField',
    name,
    losesData: count > 0,
    blocked: false,
    note: `${amount(count)} a value
      from before fields of the type were changed ${narrowedMax} times.`,
  }
}

function indexStep(what: 'addIndex' | 'removeIndex', name: string): Step {
  return {
    what,
    name,
    losesData: false,
    blocked: false,
    note: what === 'addIndex' ? 'Made in the background, without blocking writes.' : '',
  }
}

function amount(count: number): string {
  if (count > countMax) return `More than ${countMax} versions have`
  return count === 1 ? '1 version has' : `${count} versions have`
}

function indexNames(type: ContentType): string[] {
  const single = type.fields
    .filter((field) => queryFieldOf(field) !== null)
    .map((field) => field.name)
  return [...single, ...(type.indexes ?? []).map((index) => index.join(','))]
}

const inSeveralLocales = sql<object>(
  `select 1 from stoa.entry where type = $1 and locale_count > 1 limit 1`,
)

async function changes(
  db: Queryable,
  old: ContentType,
  changed: readonly { readonly field: Field; readonly was: Field }[],
  lost: ReadonlyMap<string, number>,
): Promise<Step[]> {
  const steps: Step[] = []
  for (const { field, was } of changed) {
    const count = lost.get(field.name) ?? 0
    const merges =
      was.localized === true &&
      field.localized !== true &&
      (await db.run(inSeveralLocales, [old.name])).length > 0
    const notes = [
      ...(was.kind === field.kind ? [] : [`From ${was.kind} to ${field.kind}.`]),
      ...(count > 0 ? [`${amount(count)} a value that does not fit.`] : []),
      ...(merges
        ? [
            'Entries have several locales: the next save in one of them replaces the values ' +
              'of the others.',
          ]
        : []),
      ...(field.required === true && was.required !== true
        ? ['Entries need a value before they are published again.']
        : []),
    ]
    steps.push({
      what: 'changeField',
      name: field.name,
      losesData: count > 0 || merges,
      blocked: false,
      note: notes.join(' '),
    })
  }
  return steps
}
