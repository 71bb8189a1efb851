import { hash } from 'node:crypto'
import type { Dependency } from '#cache/dependency.ts'
import type { Atom, Predicate } from '#cache/predicate.ts'
import type { Change, Row } from '#change-feed/change.ts'
import { memoizeBounded } from '#lib/memoize-bounded.ts'
import { isScalar } from '#lib/scalar.ts'

/**
 * The tags under which the HTTP cache keeps responses, made of what a response depends on, and the
 * tags that a change purges. The rule between them: if a change touches a dependency of a response,
 * they have a tag in common, both of the fine purge and of the coarse one.
 *
 * - `fine`: an entry, an asset, or the lists of a type that ask for one value of one field.
 * - `coarse`: all of a type. Every response has it, and it is purged where the fine tags would be
 *   too many.
 * - `wide`: the same as coarse, but only on responses whose fine tags do not fit into a header.
 *   Each fine purge has it too.
 *
 * Two things with one tag are purged together, which is too much and never too little.
 */
export type ResponseTags = {
  readonly fine: readonly string[]
  readonly wide: readonly string[]
  readonly coarse: readonly string[]
}

export type ChangeTags = ResponseTags & {
  /**
   * Something is not to be seen any more: what was kept must not be served again, not even while no
   * node responds.
   */
  readonly hard: boolean
}

const tagLength = 8
/** Tags remembered, so that each is hashed once. */
const knownMax = 20_000
/** Values of one atom that each get a tag; a list of more depends on its whole type. */
const valuesMax = 16
/** Tags of the lists that one change purges; past them the whole type is purged. */
const listTagsMax = 64
/** Types of one response that each get a tag; one of more depends on all. */
export const coarseMax = 8

const tagOf = memoizeBounded(knownMax, (text) => hash('sha256', text, 'hex').slice(0, tagLength))

/** Every response has this tag: purging it purges all. */
export const allTag = tagOf('all')
const wideAllTag = tagOf('wide')

/** Stands in the place of a type that is not known. */
const anyType = '*'

const content = 'version'
const asset = 'asset'
/** Any change of these may change any response, and what may be seen. */
const everything: ReadonlySet<string> = new Set(['model', 'role'])

/** Changes of other collections purge nothing. */
export function isTagged(collection: string): boolean {
  return collection === content || collection === asset || everything.has(collection)
}

/** Null: it depends on something that has no tag, so the HTTP cache must not keep it. */
export function tagsOfResponse(dependencies: readonly Dependency[]): ResponseTags | null {
  const types = new Set<string>()
  const fine = new Set<string>()
  for (const dependency of dependencies) {
    const { collection } = dependency
    if (everything.has(collection)) continue
    if (dependency.kind === 'row' && collection === asset) {
      types.add(asset)
      fine.add(assetTag(dependency.key))
    } else if (dependency.kind === 'list' && collection === content) {
      const { predicate } = dependency
      if (!isPublished(predicate)) return null
      const type = valueOf(predicate, 'type')
      types.add(typeof type === 'string' ? `${content} ${type}` : `${content} ${anyType}`)
      for (const tag of tagsOfList(predicate, type)) fine.add(tag)
    } else return null
  }
  if (types.size > coarseMax) return { fine: [wideAllTag], wide: [wideAllTag], coarse: [allTag] }
  return {
    fine: [...fine],
    wide: [...types].map(wideTag),
    coarse: [allTag, ...[...types].map(coarseTag)],
  }
}

/** Null: no response that an HTTP cache may keep shows it. */
export function tagsOfChange(change: Change): ChangeTags | null {
  const { collection, key } = change
  if (!isTagged(collection)) return null
  if (key === null || everything.has(collection))
    return { fine: [allTag], wide: [], coarse: [allTag], hard: true }
  return collection === asset ? tagsOfAsset(change) : tagsOfVersion(change)
}

function tagsOfAsset({ key, operation }: Change): ChangeTags {
  return {
    fine: [assetTag(key!)],
    wide: [wideTag(asset), wideAllTag],
    coarse: [coarseTag(asset), wideAllTag],
    hard: operation === 'delete',
  }
}

