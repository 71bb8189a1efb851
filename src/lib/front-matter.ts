import { getStaticTOMLValue, parseTOML, traverseNodes } from 'toml-eslint-parser'
import { isScalar, parseDocument, visit } from 'yaml'

/**
 * Front matter is a few lines. A longer block is a page that begins with a rule, or an attack on
 * the parser: four times as long takes it sixteen times as long.
 */
const frontMatterCharsMax = 50_000
/** YAML aliases may be used, but not to expand a few lines to gigabytes. */
const aliasesMax = 50

export type FrontMatter = Readonly<Record<string, unknown>>

export type Page = {
  readonly frontMatter: FrontMatter
  /** The text after the front matter, without the blank lines before it. */
  readonly body: string
}

export type PageParse =
  | { readonly ok: true; readonly page: Page }
  | { readonly ok: false; readonly reason: string }

type Format = 'YAML' | 'TOML' | 'JSON' | 'lines'

/** A block of front matter as it stands in the text. */
type Block = {
  readonly format: Format
  readonly source: string
  /** Where the body begins. */
  readonly end: number
}

/** `reason`: the text begins like front matter that cannot be read. Null: it has none. */
type Found = Block | { readonly reason: string } | null

/**
 * Splits a page into its front matter and its body. The forms read are those of Jekyll (YAML
 * between `---`), Hugo and Zola (TOML between `+++`, a JSON object), gray-matter (`---json`,
 * `---toml`), Hexo (JSON before `;;;`), Pelican and MultiMarkdown (`Title: …` lines), Nikola
 * (`.. title:` in a comment), Pandoc (`% title`), and MDX (`export const frontmatter = {…}`). Blank
 * lines and HTML comments may stand before it. A text without front matter is all body. Front
 * matter that cannot be read is a reason to refuse the page: published as text it would show what
 * was not meant to be seen. Numbers whose digits JavaScript would change stay text. Never throws.
 */
export function parsePage(text: string): PageParse {
  const found = findBlock(text)
  if (found === null) return allBody(text)
  if ('reason' in found) return { ok: false, reason: found.reason }
  const value = valueOf(found)
  if (!value.ok)
    return found.format === 'YAML' && !looksLikeKeys(found.source) ? allBody(text) : value
  return {
    ok: true,
    page: { frontMatter: value.frontMatter, body: withoutBlankLines(text.slice(found.end)) },
  }
}

function allBody(text: string): PageParse {
  return { ok: true, page: { frontMatter: {}, body: text.replace(/^\uFEFF/, '') } }
}

function withoutBlankLines(text: string): string {
  return text.replace(/^(?:[ \t]*\r?\n)+/, '')
}

/** A line such as `title: x`, `"title" = x`: prose between two rules has none. */
function looksLikeKeys(source: string): boolean {
  return /^\s{0,20}(?:[-*] )?["']?[\w .$@-]{1,100}["']?\s{0,20}[:=](?:\s|$)/m.test(source)
}

function findBlock(text: string): Found {
  const head = text.slice(0, frontMatterCharsMax * 2)
  const start = startOf(head)
  if ('source' in start) return start
  const rest = head.slice(start.at)
  return (
    fenced(rest, start.at) ??
    object(rest, start.at) ??
    exported(rest, start.at) ??
    headerLines(rest, start.at)
  )
}

/** Passes over blank lines and comments; a comment of Nikola's is front matter itself. */
function startOf(head: string): Block | { readonly at: number } {
  let at = head.startsWith('\uFEFF') ? 1 : 0
  for (;;) {
    const blank = /^[ \t]*\r?\n/.exec(head.slice(at, at + 1_000))
    if (blank !== null) {
      at += blank[0].length
      continue
    }
    if (!head.startsWith('<!--', at)) return { at }
    const end = head.indexOf('-->', at)
    if (end < 0) return { at }
    const comment = head.slice(at + 4, end)
    at = end + 3
    if (/^\s*\.\. [\w-]+:/.test(comment))
      return { format: 'lines', source: comment.replaceAll(/^\s*\.\. /gm, ''), end: at }
  }
}

const closings: Readonly<Record<string, RegExp>> = {
  '---': /^(?:---|\.\.\.)[ \t]*(?:\r?\n|$)/m,
  '+++': /^\+\+\+[ \t]*(?:\r?\n|$)/m,
  ';;;': /^;;;[ \t]*(?:\r?\n|$)/m,
}

const languages: Readonly<Record<string, Format>> = {
  '': 'YAML',
  yaml: 'YAML',
  yml: 'YAML',
  json: 'JSON',
  toml: 'TOML',
}

function fenced(rest: string, at: number): Found {
  const hexo = /^"[^"\n]{1,200}"\s{0,20}:/.test(rest) && closings[';;;']!.test(rest)
  const opening = hexo ? ['', ';;;', ''] : /^(---|\+\+\+|;;;)([A-Za-z]*)[ \t]*\r?\n/.exec(rest)
  if (opening === null) return null
  const [line = '', fence = '', language = ''] = opening
  const format = formatOf(fence, language)
  if (format === undefined)
    return { reason: `The front matter is written in ${language}; YAML, TOML and JSON are read.` }
  const inside = rest.slice(line.length)
  const end = closings[fence]!.exec(inside.slice(0, frontMatterCharsMax))
  if (end === null) {
    const first = inside.slice(0, 1_000).trimStart().split('\n', 1)[0] ?? ''
    return language !== '' || looksLikeKeys(first)
      ? { reason: `The front matter is opened by ${fence}${language} and never closed.` }
      : null
  }
  const source = inside.slice(0, end.index)
  return {
    format,
    source: fence === ';;;' && !source.trimStart().startsWith('{') ? `{${source}}` : source,
    end: at + line.length + end.index + end[0].length,
  }
}

