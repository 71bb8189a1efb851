import { parseDocument } from 'yaml'

/**
 * Front matter is a few lines; a longer block is a page that begins with a rule, or an attack on
 * the parser: four times as long takes it sixteen times as long.
 */
const frontMatterCharsMax = 50_000
/** Aliases may be used, but not to blow a few lines up to gigabytes. */
const aliasesMax = 50

export type Page = {
  readonly frontMatter: Readonly<Record<string, unknown>>
  /**
   * Everything after the front matter, without the blank lines before it, as it stands in the file.
   */
  readonly body: string
}

export type PageParse =
  | { readonly ok: true; readonly page: Page }
  | { readonly ok: false; readonly reason: string }

const opening = /^\uFEFF?---[ \t]*\r?\n/
const closing = /^(?:---|\.\.\.)[ \t]*(?:\r?\n|$)/m

/**
 * Splits a page into its YAML front matter and its body. A text without front matter is all body.
 * Never throws: what cannot be read comes back as a reason.
 */
export function parsePage(text: string): PageParse {
  const start = opening.exec(text)
  if (start === null)
    return { ok: true, page: { frontMatter: {}, body: text.replace(/^\uFEFF/, '') } }
  const rest = text.slice(start[0].length)
  const end = closing.exec(rest.slice(0, frontMatterCharsMax))
  if (end === null)
    return { ok: false, reason: 'The front matter is opened by --- and never closed.' }
  return withFrontMatter(
    rest.slice(0, end.index),
    withoutBlankLines(rest.slice(end.index + end[0].length)),
  )
}

function withoutBlankLines(text: string): string {
  return text.replace(/^(?:[ \t]*\r?\n)+/, '')
}

/** The front matter with the lines around it; null where there is none. */
function headOf(text: string): string | null {
  const start = opening.exec(text)
  if (start === null) return null
  const end = closing.exec(text.slice(start[0].length, start[0].length + frontMatterCharsMax))
  return end === null ? null : text.slice(0, start[0].length + end.index + end[0].length)
}

function withFrontMatter(yaml: string, body: string): PageParse {
  try {
    const document = parseDocument(yaml, {
      strict: true,
      uniqueKeys: true,
      logLevel: 'silent',
      prettyErrors: true,
    })
    const [error] = document.errors
    if (error !== undefined)
      return { ok: false, reason: `The front matter is not YAML: ${firstLine(error.message)}` }
    const value: unknown = document.toJS({ maxAliasCount: aliasesMax })
    if (value === null || value === undefined) return { ok: true, page: { frontMatter: {}, body } }
    if (typeof value !== 'object' || Array.isArray(value))
      return { ok: false, reason: 'The front matter is not a mapping of keys to values.' }
    return { ok: true, page: { frontMatter: plain(value) as Record<string, unknown>, body } }
  } catch (error) {
    return {
      ok: false,
      reason: `The front matter is not YAML: ${firstLine(error instanceof Error ? error.message : String(error))}`,
    }
  }
}

/**
 * YAML knows values that JSON does not: numbers past doubles, dates, binary, keys that are not
 * text.
 */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain)
  if (value instanceof Date) return value.toISOString()
  if (typeof value === 'bigint') return String(value)
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value)
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  if (typeof value === 'object' && value !== null) {
    const entries = value instanceof Map ? [...value.entries()] : Object.entries(value)
    return Object.fromEntries(entries.map(([key, item]) => [String(key), plain(item)]))
  }
  return value
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text
}

/** Pages whose front matter is remembered between two passes; the rest is read again. */
const rememberedMax = 20_000

/**
 * Reads pages, and those that begin as they did before without parsing YAML again: that is half of
 * what a page takes.
 */
export class PageReader {
  readonly #known = new Map<
    string,
    { readonly head: string; readonly frontMatter: Page['frontMatter'] }
  >()

  /** `path` says which page it is. */
  read(path: string, text: string): PageParse {
    const known = this.#known.get(path)
    if (known !== undefined && text.startsWith(known.head))
      return {
        ok: true,
        page: {
          frontMatter: known.frontMatter,
          body: withoutBlankLines(text.slice(known.head.length)),
        },
      }
    const parsed = parsePage(text)
    if (!parsed.ok || this.#known.size >= rememberedMax) return parsed
    const head = headOf(text)
    // A copy: a slice would keep the whole page in memory. Without a newline at its end it could be
    // the beginning of something else.
    if (head?.endsWith('\n') === true)
      this.#known.set(path, {
        head: Buffer.from(head, 'utf8').toString('utf8'),
        frontMatter: parsed.page.frontMatter,
      })
    return parsed
  }
}
