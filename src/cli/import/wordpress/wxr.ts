import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { SaxesParser } from 'saxes'
import { ImportSourceError } from '#cli/import/errors.ts'

/** Characters of one element; editors of WordPress write no longer texts. */
const elementCharsMax = 16_000_000
/** Comments and custom fields of one item. */
const commentsMax = 50_000
const metaMax = 5_000

export type WxrComment = {
  readonly id: string
  readonly parent: string
  readonly author: string
  readonly url: string
  readonly dateGmt: string
  readonly content: string
  readonly approved: boolean
  /** `comment`, `pingback`, `trackback`. */
  readonly kind: string
}

export type WxrTerm = {
  readonly taxonomy: string
  readonly slug: string
  readonly name: string
  readonly parent: string
  readonly description: string
}

export type WxrItem = {
  readonly id: string
  readonly kind: string
  readonly title: string
  readonly link: string
  readonly creator: string
  readonly content: string
  readonly excerpt: string
  readonly date: string
  readonly dateGmt: string
  readonly modifiedGmt: string
  readonly slug: string
  readonly status: string
  readonly parent: string
  readonly menuOrder: string
  readonly password: string
  readonly sticky: boolean
  readonly commentsOpen: boolean
  readonly attachmentUrl: string
  readonly terms: readonly {
    readonly taxonomy: string
    readonly slug: string
    readonly name: string
  }[]
  readonly meta: ReadonlyMap<string, string>
  readonly comments: readonly WxrComment[]
  /** Custom fields and comments beyond what one item can have here. */
  readonly unread: number
}

export type WxrRecord =
  | { readonly is: 'site'; readonly title: string; readonly url: string; readonly language: string }
  | {
      readonly is: 'author'
      readonly login: string
      readonly name: string
      readonly firstName: string
      readonly lastName: string
    }
  | { readonly is: 'term'; readonly term: WxrTerm }
  | { readonly is: 'item'; readonly item: WxrItem }

/** Elements whose children are gathered into one record. */
const gathered = new Set(['wp:author', 'wp:category', 'wp:tag', 'wp:term', 'item'])
/** Records inside an item. */
const nested = new Set(['wp:comment', 'wp:postmeta'])

type Fields = Map<string, string>
type Parts = {
  terms: { taxonomy: string; slug: string; name: string }[]
  meta: Map<string, string>
  comments: WxrComment[]
  unread: number
}

/**
 * Reads a WordPress export (WXR 1.0 to 1.2) as a stream: one record at a time, in the file's order,
 * the site first. Control characters that XML forbids and WordPress writes are dropped. Throws
 * `ImportSourceError` for any other file.
 */
export async function* readWxr(path: string): AsyncGenerator<WxrRecord> {
  const reader = new WxrReader(path)
  const encoding = await encodingOf(path)
  const decoder = new TextDecoder(encoding)
  const stream = createReadStream(path, { highWaterMark: 128 * 1_024 })
  try {
    for await (const chunk of stream)
      yield* reader.write(decoder.decode(chunk as Buffer, { stream: true }))
  } catch (error) {
    if (error instanceof ImportSourceError || !(error instanceof Error) || !('code' in error))
      throw error
    throw new ImportSourceError(
      `${path} cannot be read: ${error.message}`,
      { path },
      { cause: error },
    )
  } finally {
    stream.destroy()
  }
  yield* reader.close()
}

/** Reads how the file is encoded from its byte order mark or its XML declaration. */
async function encodingOf(path: string): Promise<string> {
  const head = Buffer.alloc(200)
  const file = await open(path).catch((cause: unknown) => {
    throw new ImportSourceError(`${path} cannot be read.`, { path }, { cause })
  })
  try {
    await file.read(head, 0, head.length, 0)
  } finally {
    await file.close()
  }
  if (head[0] === 0xff && head[1] === 0xfe) return 'utf-16le'
  if (head[0] === 0xfe && head[1] === 0xff) return 'utf-16be'
  const label =
    /^(?:\u00ef\u00bb\u00bf)?\s*<\?xml[^>]*\sencoding\s*=\s*["']([\w.:-]+)["']/i.exec(
      head.toString('latin1'),
    )?.[1] ?? 'utf-8'
  try {
    return new TextDecoder(label).encoding
  } catch (cause) {
    throw new ImportSourceError(
      `${path} is encoded in ${label}, which cannot be read; convert it to UTF-8.`,
      { path, encoding: label },
      { cause },
    )
  }
}

