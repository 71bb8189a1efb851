import { derivedId } from '#cli/import/derived-id.ts'
import { pagePath } from '#cli/import/resolve-links.ts'
import { makeSlug } from '#content/validation/slug.ts'

const pageExtension = /\.(?:mdx?|markdown)$/i

/**
 * Names of languages, to tell the folder `fr` from the folder `faq`: CLDR knows only one of them.
 */
const languages = new Intl.DisplayNames(['en'], { type: 'language', fallback: 'none' })

/** True for a BCP 47 tag of a language that exists: `en`, `pt-br`, `zh-Hant-TW`. */
export function isLanguageTag(text: string): boolean {
  let is = asked.get(text)
  if (is === undefined) {
    is = isLanguage(text)
    if (asked.size < askedMax) asked.set(text, is)
  }
  return is
}

/**
 * Asking CLDR takes a tenth of a millisecond, and the same few folders are asked about for every
 * page.
 */
const asked = new Map<string, boolean>()
const askedMax = 1_000

function isLanguage(text: string): boolean {
  if (!/^[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*$/.test(text)) return false
  try {
    return languages.of(text.split('-')[0]!) !== undefined && languages.of(text) !== undefined
  } catch {
    // Not even shaped as a tag.
    return false
  }
}

export type Layout = {
  /** Folders above the pages that say nothing: `docs/`. */
  readonly prefix: string
  readonly localeFolders: boolean
}

/**
 * Finds how the files lie: which leading folders all have in common, and whether the next ones are
 * locales. `wish` is what the user asked for; null: locales if every folder there is named as a
 * language.
 */
export function findLayout(paths: readonly string[], wish: boolean | null): Layout {
  const split = paths.map((path) => path.split('/'))
  const [first = []] = split
  let depth = 0
  while (
    depth < first.length - 1 &&
    split.every((segments) => segments.length > depth + 1 && segments[depth] === first[depth])
  ) {
    if (wish !== false && isLanguageTag(first[depth]!)) break
    depth += 1
  }
  const prefix = first
    .slice(0, depth)
    .map((segment) => `${segment}/`)
    .join('')
  const folders = new Set(
    split.filter((segments) => segments.length > depth + 1).map((segments) => segments[depth]!),
  )
  const allLanguages = folders.size > 0 && [...folders].every(isLanguageTag)
  return { prefix, localeFolders: wish ?? allLanguages }
}

export type Place = {
  readonly path: string
  readonly locale: string | null
  readonly isIndex: boolean
}

/** Which page a file is, and in which locale; locale null: the default one. */
export function placeOf(filePath: string, layout: Layout): Place {
  const segments = filePath.slice(layout.prefix.length).split('/')
  const locale =
    layout.localeFolders && segments.length > 1 && isLanguageTag(segments[0]!)
      ? segments.shift()!
      : null
  const isIndex = /^index\./i.test(segments.at(-1) ?? '')
  return {
    path: pagePath([...segments.slice(0, -1), (segments.at(-1) ?? '').replace(pageExtension, '')]),
    locale,
    isIndex,
  }
}

/** The id of the entry for a page path. The same page of the same type always has it. */
export function pageId(type: string, path: string): string {
  return derivedId('markdown', type, path)
}

/**
 * Slugs for page paths: `guides/images` becomes `guides-images`. Paths that would share a slug all
 * get a few characters of their id, so that which slug a page has depends on the pages there are
 * and not on their order.
 */
export function slugsOf(ids: ReadonlyMap<string, string>): Map<string, string> {
  const bySlug = new Map<string, string[]>()
  for (const path of ids.keys()) {
    const slug = makeSlug(path)
    const sharing = bySlug.get(slug)
    if (sharing === undefined) bySlug.set(slug, [path])
    else sharing.push(path)
  }
  const result = new Map<string, string>()
  for (const [slug, paths] of bySlug) {
    for (const path of paths)
      result.set(
        path,
        paths.length === 1 && slug !== ''
          ? slug
          : `${slug === '' ? 'page' : slug}-${ids.get(path)!.slice(0, 8)}`,
      )
  }
  return result
}
