import type { HtmlElement, HtmlNode, Loss } from '#cli/import/html-tree.ts'
import { blockTags, parseSafeHtml } from '#cli/import/html-tree.ts'
import { isSafeLink } from '#content/validation/rich-text.ts'

/** Rich text takes no longer attribute. */
const attributeCharsMax = 2_000

export type RichNode = {
  type: string
  attrs?: Record<string, unknown>
  content?: RichNode[]
  marks?: RichMark[]
  text?: string
}
type RichMark = { readonly type: string; readonly attrs?: Readonly<Record<string, unknown>> }

/** Relates addresses in the HTML to what is imported; null: they lead elsewhere. */
export type Addresses = {
  readonly entry: (href: string) => string | null
  readonly asset: (src: string) => string | null
}

const markOf: Readonly<Record<string, string>> = {
  b: 'bold',
  strong: 'bold',
  i: 'italic',
  em: 'italic',
  cite: 'italic',
  dfn: 'italic',
  var: 'italic',
  s: 'strike',
  strike: 'strike',
  del: 'strike',
  u: 'underline',
  ins: 'underline',
  code: 'code',
  kbd: 'code',
  samp: 'code',
  tt: 'code',
  sub: 'subscript',
  sup: 'superscript',
  mark: 'highlight',
}
/**
 * Converts HTML to Stoa's rich text. Classic WordPress texts, in which a blank line is a paragraph
 * and a line end a break, are read that way; texts of the block editor are HTML as it is. `lose` is
 * called for what rich text cannot hold. Takes any text, never throws; null when nothing is left.
 */