class WxrReader {
  readonly #path: string
  readonly #parser = new SaxesParser({ xmlns: false, position: true })
  readonly #open: string[] = []
  #records: WxrRecord[] = []
  #text = ''
  #site: Fields = new Map()
  #hasSite = false
  #sawRss = false
  #record: Fields | null = null
  #parts: Parts = { terms: [], meta: new Map(), comments: [], unread: 0 }
  #inner: Fields | null = null
  #attributes: Readonly<Record<string, string>> = {}

  constructor(path: string) {
    this.#path = path
    this.#parser.on('error', (error) => {
      throw new ImportSourceError(
        `${path} is not well-formed XML: ${error.message}`,
        { path },
        { cause: error },
      )
    })
    this.#parser.on('opentag', (tag) => this.#opened(tag.name, tag.attributes))
    this.#parser.on('closetag', (tag) => this.#closed(tag.name))
    this.#parser.on('text', (text) => this.#add(text))
    this.#parser.on('cdata', (text) => this.#add(text))
  }

  write(chunk: string): WxrRecord[] {
    this.#parser.write(
      // oxlint-disable-next-line no-control-regex -- XML cannot have these characters
      chunk.replaceAll(/[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]/g, ''),
    )
    return this.#taken()
  }

  close(): WxrRecord[] {
    this.#parser.close()
    if (!this.#sawRss)
      throw new ImportSourceError(
        `${this.#path} is XML, but no WordPress export: it has no <rss>.`,
        { path: this.#path },
      )
    this.#addSite()
    return this.#taken()
  }

  #taken(): WxrRecord[] {
    const records = this.#records
    this.#records = []
    return records
  }

  #add(text: string): void {
    if (this.#text.length + text.length > elementCharsMax) {
      throw new ImportSourceError(
        `${this.#path}: the element <${this.#open.at(-1)}> has more than ${elementCharsMax} ` +
          `characters.`,
        { path: this.#path },
      )
    }
    this.#text += text
  }

  #opened(name: string, attributes: Readonly<Record<string, string>>): void {
    if (this.#open.length === 0) {
      this.#sawRss = name === 'rss'
      if (!this.#sawRss)
        throw new ImportSourceError(
          `${this.#path} is XML, but no WordPress export: it begins with <${name}>.`,
          { path: this.#path },
        )
    }
    this.#open.push(name)
    this.#text = ''
    this.#attributes = attributes
    if (this.#open.length === 3 && gathered.has(name)) {
      this.#addSite()
      this.#record = new Map()
      this.#parts = { terms: [], meta: new Map(), comments: [], unread: 0 }
    } else if (this.#open.length === 4 && this.#record !== null && nested.has(name))
      this.#inner = new Map()
  }

  #closed(name: string): void {
    const depth = this.#open.length
    this.#open.pop()
    const text = this.#text
    this.#text = ''
    if (depth === 3) {
      if (this.#record === null) this.#site.set(name, text)
      else this.#finish(name, this.#record)
      this.#record = null
    } else if (depth === 4 && this.#record !== null) {
      if (this.#inner !== null) this.#finishInner(name, this.#inner)
      else if (name === 'category')
        this.#parts.terms.push({
          taxonomy: taxonomyOf(this.#attributes['domain']),
          slug: decodeSlug(this.#attributes['nicename'] ?? ''),
          name: text,
        })
      else this.#record.set(name, text)
      this.#inner = null
    } else if (depth === 5 && this.#inner !== null) this.#inner.set(name, text)
  }

  #addSite(): void {
    if (this.#hasSite) return
    this.#hasSite = true
    const url = this.#site.get('wp:base_blog_url') ?? this.#site.get('link') ?? ''
    this.#records.push({
      is: 'site',
      title: this.#site.get('title') ?? '',
      url: url.trim().replace(/\/+$/, ''),
      language: (this.#site.get('language') ?? '').trim(),
    })
  }

  #finishInner(name: string, fields: Fields): void {
    const get = (key: string): string => fields.get(`wp:${key}`) ?? ''
    if (name === 'wp:postmeta') {
      if (this.#parts.meta.size < metaMax) this.#parts.meta.set(get('meta_key'), get('meta_value'))
      else this.#parts.unread += 1
    } else if (this.#parts.comments.length >= commentsMax) this.#parts.unread += 1
    else {
      this.#parts.comments.push({
        id: get('comment_id'),
        parent: get('comment_parent'),
        author: get('comment_author'),
        url: get('comment_author_url'),
        dateGmt: get('comment_date_gmt'),
        content: get('comment_content'),
        approved: get('comment_approved').trim() === '1',
        kind: get('comment_type').trim() || 'comment',
      })
    }
  }

  #finish(name: string, fields: Fields): void {
    const wp = (key: string): string => fields.get(`wp:${key}`) ?? ''
    if (name === 'item') this.#records.push({ is: 'item', item: itemOf(fields, this.#parts) })
    else if (name === 'wp:author') {
      const login = wp('author_login').trim()
      this.#records.push({
        is: 'author',
        login,
        name: wp('author_display_name').trim() || login,
        firstName: wp('author_first_name').trim(),
        lastName: wp('author_last_name').trim(),
      })
    } else this.#records.push({ is: 'term', term: termOf(name, wp) })
  }
}