function tagsOfVersion({ operation, before, after }: Change): ChangeTags | null {
  const isRecorded =
    (operation === 'insert' || before !== null) && (operation === 'delete' || after !== null)
  if (!isRecorded) return { fine: [allTag], wide: [], coarse: [allTag], hard: true }
  const shown = [before, after].filter((row) => row !== null && row['is_published'] === true)
  const rows = shown as readonly Row[]
  if (rows.length === 0) return null
  const types = [...new Set(rows.map((row) => `${content} ${String(row['type'])}`))]
  const lists = new Set(rows.flatMap(listTagsOf))
  const tooMany = lists.size > listTagsMax
  return {
    fine: [
      ...new Set(rows.map((row) => entryTag(String(row['entry_id'])))),
      ...(tooMany ? [...types.map(coarseTag), listTag(anyType, null)] : lists),
    ],
    wide: [...types, `${content} ${anyType}`].map(wideTag).concat(wideAllTag),
    coarse: [...types, `${content} ${anyType}`].map(coarseTag).concat(wideAllTag),
    hard: before !== null && before['is_published'] === true && after?.['is_published'] !== true,
  }
}

/** The lists that a row may be in: those of its type, by locale, and by each value that it has. */
function listTagsOf(row: Row): string[] {
  const type = String(row['type'])
  const tags = [listTag(type, null), listTag(anyType, null)]
  for (const [field, value] of Object.entries(row)) {
    if (field !== 'locale' && ungrouped.has(field)) continue
    for (const one of Array.isArray(value) ? value : [value])
      if (isScalar(one)) tags.push(listTag(type, { field, value: one }))
  }
  return tags
}

/** These fields are in every list, or differ in each row: they make no group of lists. */
const ungrouped: ReadonlySet<string> = new Set([
  'entry_id',
  'type',
  'locale',
  'is_latest',
  'is_published',
  'is_archived',
  'filter_revision',
  'created_at',
  'saved_at',
  'published_at',
  'first_published_at',
  'created_by_id',
])

/** A list is kept under one group: that of its first condition on a value, or of its locale. */
function tagsOfList(predicate: Predicate, type: unknown): string[] {
  const entry = valueOf(predicate, 'entry_id')
  if (typeof entry === 'string') return [entryTag(entry)]
  if (typeof type !== 'string') return [listTag(anyType, null)]
  const group =
    predicate.find((atom) => !ungrouped.has(atom.field) && valuesOf(atom) !== null) ??
    predicate.find((atom) => atom.field === 'locale' && valuesOf(atom) !== null)
  const values = group === undefined ? null : valuesOf(group)
  if (group === undefined || values === null) return [listTag(type, null)]
  return values.map((value) => listTag(type, { field: group.field, value }))
}

function isPublished(predicate: Predicate): boolean {
  return valueOf(predicate, 'is_published') === true
}

/** The one value that the field must have; undefined: there is none. */
function valueOf(predicate: Predicate, field: string): unknown {
  const atom = predicate.find((each) => each.field === field && each.is === 'eq')
  return atom?.is === 'eq' && atom.negated !== true ? atom.value : undefined
}

/** The values of which a row must have one; null: the atom says it in another way. */
function valuesOf(atom: Atom): readonly unknown[] | null {
  if (atom.negated === true) return null
  if (atom.is === 'eq') return [atom.value]
  return atom.is === 'in' && atom.values.length <= valuesMax ? atom.values : null
}

function entryTag(id: string): string {
  return tagOf(`entry ${id}`)
}

function assetTag(id: string): string {
  return tagOf(`asset ${id}`)
}

function listTag(
  type: string,
  group: { readonly field: string; readonly value: unknown } | null,
): string {
  if (group === null) return tagOf(`list ${type}`)
  return tagOf(`list ${type} ${JSON.stringify([group.field, group.value])}`)
}

function coarseTag(type: string): string {
  return tagOf(`coarse ${type}`)
}

function wideTag(type: string): string {
  return tagOf(`wide ${type}`)
}
