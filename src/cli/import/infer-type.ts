import type { ContentType, Field } from '#content/content-type.ts'
import { isReservedName } from '#content/model/type-check.ts'
import { instantOf } from '#cli/import/instant.ts'

/**
 * More distinct keys than this is data, not front matter. A type has 200 fields; a key takes two
 * for a list, and five are the importer's own.
 */
const keysMax = 97
/** Bytes of a text that is filtered by; an index has a limit to what it holds. */
const filterableBytesMax = 500

/** One front-matter key over all pages. It grows with the number of keys, not of pages. */
type KeySeen = {
  readonly kinds: Set<Kind>
  bytesMax: number
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
        seen = { kinds: new Set(), bytesMax: 0, localized: false }
        this.#keys.set(key, seen)
        this.#first.set(key, new Map())
        this.#having.set(key, new Map())
      }
      seen.kinds.add(kindOf(value))
      if (typeof value === 'string')
        seen.bytesMax = Math.max(seen.bytesMax, Buffer.byteLength(value))
      else if (Array.isArray(value))
        for (const item of value)
          if (typeof item === 'string')
            seen.bytesMax = Math.max(seen.bytesMax, Buffer.byteLength(item))
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
    { readonly kinds: ReadonlySet<Kind>; readonly bytesMax: number; readonly localized: boolean }
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

function kindOf(value: unknown): Kind {
  if (typeof value === 'string') return instantOf(value) === null ? 'text' : 'dateTime'
  if (typeof value === 'number') return 'number'
  if (typeof value === 'boolean') return 'boolean'
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return 'texts'
  return 'other'
}

/** Fields that the importer itself fills. */
const ownFields = ['path', 'slug', 'body', 'links'] as const

/** Returns the name of the field for a front-matter key; `taken` has the names in use. */
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
        `The field ${field.name} of the type ${name} differs between locales, so each locale ` +
          `gets a value of its own.`,
      )
    } else if (there.kind !== field.kind)
      notes.push(
        `The field ${field.name} of the type ${name} is ${there.kind}, and the pages would ` +
          `make it ${field.kind}; it stays as it is.`,
      )
  }
  const fieldOf = new Map<string, Field>()
  const taken = new Set<string>()
  const allKeys = seen.keys()
  const titleBytes = allKeys.get('title')?.bytesMax ?? 0
  const title = { name: 'title', kind: 'text', localized: true } as const
  add(titleBytes <= filterableBytesMax ? { ...title, filterable: true } : title)
  // Keys that are names as they stand come first, so that `Tags` does not take the place of `tags`.
  const isName = (key: string): boolean => fieldName(key, name, new Set()) === key
  const keys = [...allKeys].sort(
    ([left], [right]) => Number(isName(right)) - Number(isName(left)) || (left < right ? -1 : 1),
  )
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
  for (const field of ownFieldsOf(name)) add(field)
  const label = `${name[0]!.toUpperCase()}${name.slice(1).replaceAll('-', ' ')}`
  return {
    definition: { ...(existing ?? { name, label, titleField: 'title' }), fields },
    fieldOf,
    notes,
  }
}

const textKinds: ReadonlySet<Kind> = new Set(['text', 'dateTime', 'number'])

function fieldFor(
  name: string,
  seen: {
    readonly kinds: ReadonlySet<Kind>
    readonly bytesMax: number
    readonly localized: boolean
  },
): Field {
  const base = { name, ...(seen.localized ? { localized: true } : {}) }
  const kinds = [...seen.kinds]
  const short = seen.bytesMax <= filterableBytesMax ? { filterable: true } : {}
  if (kinds.every((kind) => kind === 'dateTime'))
    return { ...base, kind: 'dateTime', filterable: true }
  // A number beside texts is one whose digits matter: 1.10 is text, so 1.2 is text as well.
  if (kinds.length > 1 && kinds.every((kind) => textKinds.has(kind)))
    return { ...base, kind: 'text', ...short }
  if (kinds[0] === 'text' && kinds.length === 1) return { ...base, kind: 'text', ...short }
  if (kinds.length > 1) return { ...base, kind: 'json' }
  if (kinds[0] === 'number') return { ...base, kind: 'number', filterable: true }
  if (kinds[0] === 'boolean') return { ...base, kind: 'boolean', filterable: true }
  if (kinds[0] === 'texts')
    return { ...base, kind: 'list', of: { name: 'item', kind: 'text' }, ...short }
  return { ...base, kind: 'json' }
}

/**
 * Returns a value as its field takes it. Dates become instants, and a JSON or text field of an
 * existing type takes what it can. The rest is left to the type's own validation, which says what
 * is wrong.
 */
export function fieldValue(field: Field, value: unknown): unknown {
  if (field.kind === 'dateTime') return instantOf(value) ?? value
  if (field.kind === 'number' && typeof value === 'string') return exactNumber(value) ?? value
  if (field.kind === 'text' && (typeof value === 'number' || typeof value === 'boolean'))
    return String(value)
  if (field.kind === 'list' && field.of.kind === 'text' && typeof value === 'string') return [value]
  return value
}

/** The number that a text such as `01` or `1.50` means; null where a double cannot hold it. */
function exactNumber(text: string): number | null {
  const match = /^[+-]?0*(\d{1,15}?)(?:\.(\d*?)0*)?$/.exec(text.trim())
  if (match === null || `${match[1]}${match[2] ?? ''}`.length > 15) return null
  return Number(text)
}

/** Returns the fields that the importer fills by itself. */
function ownFieldsOf(type: string): Field[] {
  return [
    {
      name: 'path',
      label: 'Path',
      kind: 'text',
      help: 'Where the page is in the folder that it was imported from.',
      unique: true,
      filterable: true,
    },
    { name: 'slug', label: 'Slug', kind: 'slug' },
    { name: 'body', label: 'Body', kind: 'markdown', localized: true },
    {
      name: 'links',
      label: 'Links to',
      kind: 'reference',
      many: true,
      types: [type],
      onDelete: 'unset',
      localized: true,
      filterable: true,
    },
  ]
}
