import type { ContentType, Field } from '#content/content-type.ts'
import { isReservedName } from '#content/model/type-check.ts'
import { normalInstant } from '#content/query/normal-form.ts'

/**
 * More distinct keys than this is data, not front matter. A type has 200 fields; a key takes two
 * for a list, and five are the importer's own.
 */
const keysMax = 97
/** Longer texts are read, not filtered by; and indexes have a limit to what they hold. */
const filterableCharsMax = 250

/**
 * What was seen of one front-matter key over all pages. Small: it grows with the number of keys,
 * not of pages.
 */
type KeySeen = {
  readonly kinds: Set<Kind>
  charsMax: number
  /** Two locales of one page differ in it. */
  localized: boolean
}

type Kind = 'text' | 'dateTime' | 'number' | 'boolean' | 'texts' | 'other'

/** Front matter of all pages, folded into what a content type needs to know. */
export class FrontMatterSeen {
  readonly #keys = new Map<string, KeySeen>()
  /**
   * First value of each (page, key), as a short text, to see whether locales differ. Dropped per
   * key once they do.
   */
  readonly #first = new Map<string, Map<string, string>>()
  /** How many locales of each page were seen: a key missing in one of them differs too. */
  readonly #pages = new Map<string, number>()
  readonly #having = new Map<string, Map<string, number>>()

  /** False when there are too many keys; nothing of this page is kept then. */
  add(path: string, frontMatter: Readonly<Record<string, unknown>>): boolean {
    const fresh = Object.entries(frontMatter).filter(
      ([key, value]) => value !== null && !this.#keys.has(key),
    )
    if (this.#keys.size + fresh.length > keysMax) return false
    this.#pages.set(path, (this.#pages.get(path) ?? 0) + 1)
    for (const [key, value] of Object.entries(frontMatter)) {
      if (value === null) continue
      let seen = this.#keys.get(key)
      if (seen === undefined) {
        seen = { kinds: new Set(), charsMax: 0, localized: false }
        this.#keys.set(key, seen)
        this.#first.set(key, new Map())
        this.#having.set(key, new Map())
      }
      seen.kinds.add(kindOf(value))
      if (typeof value === 'string') seen.charsMax = Math.max(seen.charsMax, value.length)
      else if (Array.isArray(value))
        for (const item of value)
          if (typeof item === 'string') seen.charsMax = Math.max(seen.charsMax, item.length)
      this.#compare(path, key, value, seen)
    }
    return true
  }

  #compare(path: string, key: string, value: unknown, seen: KeySeen): void {
    if (seen.localized) return
    const first = this.#first.get(key)!
    const having = this.#having.get(key)!
    const text = JSON.stringify(value)
    const before = first.get(path)
    if (before === undefined) first.set(path, text)
    else if (before !== text) {
      seen.localized = true
      this.#first.delete(key)
      this.#having.delete(key)
      return
    }
    having.set(path, (having.get(path) ?? 0) + 1)
  }