function formatOf(fence: string, language: string): Format | undefined {
  if (fence === '+++') return 'TOML'
  return fence === ';;;' ? 'JSON' : languages[language.toLowerCase()]
}

/** A JSON object, or one with bare keys, that stands alone before the body. */
function object(rest: string, at: number): Found {
  if (!/^\{\s{0,1000}(?:["'}]|[A-Za-z_$][\w$-]{0,100}\s{0,20}:)/.test(rest)) return null
  const length = objectLength(rest)
  if (length === null) return { reason: 'The page begins with a { that is never closed.' }
  if (!/^[ \t]*(?:\r?\n|$)/.test(rest.slice(length, length + 200))) return null
  return { format: 'JSON', source: rest.slice(0, length), end: at + length }
}

/** The metadata that MDX pages export; the body stays as it is, since its code needs it. */
function exported(rest: string, at: number): Found {
  const match =
    /^(?:import [^\n]{1,500}\r?\n\s{0,20}){0,50}export const (?:meta|metadata|front[mM]atter)\b[^={\n]{0,100}=\s{0,20}(?=\{)/.exec(
      rest,
    )
  if (match === null) return null
  const length = objectLength(rest.slice(match[0].length))
  if (length === null) return { reason: 'The exported front matter is never closed.' }
  const source = rest.slice(match[0].length, match[0].length + length)
  return { format: 'JSON', source, end: at }
}

/** How long the object is that the text begins with; null: its braces are not in balance. */
function objectLength(text: string): number | null {
  let depth = 0
  const limit = Math.min(text.length, frontMatterCharsMax)
  for (let at = 0; at < limit; at += 1) {
    const { [at]: char } = text
    if (char === '{' || char === '[') depth += 1
    else if (char === '}' || char === ']') {
      depth -= 1
      if (depth === 0) return at + 1
    } else if (char === '"' || char === "'" || char === '`') {
      at += 1
      while (at < limit && text[at] !== char) at += text[at] === '\\' ? 2 : 1
    }
  }
  return null
}

/** Keys that header lines begin with; text that begins with another word and a colon is text. */
const headerKeys = new RegExp(
  '^(?:' +
    'title|subtitle|date|modified|authors?|status|category|categories|tags|keywords|' +
    'slug|summary|description|lang|language|template|layout|draft|published|permalink' +
    ')$',
  'i',
)
const headerLine = /^([A-Za-z][\w-]{0,60}):(?:[ \t]+(.*))?$/
const headerLinesMax = 200

function headerLines(rest: string, at: number): Found {
  const pandoc = /^(?:% [^\n]*\r?\n){1,3}/.exec(rest)
  if (pandoc !== null) {
    const names = ['title', 'author', 'date']
    const lines = pandoc[0].trimEnd().split(/\r?\n/)
    const source = lines.map((line, index) => `${names[index]!}: ${line.slice(2)}`).join('\n')
    return { format: 'lines', source, end: at + pandoc[0].length }
  }
  const lines: string[] = []
  let length = 0
  for (const line of rest.split('\n', headerLinesMax)) {
    const bare = line.replace(/\r$/, '')
    if (bare.trim() === '') break
    const isContinued = lines.length > 0 && /^\s+\S/.test(bare)
    if (!isContinued && !headerLine.test(bare)) return null
    lines.push(bare)
    length += line.length + 1
  }
  const keys = lines.flatMap((line) => headerLine.exec(line)?.[1] ?? [])
  const [first] = keys
  if (first === undefined || !headerKeys.test(first)) return null
  if (keys.length < 2 && !/^(?:title|status|draft|published)$/i.test(first)) return null
  return { format: 'lines', source: lines.join('\n'), end: at + length }
}

type Parsed =
  | { readonly ok: true; readonly frontMatter: FrontMatter }
  | { readonly ok: false; readonly reason: string }

function valueOf(block: Block): Parsed {
  try {
    const value = parsers[block.format](block.source)
    if (value === null || value === undefined) return { ok: true, frontMatter: {} }
    if (typeof value !== 'object' || Array.isArray(value))
      return { ok: false, reason: 'The front matter is not a mapping of keys to values.' }
    return { ok: true, frontMatter: plain(value) as FrontMatter }
  } catch (error) {
    const why = firstLine(error instanceof Error ? error.message : String(error))
    return { ok: false, reason: `The front matter is not ${block.format}: ${why}` }
  }
}

const parsers: Readonly<Record<Format, (source: string) => unknown>> = {
  YAML: parseYaml,
  TOML: parseToml,
  JSON: parseJson,
  lines: parseLines,
}

function parseYaml(source: string): unknown {
  const document = parseDocument(source, {
    strict: true,
    uniqueKeys: true,
    merge: true,
    logLevel: 'silent',
    prettyErrors: true,
  })
  const [error] = document.errors
  if (error !== undefined) throw error
  visit(document, {
    Scalar(_key, node) {
      if (isScalar(node) && node.source !== undefined && changesDigits(node.value, node.source))
        node.value = node.source
    },
  })
  return document.toJS({ maxAliasCount: aliasesMax })
}

function parseToml(source: string): unknown {
  const tree = parseTOML(source)
  traverseNodes(tree, {
    enterNode(node) {
      if (node.type !== 'TOMLValue') return
      const value: { value: unknown } = node
      if (node.kind === 'integer' || node.kind === 'float') {
        if (changesDigits(node.value, node.number)) value.value = node.number
      } else if (/date|time/.test(node.kind) && 'datetime' in node) value.value = node.datetime
    },
    leaveNode: () => undefined,
  })
  return getStaticTOMLValue(tree)
}

/** A reviver also gets the text of each number, which TypeScript's library does not know yet. */
type Reviver = (key: string, value: unknown, context?: { readonly source?: string }) => unknown
const keepDigits: Reviver = (_key, value, context) =>
  context?.source !== undefined && changesDigits(value, context.source) ? context.source : value

/** JSON, or what JavaScript takes for an object: YAML's flow style reads bare keys too. */
function parseJson(source: string): unknown {
  try {
    return JSON.parse(source, keepDigits)
  } catch {
    return parseYaml(source)
  }
}

function parseLines(source: string): unknown {
  const result: Record<string, string> = {}
  let last: string | null = null
  for (const line of source.split(/\r?\n/)) {
    const match = headerLine.exec(line.trimEnd())
    if (match !== null) {
      last = match[1]!
      result[last] = (match[2] ?? '').trim()
    } else if (last !== null && line.trim() !== '') result[last] += `\n${line.trim()}`
  }
  return result
}

/** True for `01234`, `1.10`, `0x1f` and numbers past 2^53: numbers would read otherwise. */
function changesDigits(value: unknown, source: string): boolean {
  return (typeof value === 'number' || typeof value === 'bigint') && String(value) !== source
}

/** The parsers know values that JSON does not: dates, binary, keys that are no text. */
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

/** Pages whose front matter is kept between two passes; the rest is read again. */
const keptMax = 20_000

/** Reads pages, and parses front matter that has not changed since the pass before only once. */
export class PageReader {
  readonly #known = new Map<string, { readonly head: string; readonly frontMatter: FrontMatter }>()

  /** `path` identifies the page. */
  read(path: string, text: string): PageParse {
    const known = this.#known.get(path)
    if (known !== undefined && text.startsWith(known.head)) {
      const body = withoutBlankLines(text.slice(known.head.length))
      return { ok: true, page: { frontMatter: known.frontMatter, body } }
    }
    const parsed = parsePage(text)
    if (!parsed.ok || this.#known.size >= keptMax) return parsed
    const found = findBlock(text)
    if (found === null || 'reason' in found) return parsed
    const head = text.slice(0, found.end)
    // Without a line end the head could be the beginning of something else.
    if (head.endsWith('\n') && Object.keys(parsed.page.frontMatter).length > 0)
      // A copy: a slice would keep the whole page in memory.
      this.#known.set(path, {
        head: Buffer.from(head, 'utf8').toString('utf8'),
        frontMatter: parsed.page.frontMatter,
      })
    return parsed
  }
}
