import sanitizeHtml from 'sanitize-html'

/** Elements nested deeper are flattened: rich text has a limit, and so has the stack. */
const depthMax = 30

export type HtmlNode = { readonly text: string } | HtmlElement
export type HtmlElement = {
  readonly tag: string
  readonly attributes: ReadonlyMap<string, string>
  readonly children: readonly HtmlNode[]
}

const attributesKept = [
  'href',
  'src',
  'alt',
  'title',
  'width',
  'height',
  'align',
  'style',
  'class',
  'start',
  'colspan',
  'rowspan',
  'target',
  'rel',
]
const tagsKept = [
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
]

/** What plays or shows something else becomes a link to it. */
function asLink(_tag: string, attributes: sanitizeHtml.Attributes): sanitizeHtml.Tag {
  const { src = '' } = attributes
  return src === ''
    ? { tagName: 'span', attribs: {} }
    : { tagName: 'a', attribs: { href: src }, text: src }
}

const embeds = Object.fromEntries(
  ['iframe', 'video', 'audio', 'embed', 'source'].map((tag) => [tag, asLink]),
)

/**
 * HTML from elsewhere as a tree of harmless elements: scripts, styles, forms, event handlers,
 * unknown elements and addresses of other schemes than http, https, mailto and tel are gone;
 * embedded players are links. Takes any text, never throws.
 */
export function parseSafeHtml(html: string): HtmlNode[] {
  const safe = sanitizeHtml(html, {
    allowedTags: tagsKept,
    allowedAttributes: { '*': attributesKept },
    allowedSchemes: ['http', 'https', 'mailto', 'tel'],
    allowProtocolRelative: true,
    transformTags: embeds,
    nestingLimit: depthMax,
    parseStyleAttributes: false,
  })
  return treeOf(safe)
}

/** The text of HTML, without any markup, white space collapsed. */
export function plainText(html: string): string {
  const text = decode(sanitizeHtml(html, { allowedTags: [], allowedAttributes: {} }))
  return text.replaceAll(/\s+/g, ' ').trim()
}

const token = /<(\/?)([a-z][a-z0-9]*)((?:\s+[a-zA-Z-]+(?:="[^"]*")?)*)\s*(\/?)>|[^<]+|</g
const attribute = /([a-zA-Z-]+)(?:="([^"]*)")?/g
const voids = new Set(['br', 'hr', 'img'])

/** Reads what the sanitiser writes: lower-case tags in balance, double quotes, four entities. */
function treeOf(safe: string): HtmlNode[] {
  const root: HtmlNode[] = []
  const open: { tag: string; children: HtmlNode[] }[] = [{ tag: '', children: root }]
  for (const [whole, slash, tag, attributes, closed] of safe.matchAll(token)) {
    const { children } = open.at(-1)!
    if (tag === undefined) children.push({ text: decode(whole) })
    else if (slash === '/') {
      const at = open.findLastIndex((element) => element.tag === tag)
      if (at > 0) open.length = at
    } else {
      const element = { tag, attributes: new Map<string, string>(), children: [] as HtmlNode[] }
      for (const [, name, value] of attributes!.matchAll(attribute))
        element.attributes.set(name!, decode(value ?? ''))
      children.push(element)
      if (!voids.has(tag) && closed !== '/') open.push(element)
    }
  }
  return root
}

function decode(text: string): string {
  return text
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&amp;', '&')
}