  keys(): Map<
    string,
    { readonly kinds: ReadonlySet<Kind>; readonly charsMax: number; readonly localized: boolean }
  > {
    const result = new Map<string, KeySeen>()
    for (const [key, seen] of this.#keys) {
      const having = this.#having.get(key)
      const partly =
        having !== undefined && [...having].some(([path, count]) => count !== this.#pages.get(path))
      result.set(key, { ...seen, localized: seen.localized || partly })
    }
    return result
  }
}

const dateTime = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?$/

function kindOf(value: unknown): Kind {
  if (typeof value === 'string') return isDate(value) ? 'dateTime' : 'text'
  if (typeof value === 'number') return 'number'
  if (typeof value === 'boolean') return 'boolean'
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return 'texts'
  return 'other'
}

function isDate(text: string): boolean {
  return dateTime.test(text) && normalInstant(zoned(text)) !== null
}

/** Field names that the importer itself fills. */
const ownFields = ['path', 'slug', 'body', 'links'] as const

/** The field that a front-matter key goes into. `names` has what is taken already. */
function fieldName(key: string, type: string, taken: ReadonlySet<string>): string {
  const words = key
    .normalize('NFKD')
    .split(/[^A-Za-z0-9]+/)
    .filter((word) => word !== '')
  const camel = words
    .map((word, index) =>
      index === 0 ? word[0]!.toLowerCase() + word.slice(1) : word[0]!.toUpperCase() + word.slice(1),
    )
    .join('')
  const prefix = type.replaceAll(/-+(.)?/g, (_, letter: string | undefined) =>
    (letter ?? '').toUpperCase(),
  )
  const isReserved = (one: string): boolean =>
    isReservedName(one) || ownFields.some((own) => own === one)
  let name = /^[a-z]/.test(camel) ? camel.slice(0, 63) : `${prefix}${camel}`.slice(0, 63)
  if (isReserved(name)) name = `${prefix}${name[0]!.toUpperCase()}${name.slice(1)}`.slice(0, 63)
  let unique = name
  for (let number = 2; taken.has(unique); number += 1) unique = `${name.slice(0, 60)}${number}`
  return unique
}

export type InferredType = {
  readonly definition: ContentType
  /** Which field each front-matter key goes into. */
  readonly fieldOf: ReadonlyMap<string, Field>
  readonly notes: readonly string[]
}

/**
 * The content type that holds these pages: what `existing` has stays as it is, what is missing is
 * added. A key whose values are of several kinds, or structures, becomes a JSON field, which takes
 * them all.
 */
export function inferType(
  name: string,
  seen: FrontMatterSeen,
  existing: ContentType | null,
): InferredType {
  const notes: string[] = []
  const fields: Field[] = [...(existing?.fields ?? [])]
  const add = (field: Field): void => {
    const there = fields.find((candidate) => candidate.name === field.name)
    if (there === undefined) fields.push(field)
    else if (there.kind === field.kind && field.localized === true && there.localized !== true) {
      // Otherwise the locales would overwrite each other's value, in every run anew.
      fields[fields.indexOf(there)] = { ...there, localized: true }
      const made = fields.find(
        (candidate) => candidate.kind === 'slug' && candidate.from === there.name,
      )
      if (made !== undefined) fields[fields.indexOf(made)] = { ...made, localized: true }
      notes.push(
        `The field ${field.name} of the type ${name} differs between locales, so each locale gets a value of its own.`,
      )
    } else if (there.kind !== field.kind)
      notes.push(
        `The field ${field.name} of the type ${name} is ${there.kind}, and the pages would make it ${field.kind}; it stays as it is.`,
      )
  }
  const fieldOf = new Map<string, Field>()
  const taken = new Set<string>()
  add({ name: 'title', kind: 'text', localized: true, filterable: true })
  const keys = [...seen.keys()].sort(([left], [right]) => (left < right ? -1 : 1))
  for (const [key, what] of keys) {
    const field =
      key === 'title'
        ? fields.find((candidate) => candidate.name === 'title')!
        : fieldFor(fieldName(key, name, taken), what)
    if (field.name !== key)
      notes.push(`The front-matter key "${key}" goes into the field ${field.name}.`)
    taken.add(field.name)
    add(field)
    fieldOf.set(
      key,
      fields.find((candidate) => candidate.name === field.name)!,
    )
  }
  add({
    name: 'path',
    label: 'Path',
    kind: 'text',
    help: 'Where the page is in the folder that it was imported from.',
    unique: true,
    filterable: true,
  })
  add({ name: 'slug', label: 'Slug', kind: 'slug' })
  add({ name: 'body', label: 'Body', kind: 'markdown', localized: true })
  add({
    name: 'links',
    label: 'Links to',
    kind: 'reference',
    many: true,
    types: [name],
    onDelete: 'unset',
    localized: true,
    filterable: true,
  })
  const label = `${name[0]!.toUpperCase()}${name.slice(1).replaceAll('-', ' ')}`
  return {
    definition: { ...(existing ?? { name, label, titleField: 'title' }), fields },
    fieldOf,
    notes,
  }
}

function fieldFor(
  name: string,
  seen: {
    readonly kinds: ReadonlySet<Kind>
    readonly charsMax: number
    readonly localized: boolean
  },
): Field {
  const base = { name, ...(seen.localized ? { localized: true } : {}) }
  const kinds = [...seen.kinds]
  const short = seen.charsMax <= filterableCharsMax ? { filterable: true } : {}
  if (kinds.every((kind) => kind === 'dateTime'))
    return { ...base, kind: 'dateTime', filterable: true }
  if (kinds.every((kind) => kind === 'text' || kind === 'dateTime'))
    return { ...base, kind: 'text', ...short }
  if (kinds.length > 1) return { ...base, kind: 'json' }
  if (kinds[0] === 'number') return { ...base, kind: 'number', filterable: true }
  if (kinds[0] === 'boolean') return { ...base, kind: 'boolean', filterable: true }
  if (kinds[0] === 'texts')
    return { ...base, kind: 'list', of: { name: 'item', kind: 'text' }, ...short }
  return { ...base, kind: 'json' }
}

/**
 * A value as its field takes it. Dates become instants (a date alone is midnight UTC), and a JSON
 * or text field of an existing type takes what it can; the rest is left to the type's own
 * validation, which says what is wrong.
 */
export function fieldValue(field: Field, value: unknown): unknown {
  if (field.kind === 'dateTime' && typeof value === 'string')
    return normalInstant(zoned(value)) ?? value
  if (field.kind === 'text' && (typeof value === 'number' || typeof value === 'boolean'))
    return String(value)
  if (field.kind === 'list' && field.of.kind === 'text' && typeof value === 'string') return [value]
  return value
}

function zoned(text: string): string {
  const withT = text.replace(' ', 'T')
  return withT.length > 10 && !/(?:Z|[+-]\d\d:?\d\d)$/.test(withT) ? `${withT}Z` : withT
}