export function richTextOf(
  html: string,
  addresses: Addresses,
  lose: Loss = () => undefined,
): RichNode | null {
  const isClassic = !html.includes('<!-- wp:')
  if (/href=["']#[^"']/.test(html)) lose('anchors that links in the text lead to')
  const nodes = parseSafeHtml(html.replaceAll(/<!--\s{0,100}nextpage\s{0,100}-->/g, '<hr>'), lose)
  const content = new Converter(addresses, isClassic, lose).blocks(nodes, [])
  return content.length === 0 ? null : { type: 'doc', content }
}

class Converter {
  readonly #addresses: Addresses
  readonly #isClassic: boolean
  readonly #lose: Loss

  constructor(addresses: Addresses, isClassic: boolean, lose: Loss) {
    this.#addresses = addresses
    this.#isClassic = isClassic
    this.#lose = lose
  }

  /** Block nodes of a run of children; inline ones between blocks become paragraphs. */
  blocks(nodes: readonly HtmlNode[], marks: readonly RichMark[]): RichNode[] {
    const result: RichNode[] = []
    let inline: RichNode[] = []
    const flush = (): void => {
      for (const content of paragraphsOf(inline)) result.push({ type: 'paragraph', content })
      inline = []
    }
    for (const node of nodes) {
      if ('text' in node || !hasBlocks(node)) inline.push(...this.#inline(node, marks, false))
      else {
        flush()
        result.push(
          ...(blockTags.has(node.tag)
            ? this.#block(node, marks)
            : this.blocks(node.children, this.#marked(node, marks))),
        )
      }
    }
    flush()
    return result
  }

  #block(element: HtmlElement, marks: readonly RichMark[]): RichNode[] {
    const { tag, children, attributes } = element
    if (/^h[1-6]$/.test(tag))
      return this.#textBlock(
        element,
        { type: 'heading', attrs: { level: Number(tag[1]), ...alignOf(attributes) } },
        marks,
      )
    switch (tag) {
      case 'p':
      case 'address':
      case 'figcaption':
      case 'caption':
      case 'summary':
        return this.#textBlock(
          element,
          {
            type: 'paragraph',
            ...(alignOf(attributes) === null ? {} : { attrs: { ...alignOf(attributes) } }),
          },
          marks,
        )
      case 'dt':
        return this.#textBlock(element, { type: 'paragraph' }, [...marks, { type: 'bold' }])
      case 'hr':
        return [{ type: 'horizontalRule' }]
      case 'pre':
        return this.#pre(children)
      case 'blockquote':
        return wrapped('blockquote', this.blocks(children, marks))
      case 'ul':
      case 'ol':
        return this.#list(element, marks)
      case 'table':
        return this.#table(element, marks)
      default:
        return this.blocks(children, marks)
    }
  }

  /**
   * A paragraph or heading. With blocks inside (which HTML forbids and people write) the blocks
   * stand by themselves.
   */
  #textBlock(element: HtmlElement, block: RichNode, marks: readonly RichMark[]): RichNode[] {
    if (element.children.some((child) => !('text' in child) && hasBlocks(child)))
      return this.blocks(element.children, marks)
    const runs = paragraphsOf(
      element.children.flatMap((child) => this.#inline(child, marks, false)),
      true,
    )
    return runs.map((content) => ({ ...block, content }))
  }

  #pre(children: readonly HtmlNode[]): RichNode[] {
    const text = textOf(children).replace(/^\n/, '').replace(/\n$/, '')
    return text === '' ? [] : [{ type: 'codeBlock', content: [{ type: 'text', text }] }]
  }

  #list(element: HtmlElement, marks: readonly RichMark[]): RichNode[] {
    const items: RichNode[] = []
    for (const child of element.children) {
      if ('text' in child && child.text.trim() === '') continue
      const isItem = !('text' in child) && child.tag === 'li'
      const content = this.blocks(isItem ? child.children : [child], marks)
      // A list that hangs in a list instead of in an item belongs to the item before it.
      if (!isItem && items.length > 0) items.at(-1)!.content!.push(...content)
      else
        items.push({
          type: 'listItem',
          content: content.length > 0 ? content : [{ type: 'paragraph' }],
        })
    }
    if (items.length === 0) return []
    const start = Number(element.attributes.get('start') ?? 1)
    const attrs =
      element.tag === 'ol' && Number.isSafeInteger(start) && start !== 1 ? { attrs: { start } } : {}
    return [{ type: element.tag === 'ol' ? 'orderedList' : 'bulletList', ...attrs, content: items }]
  }

  #table(element: HtmlElement, marks: readonly RichMark[]): RichNode[] {
    const rows: RichNode[] = []
    const before: RichNode[] = []
    const visit = (nodes: readonly HtmlNode[]): void => {
      for (const node of nodes) {
        if ('text' in node) continue
        if (node.tag === 'tr') rows.push(...this.#row(node, marks))
        else if (node.tag === 'caption') before.push(...this.#block(node, marks))
        else visit(node.children)
      }
    }
    visit(element.children)
    return [...before, ...wrapped('table', rows)]
  }

  #row(element: HtmlElement, marks: readonly RichMark[]): RichNode[] {
    const cells: RichNode[] = []
    for (const node of element.children) {
      if ('text' in node || (node.tag !== 'td' && node.tag !== 'th')) continue
      const attrs: Record<string, number> = {}
      for (const name of ['colspan', 'rowspan']) {
        const span = Number(node.attributes.get(name) ?? 1)
        if (Number.isSafeInteger(span) && span > 1) attrs[name] = span
      }
      const content = this.blocks(node.children, marks)
      cells.push({
        type: node.tag === 'th' ? 'tableHeader' : 'tableCell',
        ...(Object.keys(attrs).length === 0 ? {} : { attrs }),
        content: content.length > 0 ? content : [{ type: 'paragraph' }],
      })
    }
    return wrapped('tableRow', cells)
  }

  #inline(node: HtmlNode, marks: readonly RichMark[], keepSpace: boolean): RichNode[] {
    if ('text' in node) return this.#text(node.text, marks, keepSpace)
    if (node.tag === 'br') return [{ type: 'hardBreak' }]
    if (node.tag === 'img') return this.#image(node, marks)
    const inside = node.children.flatMap((child) =>
      this.#inline(child, this.#marked(node, marks), keepSpace),
    )
    return node.tag === 'q'
      ? [...this.#text('“', marks, true), ...inside, ...this.#text('”', marks, true)]
      : inside
  }

  #text(text: string, marks: readonly RichMark[], keepSpace: boolean): RichNode[] {
    const make = (part: string): RichNode => ({
      type: 'text',
      text: part,
      ...(marks.length === 0 ? {} : { marks: [...marks] }),
    })
    if (keepSpace) return text === '' ? [] : [make(text)]
    if (!this.#isClassic) {
      const collapsed = text.replaceAll(/[ \t\r\n]+/g, ' ')
      return collapsed === '' ? [] : [make(collapsed)]
    }
    const result: RichNode[] = []
    for (const [at, paragraph] of text
      .replaceAll('\r', '')
      .split(/\n[ \t]*\n\s*/)
      .entries()) {
      if (at > 0) result.push({ type: 'paragraphEnd' })
      for (const [lineAt, line] of paragraph.split('\n').entries()) {
        if (lineAt > 0) result.push({ type: 'softBreak' })
        const collapsed = line.replaceAll(/[ \t]+/g, ' ')
        if (collapsed !== '') result.push(make(collapsed))
      }
    }
    return result
  }

  /** An image keeps the link around it. */
  #image(element: HtmlElement, marks: readonly RichMark[]): RichNode[] {
    const src = addressOfImage(element)
    if (src === null) {
      this.#lose('images without an address of the web (data: and the like)')
      return []
    }
    const links = marks.filter((mark) => mark.type === 'link')
    const around = links.length === 0 ? {} : { marks: links }
    const attrs: Record<string, unknown> = { src }
    for (const name of ['alt', 'title']) {
      const value = element.attributes.get(name)
      if (value !== undefined && value !== '')
        attrs[name] = clean(value).slice(0, attributeCharsMax).toWellFormed()
    }
    for (const name of ['width', 'height']) {
      const value = Number(element.attributes.get(name) ?? Number.NaN)
      if (Number.isSafeInteger(value) && value > 0) attrs[name] = value
    }
    const asset = this.#addresses.asset(src)
    return [{ type: 'image', attrs: asset === null ? attrs : { ...attrs, asset }, ...around }]
  }

  #marked(element: HtmlElement, marks: readonly RichMark[]): readonly RichMark[] {
    const type = element.tag === 'a' ? 'link' : markOf[element.tag]
    if (type === undefined || marks.some((mark) => mark.type === type)) return marks
    if (type !== 'link') return [...marks, { type }]
    const href = (element.attributes.get('href') ?? '').trim()
    if (href === '' || href.length > attributeCharsMax || !isSafeLink(href)) return marks
    const entry = this.#addresses.entry(href)
    return [...marks, { type: 'link', attrs: entry === null ? { href } : { href, entry } }]
  }
}

