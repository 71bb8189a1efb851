import type { Link } from '#cli/import/links.ts'

/** The pages of an import as far as links need them. */
export type PageTable = {
  /** Entry id by page path. */
  readonly ids: ReadonlyMap<string, string>
  /** First segments of absolute links that name a locale, in lower case. */
  readonly locales: ReadonlySet<string>
  /**
   * `https://docs.example.org`: links that begin with it are links between pages. Null: none do.
   */
  readonly siteUrl: string | null
}

export type Resolved = {
  /** Ids of the pages linked to, each once, in the order of the text, without the page itself. */
  readonly ids: readonly string[]
  readonly unresolved: readonly Link[]
}

const pageExtension = /\.(?:mdx?|markdown|html?)$/i

/**
 * Which entries a page's links mean. Links to other sites and to places in the same page are
 * neither kept nor reported. A relative link with a file extension is relative to the file; without
 * one, to the page's URL (`/guides/x/`) and, should nothing be there, to the file: both conventions
 * are in use.
 */
export function resolveLinks(
  links: readonly Link[],
  from: { readonly path: string; readonly isIndex: boolean },
  table: PageTable,
): Resolved {
  const ids = new Set<string>()
  const unresolved: Link[] = []
  const own = table.ids.get(from.path)
  for (const link of links) {
    const target = internalTarget(link.target, table.siteUrl)
    if (target === null) continue
    const id = candidates(target, from, table.locales)
      .map((path) => table.ids.get(path))
      .find((found) => found !== undefined)
    if (id === undefined) unresolved.push(link)
    else if (id !== own) ids.add(id)
  }
  return { ids: [...ids], unresolved }
}

/**
 * The path that a link names inside the site; null for other sites, other schemes and places in the
 * same page.
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
  if (decoded.startsWith('/')) {
    const segments = normalized(decoded.split('/'))
    if (segments === null) return []
    const [first = ''] = segments
    const whole = pagePath(segments)
    return locales.has(first.toLowerCase()) ? [pagePath(segments.slice(1)), whole] : [whole]
  }
  const own = from.path === 'index' ? [] : from.path.split('/')
  const folder = from.isIndex ? own : own.slice(0, -1)
  const asUrl = normalized([...own, ...decoded.split('/')])
  const asFile = normalized([...folder, ...decoded.split('/')])
  const inOrder = pageExtension.test(decoded) ? [asFile, asUrl] : [asUrl, asFile]
  return inOrder.flatMap((segments) => (segments === null ? [] : [pagePath(segments)]))
}

/**
 * The path of a page from its segments: without extension, and a folder's `index` is the folder.
 * The root is `index`. In Unicode form NFC: file systems and editors write the same name in other
 * forms.
 */
export function pagePath(segments: readonly string[]): string {
  const clean = segments
    .filter((segment) => segment !== '')
    .map((segment) => segment.normalize('NFC'))
  const last = clean.at(-1)
  if (last === undefined) return 'index'
  const bare = last.replace(pageExtension, '')
  const path = bare.toLowerCase() === 'index' ? clean.slice(0, -1) : [...clean.slice(0, -1), bare]
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
    // A stray % stands for itself.
    return text
  }
}
