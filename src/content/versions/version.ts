import type { Field } from '#content/content-type.ts'
import type { TypeModel } from '#content/model/model.ts'
import { searchTexts } from '#content/search/searched-fields.ts'
import type { Actor } from '#lib/actor.ts'

/** One version as `stoa.version` or `stoa.version_history` holds it. JSON columns are text. */
export type Version = {
  readonly locale: string
  readonly number: number
  readonly data: string
  readonly filter: string
  readonly typeRevision: number
  readonly filterRevision: number
  /** The three flags are false in the history. */
  readonly isLatest: boolean
  readonly isPublished: boolean
  readonly isArchived: boolean
  readonly createdAt: string
  readonly createdById: string | null
  readonly savedAt: string
  readonly savedBy: string
  readonly publishedAt: string | null
  /** A `Publication`, the last one of this version itself; null: it never was published. */
  readonly publishedBy: string | null
  readonly firstPublishedAt: string | null
}

/**
 * Who published a version, and when. It stays when the version is unpublished or another one is
 * published; `publishedAt` says since when the locale is published.
 */
export type Publication = { readonly by: Actor; readonly at: string | null }

export function encodePublication(by: Actor, at: string): string {
  return JSON.stringify({ ...by, at })
}

/** The last publication of this version itself, null if there was none. */
export function publicationOf(row: VersionHead): Publication | null {
  if (row.publishedBy === null) return null
  const { at, ...by } = JSON.parse(row.publishedBy) as Actor & { readonly at?: string }
  return { by, at: at ?? row.publishedAt }
}

/** The perspectives that show a held version. */
export function perspectivesOf(
  row: Pick<Version, 'isLatest' | 'isPublished'>,
): readonly ('draft' | 'published')[] {
  return [
    ...(row.isLatest ? (['draft'] as const) : []),
    ...(row.isPublished ? (['published'] as const) : []),
  ]
}

/** Permissions need a version without its fields. */
export type VersionHead = Omit<Version, 'data'>

type Column = {
  readonly key: keyof Version
  readonly name: string
  readonly type: 'text' | 'integer' | 'boolean' | 'timestamptz' | 'json' | 'jsonb'
  /** The history has it too. */
  readonly kept: boolean
}

const column = (key: keyof Version, name: string, type: Column['type'], kept = true): Column => ({
  key,
  name,
  type,
  kept,
})

/** The columns of a version, but for its entry and type. Every statement is made from this list. */
export const versionFields: readonly Column[] = [
  column('locale', 'locale', 'text'),
  column('number', 'number', 'integer'),
  column('data', 'data', 'json'),
  column('filter', 'filter', 'jsonb'),
  column('typeRevision', 'type_revision', 'integer'),
  column('filterRevision', 'filter_revision', 'integer'),
  column('isLatest', 'is_latest', 'boolean', false),
  column('isPublished', 'is_published', 'boolean', false),
  column('isArchived', 'is_archived', 'boolean', false),
  column('createdAt', 'created_at', 'timestamptz'),
  column('createdById', 'created_by_id', 'text'),
  column('savedAt', 'saved_at', 'timestamptz'),
  column('savedBy', 'saved_by', 'json'),
  column('publishedAt', 'published_at', 'timestamptz'),
  column('publishedBy', 'published_by', 'json'),
  column('firstPublishedAt', 'first_published_at', 'timestamptz'),
]

/** For the select list of a row `v`: the columns of `Version` and of `VersionHead`. */
export const versionColumns = selected(versionFields)
export const headColumns = selected(versionFields.filter(({ key }) => key !== 'data'))

function selected(columns: readonly Column[]): string {
  return columns.map(({ key, name }) => `v.${name} as "${key}"`).join(', ')
}

/**
 * The highest number of an entry in a locale. The latest version need not have it: one that was
 * published beside it may.
 */
export function topOf(versions: string, entry: string, locale: string): string {
  const highest = (table: string): string =>
    `(select max(number) from ${table} w where w.entry_id = ${entry} and w.locale = ${locale})`
  return `greatest(${highest(versions)}, ${highest('stoa.version_history')})`
}

/** The parsed data, brought to the fields that the type has now. */
export function storedFields(
  type: TypeModel,
  row: Pick<Version, 'data' | 'typeRevision'>,
): Record<string, unknown> {
  const stored = JSON.parse(row.data) as Record<string, unknown>
  const { typeRevision } = row
  if (typeRevision >= type.shapeRevision) return stored
  const left = type.removed.size === 0 ? stored : withoutRemoved(type, stored, typeRevision)
  return type.validator.project(narrowedSince(type, left, typeRevision))
}

/** Without what changes of fields have lost since: a field of that kind now is another one. */
function narrowedSince(type: TypeModel, stored: Values, savedIn: number): Values {
  const since = type.narrowed.filter(({ revision }) => revision > savedIn)
  if (since.length === 0) return stored
  const kept: Record<string, unknown> = { ...stored }
  for (const { field, narrow } of since) {
    const value = Object.hasOwn(kept, field.name) ? narrow(kept[field.name]) : undefined
    if (value === undefined) delete kept[field.name]
    else kept[field.name] = value
  }
  return kept
}

/** The words of a version that search finds, as `stoa.search_vector` takes them. */
export function searchOf(
  type: TypeModel,
  row: Pick<Version, 'data' | 'typeRevision'>,
): string | null {
  return type.searched.length === 0 ? null : searchTexts(type.searched, storedFields(type, row))
}

/** Without values of fields that were removed since: a field of that name now is another one. */
function withoutRemoved(type: TypeModel, stored: Values, savedIn: number): Values {
  const isGone = (path: string): boolean => (type.removed.get(path) ?? 0) > savedIn
  const fieldsOf = (fields: readonly Field[], values: Values, prefix: string): Values => {
    const kept: Record<string, unknown> = { ...values }
    for (const field of fields) {
      const path = `${prefix}${field.name}`
      if (isGone(path)) delete kept[field.name]
      else if (Object.hasOwn(kept, field.name))
        kept[field.name] = partsOf(field, kept[field.name], path)
    }
    return kept
  }
  const partsOf = (field: Field, value: unknown, path: string): unknown => {
    if (typeof value !== 'object' || value === null) return value
    if (field.kind === 'group') return fieldsOf(field.fields, value as Values, `${path}.`)
    if (!Array.isArray(value)) return value
    if (field.kind === 'list') return value.map((item: unknown) => partsOf(field.of, item, path))
    if (field.kind !== 'blocks') return value
    return (value as Values[])
      .filter((item) => !isGone(`${path}.${String(item['block'])}`))
      .map((item) => {
        const block = field.blocks.find((one) => one.name === item['block'])
        return block === undefined ? item : fieldsOf(block.fields, item, `${path}.${block.name}.`)
      })
  }
  return fieldsOf(type.definition.fields, stored, '')
}

type Values = Readonly<Record<string, unknown>>

type Held = { readonly held: readonly Version[] }

/** The latest version of a locale, and the published one, among those that an entry holds. */
export function latestOf({ held }: Held, locale: string): Version | null {
  return held.find((row) => row.isLatest && row.locale === locale) ?? null
}

export function publishedOf({ held }: Held, locale: string): Version | null {
  return held.find((row) => row.isPublished && row.locale === locale) ?? null
}
