/** Tags longer than this are text with a stray `<`: it keeps the scan linear. */
const tagCharsMax = 20_000
/** Deeper nesting of brackets than any page has; the outermost are forgotten first. */
const bracketsMax = 100
/** CommonMark's own limit for a link label. */
const labelCharsMax = 999

/** CommonMark asks for at least 32 levels in a destination. */
const parenthesesMax = 32

export type Link = {
  /** As written, entities and escapes resolved; of a wikilink without its `|label`. */
  readonly target: string
  readonly kind: LinkKind
  /** 1-based line in the body. */
  readonly line: number
}

/** `wiki` is `[[Note]]`, `embed` is `![[Note]]` or `![[image.png]]`. */
export type LinkKind = 'link' | 'image' | 'wiki' | 'embed'

/**
 * All that the scan stops at; what lies between is passed over by the regular expression engine,
 * twenty times as fast.
 */
const interesting = /[\\`<{[\]\n]/g

/** Inline code ends at a run of backticks or a blank line. */
const codeEnd = /`+|\n(?=[ \t]*(?:\n|$))/g

type Bracket = { readonly start: number; readonly image: boolean }
type Use = { readonly label: string; readonly at: number; readonly kind: LinkKind }
type FoundLink = { readonly target: string; readonly at: number; readonly kind: LinkKind }

/**
 * Finds the links and images of a Markdown or MDX text: inline, by reference (full, collapsed,
 * shortcut), autolinks, wikilinks, and `href` and `src` of HTML and JSX tags, in the order of the
 * text. Fenced code, inline code and comments are passed over.
 *
 * This is a scanner of our own and not a Markdown parser, because parsers take everything inside a
 * JSX block for raw HTML. It reads the text once, so no text makes it slow, and throws for none.
 */
export function scanLinks(text: string): Link[] {
  return new Scanner(text).scan()
}

class Scanner {
  readonly #text: string
  readonly #found: FoundLink[] = []
  readonly #uses: Use[] = []
  readonly #definitions = new Map<string, string>()
  readonly #brackets: Bracket[] = []
  /**
   * Lengths of backtick runs with no partner in this paragraph, so that each is searched for once.
   */
  readonly #unpaired = new Set<number>()
  /** Up to here braces were searched for their partner in vain; they are not searched again. */
  #bracesOpenUntil = 0
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  scan(): Link[] {
    let lineStart = true
    while (this.#at < this.#text.length) {
      if (lineStart) {
        lineStart = false
        if (this.#fence() || this.#definition()) {
          lineStart = true
          continue
        }
        this.#paragraphEnd()
      }
      interesting.lastIndex = this.#at
      const next = interesting.exec(this.#text)
      if (next === null) break
      this.#at = next.index
      if (next[0] === '\n') {
        lineStart = true
        this.#at += 1
      } else this.#step(next[0])
    }
    for (const use of this.#uses) {
      const target = this.#definitions.get(use.label)
      if (target !== undefined) this.#found.push({ target, at: use.at, kind: use.kind })
    }
    return withLines(
      this.#text,
      this.#found.sort((left, right) => left.at - right.at),
    )
  }

  #step(char: string): void {
    if (char === '\\') this.#at += this.#text[this.#at + 1] === '\n' ? 1 : 2
    else if (char === '`') this.#inlineCode()
    else if (char === '<') this.#angle()
    else if (char === '{' && this.#text.startsWith('{/*', this.#at)) this.#skipPast('*/}', 3)
    else if (char === '[') this.#bracket(this.#at > 0 && this.#text[this.#at - 1] === '!')
    else if (char === ']') this.#close()
    else this.#at += 1
  }

  /**
   * At the start of a line: passes over a whole fenced block, also inside lists, quotes and JSX.
   */
  #fence(): boolean {
    const line = this.#line(this.#at)
    const match = /^[\s>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(`{3,}|~{3,})(.*)$/.exec(line)
    if (match === null) return false
    const [, marks = '', info = ''] = match
    if (marks[0] === '`' && info.includes('`')) return false
    const closing = new RegExp(`^[\\s>]*${marks[0]}{${marks.length},}\\s*$`)
    this.#at += line.length + 1
    while (this.#at < this.#text.length) {
      const next = this.#line(this.#at)
      this.#at += next.length + 1
      if (closing.test(next)) break
    }
    this.#brackets.length = 0
    return true
  }

  /** At the start of a line: `[label]: target "title"`. */
  #definition(): boolean {
    const line = this.#line(this.#at)
    const match =
      /^[\s>]*\[((?:[^[\]\\]|\\.){1,999})\]:[ \t]*(?:<([^<>]*)>|(\S+))(?:[ \t].*)?$/.exec(line)
    if (match === null || match[1]!.startsWith('^')) return false
    const label = normalLabel(match[1]!)
    if (!this.#definitions.has(label))
      this.#definitions.set(label, unescape(match[2] ?? match[3] ?? ''))
    this.#at += line.length + 1
    return true
  }

  #paragraphEnd(): void {
    if (/^\s*$/.test(this.#line(this.#at))) {
      this.#unpaired.clear()
      this.#brackets.length = 0
    }
  }

  #inlineCode(): void {
    let end = this.#at
    while (this.#text[end] === '`') end += 1
    const length = end - this.#at
    this.#at = end
    if (this.#unpaired.has(length)) return
    codeEnd.lastIndex = end
    for (let match = codeEnd.exec(this.#text); match !== null; match = codeEnd.exec(this.#text)) {
      if (match[0].startsWith('\n')) break
      if (match[0].length !== length) continue
      this.#at = match.index + length
      return
    }
    this.#unpaired.add(length)
  }

  #angle(): void {
    if (this.#text.startsWith('<!--', this.#at)) {
      this.#skipPast('-->', 4)
      return
    }
    const rest = this.#text.slice(this.#at, this.#at + 2_100)
    const autolink = /^<([A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]{0,2000})>/.exec(rest)
    if (autolink !== null) {
      this.#found.push({ target: autolink[1]!, at: this.#at, kind: 'link' })
      this.#at += autolink[0].length
      return
    }
    if (/^<[A-Za-z]/.test(rest)) this.#tag()
    else this.#at += 1
  }

  /**
   * Reads the attributes of a tag, quotes and braces in balance; what is not a tag after all is
   * text.
   */
  #tag(): void {
    const start = this.#at
    const limit = Math.min(this.#text.length, start + tagCharsMax)
    let at = start + 1
    const addresses: FoundLink[] = []
    while (at < limit) {
      const { [at]: char } = this.#text
      if (char === '>') {
        this.#found.push(...addresses)
        this.#at = at + 1
        return
      }
      if (char === '<') break
      const isName = (char === 'h' || char === 's') && /\s/.test(this.#text[at - 1]!)
      const address = isName ? this.#address(at) : null
      if (address !== null) {
        const kind = char === 'h' ? 'link' : 'image'
        if (address.target !== null) addresses.push({ target: address.target, at, kind })
        at = address.end
      } else if (char === '"' || char === "'") at = this.#pastQuote(at, char, limit)
      else if (char === '{') at = this.#pastBraces(at, limit)
      else at += 1
    }
    this.#at = start + 1
  }

  /** The value of an attribute `href` or `src`; null where it is an expression. */
  #address(at: number): { target: string | null; end: number } | null {
    const head = /^(?:href|src)\s{0,20}=\s{0,20}/.exec(this.#text.slice(at, at + 60))
    if (head === null) return null
    const value = at + head[0].length
    const rest = this.#text.slice(value, value + 2_100)
    const literal = /^(?:\{\s{0,20})?(?:"([^"\n]*)"|'([^'\n]*)'|`([^`\n]*)`)/.exec(rest)
    const bare = literal === null ? /^[^\s"'=<>`{}]+/.exec(rest) : null
    if (bare !== null) return { target: decodeEntities(bare[0]), end: value + bare[0].length }
    if (literal === null) return { target: null, end: value }
    const template = literal[3]
    if (template !== undefined && template.includes('${')) return { target: null, end: value }
    const braced = rest.startsWith('{')
    if (braced && !/^\s{0,20}\}/.test(rest.slice(literal[0].length)))
      return { target: null, end: value }
    return {
      target: decodeEntities(literal[1] ?? literal[2] ?? template ?? ''),
      end: value + literal[0].length,
    }
  }

  #pastQuote(at: number, quote: string, limit: number): number {
    const end = this.#text.indexOf(quote, at + 1)
    return end < 0 || end > limit ? limit : end + 1
  }

  #pastBraces(start: number, limit: number): number {
    if (start < this.#bracesOpenUntil) return limit
    let depth = 0
    for (let at = start; at < limit; at += 1) {
      const { [at]: char } = this.#text
      if (char === '{') depth += 1
      else if (char === '}') {
        depth -= 1
        if (depth === 0) return at + 1
      } else if (char === '"' || char === '`') at = this.#pastQuote(at, char, limit) - 1
    }
    this.#bracesOpenUntil = limit
    return limit
  }

  /** `[[Note#heading|label]]` or the beginning of a link. */
  #bracket(image: boolean): void {
    const wiki = this.#text.startsWith('[[', this.#at)
      ? /^\[\[([^[\]|\n]{1,500})(?:\|[^[\]\n]{0,500})?\]\](?![([:])/.exec(
          this.#text.slice(this.#at, this.#at + 1_100),
        )
      : null
    if (wiki === null) return this.#open(image)
    this.#found.push({ target: wiki[1]!.trim(), at: this.#at, kind: image ? 'embed' : 'wiki' })
    this.#at += wiki[0].length
  }

  #open(image: boolean): void {
    if (this.#brackets.length === bracketsMax) this.#brackets.shift()
    this.#brackets.push({ start: this.#at + 1, image })
    this.#at += 1
  }

  #close(): void {
    const bracket = this.#brackets.pop()
    const end = this.#at
    this.#at += 1
    if (bracket === undefined) return
    if (this.#text[this.#at] === '(') {
      const inline = this.#destination(this.#at + 1)
      if (inline !== null) {
        const kind = bracket.image ? 'image' : 'link'
        this.#found.push({ target: inline.target, at: bracket.start, kind })
        this.#at = inline.end
        return
      }
    }
    let label = this.#text.slice(bracket.start, Math.min(end, bracket.start + labelCharsMax + 1))
    const full =
      this.#text[this.#at] === '['
        ? /^\[((?:[^[\]\\]|\\.){0,999})\]/.exec(
            this.#text.slice(this.#at, this.#at + labelCharsMax + 2),
          )
        : null
    if (full !== null) {
      if (full[1]!.trim() !== '') label = full[1]!
      this.#at += full[0].length
    }
    const kind = bracket.image ? 'image' : 'link'
    if (label.length <= labelCharsMax)
      this.#uses.push({ label: normalLabel(label), at: bracket.start, kind })
  }

  /**
   * After `](`: the destination, in angle brackets or with its parentheses in balance, and a title
   * that is passed over.
   */
  #destination(start: number): { target: string; end: number } | null {
    const rest = this.#text.slice(start, start + 4_000)
    const lead = /^\s*/.exec(rest)![0].length
    let at = lead
    let target: string
    const angle = /^<([^<>\n]*)>/.exec(rest.slice(lead))
    if (angle === null) {
      let depth = 0
      for (; at < rest.length && !/\s/.test(rest[at]!); at += 1) {
        if (rest[at] === '\\') at += 1
        else if (rest[at] === '(' && (depth += 1) > parenthesesMax) return null
        else if (rest[at] === ')' && (depth -= 1) < 0) break
      }
      target = rest.slice(lead, at)
    } else {
      target = angle[1]!
      at += angle[0].length
    }
    const tail = /^(?:\s+(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\((?:[^()\\]|\\.)*\)))?\s*\)/.exec(
      rest.slice(at),
    )
    return tail === null ? null : { target: unescape(target), end: start + at + tail[0].length }
  }

  #skipPast(mark: string, lead: number): void {
    const end = this.#text.indexOf(mark, this.#at + lead)
    this.#at = end < 0 ? this.#text.length : end + mark.length
  }

  #line(start: number): string {
    const end = this.#text.indexOf('\n', start)
    return this.#text.slice(start, end < 0 ? this.#text.length : end)
  }
}

function withLines(text: string, found: readonly FoundLink[]): Link[] {
  let line = 1
  let from = 0
  return found.map(({ target, kind, at }) => {
    for (
      let newline = text.indexOf('\n', from);
      newline >= 0 && newline < at;
      newline = text.indexOf('\n', from)
    ) {
      line += 1
      from = newline + 1
    }
    return { target, kind, line }
  })
}

function normalLabel(label: string): string {
  return label.trim().replaceAll(/\s+/g, ' ').toLowerCase()
}

function unescape(target: string): string {
  return decodeEntities(target.replaceAll(/\\([!-/:-@[-`{-~])/g, '$1'))
}

function decodeEntities(text: string): string {
  if (!text.includes('&')) return text
  return text
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&amp;', '&')
}
