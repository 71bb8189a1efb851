import { ImportPlanError } from '#cli/import/errors.ts'
import { pagePath } from '#cli/import/resolve-links.ts'
import { memoizeBounded } from '#lib/memoize-bounded.ts'

const pageExtension = /\.(?:mdx?|markdown)$/i
/** Folders looked at as the one that holds the locales, those with most pages first. */
const levelsMax = 20
/** Names in a message. */
const namesMax = 5

/** CLDR knows the language `fr` and no language `faq`. */
const languages = new Intl.DisplayNames(['en'], { type: 'language', fallback: 'none' })

/** True for a BCP 47 tag of a language that exists: `en`, `pt-br`, `zh-Hant-TW`. */
export function isLanguageTag(text: string): boolean {
  if (!/^[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*$/.test(text)) return false
  try {
    return languages.of(text.split('-')[0]!) !== undefined && languages.of(text) !== undefined
  } catch {
    // The text has not even the form of a tag.
    return false
  }
}

/** How files lie in the source: what of a path is the page, and what the locale. */
export type Layout = {
  /** The folder that all paths are relative to, with `/` at its end: the top of an archive. */
  readonly root: string
  /** The folder whose folders are locales, with `/` at its end; null: there are no locales. */
  readonly localesUnder: string | null
  /** The names of those folders, in lower case. */
  readonly locales: ReadonlySet<string>
}

/** Pages that earlier imports made: by `pageKey`. */
export type KnownPages = ReadonlySet<string>

export function pageKey(locale: string, path: string): string {
  return `${locale.toLowerCase()} ${path}`
}

type LayoutOptions = {
  readonly isArchive: boolean
  /** The caller's `--locales-from-folders`; null: not given. */
  readonly wish: boolean | null
  readonly known: KnownPages
  readonly defaultLocale: string
  /** Codes of the locales that exist. */
  readonly localeCodes: ReadonlySet<string>
  readonly type: string
}

/**
 * Finds how the files lie. A layout under which earlier imports made pages is kept, so that a page
 * stays the same entry whatever else comes into the source. At the first import, folders are
 * locales if all folders beside each other are named as languages. Where only some are and hold the
 * same pages, the import stops and asks. Throws `ImportPlanError`.
 */
export function findLayout(paths: readonly string[], options: LayoutOptions): Layout {
  const kept = options.known.size === 0 ? null : keptLayout(paths, options)
  if (kept === null) return newLayout(paths, options)
  const { wish, type } = options
  if (wish !== null && wish !== (kept.localesUnder !== null))
    throw new ImportPlanError(
      `The pages of the type "${type}" were imported ${wish ? 'without' : 'with'} locale ` +
        `folders. Leave ${wish ? '--locales-from-folders' : '--no-locales-from-folders'} out, ` +
        `or choose another --type.`,
      { type },
    )
  return kept
}

/** The layout under which most files are pages that exist; null: under none. */
function keptLayout(paths: readonly string[], options: LayoutOptions): Layout | null {
  let best: Layout | null = null
  let most = 0
  for (const root of rootsOf(paths, options.isArchive)) {
    for (const localesUnder of [null, ...levelsOf(paths, root)]) {
      const layout = layoutAt(paths, root, localesUnder, options.localeCodes)
      const count = paths.filter((path) => isKnown(path, layout, options)).length
      if (count <= most) continue
      best = layout
      most = count
    }
  }
  return best
}

function isKnown(path: string, layout: Layout, options: LayoutOptions): boolean {
  const place = placeOf(path, layout)
  if (place === null) return false
  return options.known.has(pageKey(place.locale ?? options.defaultLocale, place.path))
}

function rootsOf(paths: readonly string[], isArchive: boolean): string[] {
  if (!isArchive) return ['']
  const tops = new Set(paths.filter((path) => path.includes('/')).map(topOf))
  return ['', ...[...tops].slice(0, levelsMax)]
}

function topOf(path: string): string {
  return path.slice(0, path.indexOf('/') + 1)
}

/** Folders that have a folder named as a language. */
function levelsOf(paths: readonly string[], root: string): string[] {
  const isLanguage = memoizeBounded(1_000, isLanguageTag)
  const pages = new Map<string, number>()
  for (const path of paths) {
    if (!path.startsWith(root)) continue
    const segments = path.slice(root.length).split('/')
    for (let depth = 0; depth < segments.length - 1; depth += 1) {
      if (!isLanguage(segments[depth]!)) continue
      const level = segments.slice(0, depth).map((segment) => `${segment}/`)
      pages.set(level.join(''), (pages.get(level.join('')) ?? 0) + 1)
      break
    }
  }
  const levels = [...pages].toSorted(([, left], [, right]) => right - left)
  return levels.slice(0, levelsMax).map(([level]) => level)
}

function layoutAt(
  paths: readonly string[],
  root: string,
  localesUnder: string | null,
  localeCodes: ReadonlySet<string>,
): Layout {
  if (localesUnder === null) return { root, localesUnder, locales: new Set() }
  const codes = new Set([...localeCodes].map((code) => code.toLowerCase()))
  const folders = foldersAt(paths, `${root}${localesUnder}`)
  const locales = folders.filter((name) => isShortTag(name) || codes.has(name.toLowerCase()))
  return { root, localesUnder, locales: lowered(locales) }
}

function lowered(names: readonly string[]): Set<string> {
  return new Set(names.map((name) => name.toLowerCase()))
}

/**
 * Tags of two letters. Those of three (`src`, `bin`, `man`, `new`) are names of folders far more
 * often than of languages.
 */
function isShortTag(name: string): boolean {
  return /^[a-z]{2}(?:-|$)/.test(name) && isLanguageTag(name)
}

function foldersAt(paths: readonly string[], folder: string): string[] {
  const names = new Set<string>()
  for (const path of paths) {
    if (!path.startsWith(folder)) continue
    const rest = path.slice(folder.length)
    if (rest.includes('/')) names.add(rest.slice(0, rest.indexOf('/')))
  }
  return [...names]
}

function newLayout(paths: readonly string[], options: LayoutOptions): Layout {
  const { wish, isArchive, type } = options
  const [first = ''] = paths
  const top = topOf(first)
  const isWrapped = isArchive && top !== '' && paths.every((path) => path.startsWith(top))
  const root = isWrapped && !isLanguageTag(top.slice(0, -1)) ? top : ''
  const none: Layout = { root, localesUnder: null, locales: new Set() }
  if (wish === false) return none
  const level = firstLevel(paths, root)
  const folders = foldersAt(paths, `${root}${level}`)
  const tags = folders.filter(isLanguageTag)
  const locales: Layout = { root, localesUnder: level, locales: lowered(tags) }
  if (wish === true) return locales
  const short = tags.filter(isShortTag)
  if (short.length === 0) return none
  const others = folders.filter((name) => !tags.includes(name))
  const pages = paths.filter((path) => path.startsWith(`${root}${level}`))
  if (others.length === 0) return locales
  if (!isMirrored(pages, root + level, short)) return none
  throw new ImportPlanError(
    `The folders ${quoted(short)} are named as languages and hold the same pages as others, ` +
      `and ${quoted(others)} beside them ${others.length === 1 ? 'is' : 'are'} not. Say ` +
      `--locales-from-folders to make ${quoted(short)} locales (the other pages are in the ` +
      `default locale), or --no-locales-from-folders to make all folders part of the page's ` +
      `path. Later imports keep that.`,
    { type, folders: short },
  )
}

function quoted(names: readonly string[]): string {
  const shown = names.slice(0, namesMax).map((name) => `"${name}"`)
  return `${shown.join(', ')}${names.length > namesMax ? ', …' : ''}`
}

/** The first folder, going down where there is only one, that has folders named as languages. */
function firstLevel(paths: readonly string[], root: string): string {
  let level = ''
  for (;;) {
    const inside = paths.filter((path) => path.startsWith(root + level))
    const folders = foldersAt(inside, root + level)
    const isOnly = folders.length === 1 && !isLanguageTag(folders[0]!)
    if (!isOnly || inside.length < paths.length) return level
    const next = `${level}${folders[0]!}/`
    if (!inside.every((path) => path.startsWith(root + next))) return level
    level = next
  }
}

/** True if a page lies under two of the folders, or under one and beside them. */
function isMirrored(paths: readonly string[], level: string, folders: readonly string[]): boolean {
  const seen = new Set<string>()
  for (const path of paths) {
    const rest = path.slice(level.length)
    const folder = folders.find((name) => rest.startsWith(`${name}/`))
    const page = (folder === undefined ? rest : rest.slice(folder.length + 1)).replace(
      pageExtension,
      '',
    )
    const key = `${folder ?? ''} ${page}`
    if (seen.has(page) && !seen.has(key)) return true
    seen.add(page)
    seen.add(key)
  }
  return false
}

export type Place = {
  readonly path: string
  /** Null: the default locale. */
  readonly locale: string | null
  readonly isIndex: boolean
}

/** Which page a file is, and in which locale. Null: it lies outside the layout's root. */
export function placeOf(filePath: string, layout: Layout): Place | null {
  if (!filePath.startsWith(layout.root)) return null
  const inside = filePath.slice(layout.root.length)
  const level = layout.localesUnder
  const segments = inside.split('/')
  const at = level === null ? 0 : level.split('/').length - 1
  const isLocale =
    level !== null &&
    inside.startsWith(level) &&
    segments.length > at + 1 &&
    layout.locales.has(segments[at]!.toLowerCase())
  const locale = isLocale ? segments.splice(at, 1)[0]! : null
  const file = segments.at(-1) ?? ''
  return {
    path: pagePath([...segments.slice(0, -1), file.replace(pageExtension, '')]),
    locale,
    isIndex: /^_?index\./i.test(file),
  }
}