/** Pages that load images late have a placeholder in `src`. */
function addressOfImage(element: HtmlElement): string | null {
  const names = ['src', 'data-src', 'data-lazy-src', 'data-original']
  const sources = names.map((name) => (element.attributes.get(name) ?? '').trim())
  return (
    sources.find(
      (src) =>
        src !== '' &&
        src.length <= attributeCharsMax &&
        isSafeLink(src) &&
        !/^(?:mailto|tel):/i.test(src),
    ) ?? null
  )
}

function hasBlocks(element: HtmlElement): boolean {
  return (
    blockTags.has(element.tag) ||
    element.children.some((child) => !('text' in child) && hasBlocks(child))
  )
}

function wrapped(type: string, content: RichNode[]): RichNode[] {
  return content.length === 0 ? [] : [{ type, content }]
}

/**
 * Splits inline nodes where a classic text has a blank line, and trims each run. `whole`: the
 * element is one block, whatever it holds.
 */
function paragraphsOf(nodes: readonly RichNode[], whole = false): RichNode[][] {
  const runs: RichNode[][] = [[]]
  for (const node of nodes) {
    if (node.type === 'paragraphEnd' && !whole) runs.push([])
    else if (node.type === 'softBreak' || node.type === 'paragraphEnd')
      runs.at(-1)!.push({ type: 'hardBreak' })
    else runs.at(-1)!.push(node)
  }
  return runs.map(trimmed).filter((run) => run.length > 0)
}

function trimmed(run: RichNode[]): RichNode[] {
  const isBlank = (node: RichNode | undefined): boolean =>
    node !== undefined &&
    (node.type === 'hardBreak' || (node.type === 'text' && node.text!.trim() === ''))
  let start = 0
  let end = run.length
  while (start < end && isBlank(run[start])) start += 1
  while (end > start && isBlank(run[end - 1])) end -= 1
  const result = run
    .slice(start, end)
    .map((node) => (node.type === 'text' ? { ...node, text: clean(node.text!) } : node))
  const [first] = result
  if (first?.type === 'text') first.text = first.text!.trimStart()
  const last = result.at(-1)
  if (last?.type === 'text') last.text = last.text!.trimEnd()
  return result.filter((node) => node.type !== 'text' || node.text !== '')
}

/** Removes what the database cannot store. */
function clean(text: string): string {
  return text.replaceAll('\0', '').toWellFormed()
}

function textOf(nodes: readonly HtmlNode[]): string {
  return clean(
    nodes
      .map((node) => {
        if ('text' in node) return node.text
        return node.tag === 'br' ? '\n' : textOf(node.children)
      })
      .join(''),
  )
}

function alignOf(attributes: ReadonlyMap<string, string>): { textAlign: string } | null {
  const style = /text-align\s*:\s*(left|right|center|justify)/i.exec(attributes.get('style') ?? '')
  const name = /\bhas-text-align-(left|right|center)\b/.exec(attributes.get('class') ?? '')
  const plain = /^(left|right|center|justify)$/i.exec(attributes.get('align') ?? '')
  const found = (style ?? name ?? plain)?.[1]?.toLowerCase()
  return found === undefined || found === 'left' ? null : { textAlign: found }
}