/** WXR 1.0 calls the taxonomy of tags `tag`. */
function taxonomyOf(domain = 'category'): string {
  return domain === 'tag' ? 'post_tag' : domain
}

function termOf(name: string, wp: (key: string) => string): WxrTerm {
  if (name === 'wp:category')
    return {
      taxonomy: 'category',
      slug: decodeSlug(wp('category_nicename')),
      name: wp('cat_name'),
      parent: decodeSlug(wp('category_parent')),
      description: wp('category_description'),
    }
  if (name === 'wp:tag')
    return {
      taxonomy: 'post_tag',
      slug: decodeSlug(wp('tag_slug')),
      name: wp('tag_name'),
      parent: '',
      description: wp('tag_description'),
    }
  return {
    taxonomy: wp('term_taxonomy').trim(),
    slug: decodeSlug(wp('term_slug')),
    name: wp('term_name'),
    parent: decodeSlug(wp('term_parent')),
    description: wp('term_description'),
  }
}

function itemOf(fields: Fields, parts: Parts): WxrItem {
  const wp = (key: string): string => fields.get(`wp:${key}`) ?? ''
  return {
    id: wp('post_id').trim(),
    kind: wp('post_type').trim(),
    title: fields.get('title') ?? '',
    link: (fields.get('link') ?? '').trim(),
    creator: (fields.get('dc:creator') ?? '').trim(),
    content: fields.get('content:encoded') ?? '',
    excerpt: fields.get('excerpt:encoded') ?? '',
    date: wp('post_date').trim(),
    dateGmt: wp('post_date_gmt').trim(),
    modifiedGmt: wp('post_modified_gmt').trim(),
    slug: decodeSlug(wp('post_name')),
    status: wp('status').trim(),
    parent: wp('post_parent').trim(),
    menuOrder: wp('menu_order').trim(),
    password: wp('post_password'),
    sticky: wp('is_sticky').trim() === '1',
    commentsOpen: wp('comment_status').trim() === 'open',
    attachmentUrl: wp('attachment_url').trim(),
    ...parts,
  }
}

/** WordPress stores slugs of other scripts percent-encoded. */
function decodeSlug(text: string): string {
  const slug = text.trim()
  if (!slug.includes('%')) return slug
  try {
    return decodeURIComponent(slug).normalize('NFC')
  } catch {
    // WordPress cuts long slugs, sometimes inside an encoded character.
    return slug.replaceAll('%', '')
  }
}

/**
 * A time of WordPress (`2012-01-07 14:26:43`, in UTC) as ISO 8601; null for none, which it writes
 * as zeros, and for nonsense.
 */
export function wordpressTime(text: string): string | null {
  const match = /^(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)$/.exec(text.trim())
  if (match === null || match[1] === '0000') return null
  const iso = `${text.trim().replace(' ', 'T')}.000Z`
  const ms = Date.parse(iso)
  return Number.isNaN(ms) || new Date(ms).toISOString() !== iso ? null : iso
}
