import { Parser } from 'htmlparser2'

/** Elements nested deeper are flattened: rich text has a limit, and so has the stack. */
const depthMax = 30

export type HtmlNode = { readonly text: string } | HtmlElement
export type HtmlElement = {
  readonly tag: string
  readonly attributes: ReadonlyMap<string, string>
  readonly children: readonly HtmlNode[]
}

/** Is called with the name of each thing that is not taken over. */
export type Loss = (what: string) => void

const attributesKept = new Set([
  'align',
  'alt',
  'class',
  'colspan',
  'data-lazy-src',
  'data-original',
  'data-src',
  'height',
  'href',
  'id',
  'rowspan',
  'src',
  'start',
  'style',
  'title',
  'width',
])
/** Elements that stand for themselves, and not in a line of text. */
export const blockTags = new Set([
  'p',
  'h1',
  'h2',
  'h3',
  'h4',
  'h5',
  'h6',
  'ul',
  'ol',
  'li',
  'blockquote',
  'pre',
  'hr',
  'table',
  'thead',
  'tbody',
  'tfoot',
  'tr',
  'td',
  'th',
  'caption',
  'div',
  'section',
  'article',
  'figure',
  'figcaption',
  'address',
  'dl',
  'dt',
  'dd',
  'center',
  'details',
  'summary',
  'header',
  'footer',
  'aside',
  'main',
])
const inlineTags = new Set([
  'br',
  'img',
  'a',
  'b',
  'strong',
  'i',
  'em',
  'cite',
  'dfn',
  'var',
  's',
  'strike',
  'del',
  'u',
  'ins',
  'code',
  'kbd',
  'samp',
  'tt',
  'sub',
  'sup',
  'mark',
  'q',
])
/** Elements whose text is code or belongs to a form. */
const textDropped = new Set(['script', 'style', 'textarea', 'option', 'template', 'title'])
/** Elements that play or show something else become links to it. */
const embeds = new Set(['iframe', 'video', 'audio', 'embed', 'source', 'object'])
/** Elements that a reader would miss. */
const missed = new Set(['form', 'input', 'select', 'textarea', 'svg', 'canvas', 'math'])

type OpenElement = { readonly tag: string; readonly children: HtmlNode[]; readonly isKept: boolean }

/**
 * Reads HTML from elsewhere as a tree of harmless elements: scripts, styles, forms, event handlers
 * and unknown elements are gone, and embedded players are links. Addresses are for the caller to
 * check. Takes any text, never throws.
 */
export function parseSafeHtml(html: string, lose: Loss = () => undefined): HtmlNode[] {
  const root: HtmlNode[] = []
  const open: OpenElement[] = [{ tag: '', children: root, isKept: true }]
  let dropped = 0
  const parser = new Parser(
    {
      onopentag(tag, attributes) {
        const { children } = open.at(-1)!
        if (textDropped.has(tag)) dropped += 1
        if (missed.has(tag)) lose(`<${tag}>`)
        const element = dropped > 0 ? null : elementOf(tag, attributes)
        const isKept = element !== null && open.length <= depthMax
        if (isKept) children.push(element)
        else if (embeds.has(tag) && dropped === 0) children.push(...linkTo(attributes))
        open.push({ tag, children: isKept ? element.children : children, isKept })
      },
      ontext(text) {
        if (dropped === 0) open.at(-1)!.children.push({ text })
      },
      onclosetag(tag) {
        if (textDropped.has(tag)) dropped -= 1
        open.pop()
      },
    },
    { decodeEntities: true },
  )
  parser.end(html)
  return root
}

function elementOf(
  tag: string,
  attributes: Readonly<Record<string, string>>,
): { tag: string; attributes: ReadonlyMap<string, string>; children: HtmlNode[] } | null {
  if (!blockTags.has(tag) && !inlineTags.has(tag)) return null
  const kept = Object.entries(attributes).filter(([name]) => attributesKept.has(name))
  return { tag, attributes: new Map(kept), children: [] }
}

function linkTo(attributes: Readonly<Record<string, string>>): HtmlNode[] {
  const href = attributes['src'] ?? attributes['data'] ?? ''
  if (href === '') return []
  const link: HtmlElement = {
    tag: 'a',
    attributes: new Map([['href', href]]),
    children: [{ text: href }],
  }
  return [{ text: ' ' }, link, { text: ' ' }]
}

/** Returns the text of HTML without any markup, in one line. */
export function plainText(html: string): string {
  return textParts(parseSafeHtml(html), ' ').join('').replaceAll(/\s+/g, ' ').trim()
}

/** Returns the text of HTML with a line for each block, and the addresses of its links. */
export function plainLines(html: string): string {
  return textParts(parseSafeHtml(html), '\n', true)
    .join('')
    .replaceAll(/[ \t]+/g, ' ')
    .replaceAll(/ ?\n[ \n]*/g, '\n')
    .trim()
}

function textParts(nodes: readonly HtmlNode[], end: string, withLinks = false): string[] {
  return nodes.flatMap((node) => {
    if ('text' in node) return [node.text]
    const inside = textParts(node.children, end, withLinks)
    const href = node.tag === 'a' && withLinks ? (node.attributes.get('href') ?? '') : ''
    if (/^https?:/i.test(href) && !inside.join('').includes(href)) inside.push(` (${href})`)
    return node.tag === 'br' || blockTags.has(node.tag) ? [end, ...inside, end] : inside
  })
}
