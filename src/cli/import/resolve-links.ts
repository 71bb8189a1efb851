import type { Link } from '#cli/import/links.ts'

/** The pages of an import as far as links need them. */
export type PageTable = {
  /** Entry ids by page path. */
  readonly ids: ReadonlyMap<string, string>
  /** Entry ids by the name of the file, in lower case, for wikilinks; null: several have it. */
  readonly names: ReadonlyMap<string, string | null>
  /** First segments of absolute links that name a locale, in lower case. */
  readonly locales: ReadonlySet<string>
  /** `https://docs.example.org`: links that begin with it lead to pages. Null: none do. */
  readonly siteUrl: string | null
}

export type Resolved = {
  /** Ids of the pages linked to, each once, in the order of the text, without the page itself. */
  readonly ids: readonly string[]
  /** Links to pages that the import does not have. */
  readonly unresolved: readonly Link[]
  /** Images and links to other files of the source. */
  readonly files: readonly Link[]
}

const pageExtension = /\.(?:mdx?|markdown|html?)$/i
const fileExtension = /\.[A-Za-z0-9]{1,10}$/

/** Collects the ids of pages by their name; `Folder/Note` counts under `note`. */
export function namesOf(ids: ReadonlyMap<string, string>): Map<string, string | null> {
  const names = new Map<string, string | null>()
  for (const [path, id] of ids) {
    const name = (path.split('/').at(-1) ?? '').toLowerCase()
    names.set(name, names.has(name) ? null : id)
  }
  return names
}

/**
 * Finds the entries that a page's links lead to. Links to other sites and to places in the same
 * page are neither kept nor reported. A relative link with a file extension is relative to the
 * file; without one, to the page's URL (`/guides/x/`) and, should nothing be there, to the file:
 * both conventions are in use.
 */
export function resolveLinks(
  links: readonly Link[],
  from: { readonly path: string; readonly isIndex: boolean },
  table: PageTable,
): Resolved {
  const ids = new Set<string>()
  const unresolved: Link[] = []
  const files: Link[] = []
  const own = table.ids.get(from.path)
  for (const link of links) {
    const target = internalTarget(link.target, table.siteUrl)
    if (target === null) continue
    const id = isWiki(link)
      ? wikiPage(target, table)
      : candidates(target, from, table.locales)
          .map((path) => table.ids.get(path))
          .find((found) => found !== undefined)
    if (id !== undefined) {
      if (id !== own) ids.add(id)
    } else if (isFile(link, target)) files.push(link)
    else unresolved.push(link)
  }
  return { ids: [...ids], unresolved, files }
}

function isWiki(link: Link): boolean {
  return link.kind === 'wiki' || link.kind === 'embed'
}

function isFile(link: Link, target: string): boolean {
  if (link.kind === 'image') return true
  return fileExtension.test(target) && !pageExtension.test(target)
}

function wikiPage(target: string, table: PageTable): string | undefined {
  const path = pagePath(target.split('/'))
  return (
    table.ids.get(path) ??
    table.names.get((path.split('/').at(-1) ?? '').toLowerCase()) ??
    undefined
  )
}

/**
 * Returns the path that a link names inside the site; null for other sites, other schemes and
 * places in the same page.
 */
function internalTarget(target: string, siteUrl: string | null): string | null {
  let rest = target.trim()
  if (siteUrl !== null && (rest === siteUrl || rest.startsWith(`${siteUrl}/`)))
    rest = rest.slice(siteUrl.length) || '/'
  if (/^[A-Za-z][A-Za-z0-9+.-]*:/.test(rest) || rest.startsWith('//')) return null
  if (rest.startsWith('#') || rest.startsWith('?')) return null
  return rest.replace(/[?#].*$/s, '')
}

function candidates(
  target: string,
  from: { readonly path: string; readonly isIndex: boolean },
  locales: ReadonlySet<string>,
): string[] {
  if (target === '') return []
  const decoded = decode(target)
  const own = from.path === 'index' ? [] : from.path.split('/')
  if (decoded.startsWith('/')) {
    const segments = normalized(decoded.split('/'))
    if (segments === null) return []
    const [first = ''] = segments
    const forms = locales.has(first.toLowerCase()) ? [segments.slice(1), segments] : [segments]
    // The site may begin in any folder above the page.
    return own
      .flatMap((_, depth) => forms.map((form) => pagePath([...own.slice(0, depth), ...form])))
      .concat(own.length === 0 ? forms.map(pagePath) : [])
  }
  const folder = from.isIndex ? own : own.slice(0, -1)
  const asUrl = normalized([...own, ...decoded.split('/')])
  const asFile = normalized([...folder, ...decoded.split('/')])
  const inOrder = pageExtension.test(decoded) ? [asFile, asUrl] : [asUrl, asFile]
  return inOrder.flatMap((segments) => (segments === null ? [] : [pagePath(segments)]))
}

/**
 * Returns the path of a page from its segments, without extension. A folder's `index` or `_index`
 * is the folder, and that of the root is `index`. The path is in Unicode form NFC, since file
 * systems and editors write the same name in other forms.
 */
export function pagePath(segments: readonly string[]): string {
  const clean = segments
    .filter((segment) => segment !== '')
    .map((segment) => segment.normalize('NFC'))
  const last = clean.at(-1)
  if (last === undefined) return 'index'
  const bare = last.replace(pageExtension, '')
  const path = /^_?index$/i.test(bare) ? clean.slice(0, -1) : [...clean.slice(0, -1), bare]
  return path.length === 0 ? 'index' : path.join('/')
}

/** Resolves `.` and `..`; null when it would leave the site. */
function normalized(segments: readonly string[]): string[] | null {
  const result: string[] = []
  for (const segment of segments) {
    if (segment === '' || segment === '.') continue
    if (segment !== '..') result.push(segment)
    else if (result.pop() === undefined) return null
  }
  return result
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    // A single % stands for itself.
    return text
  }
}
