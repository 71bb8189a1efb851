import { derivedId } from '#cli/import/derived-id.ts'
import { ImportSourceError } from '#cli/import/errors.ts'
import type { Report } from '#cli/import/report.ts'
import { plainText } from '#cli/import/html-tree.ts'
import { wordpressKinds } from '#cli/import/wordpress/wordpress-types.ts'
import type { WordpressKind } from '#cli/import/wordpress/wordpress-types.ts'
import { readWxr, wordpressTime } from '#cli/import/wordpress/wxr.ts'
import type { WxrItem, WxrTerm } from '#cli/import/wordpress/wxr.ts'
import { Losses } from '#cli/import/wordpress/losses.ts'
import { makeSlug, slugProblem } from '#content/validation/slug.ts'

/** Ids, slugs and addresses of items are kept in memory: about 500 bytes for each. */
const itemsMax = 500_000

export type Author = {
  readonly id: string
  readonly login: string
  readonly name: string
  readonly firstName: string
  readonly lastName: string
  readonly slug: string
}
export type Term = {
  readonly id: string
  readonly slug: string
  readonly name: string
  readonly description: string
  readonly parent: string | null
}

/** An item that will be an entry. */
export type Known = {
  readonly id: string
  readonly kind: 'post' | 'page' | 'attachment'
  readonly slug: string
}

export type WordpressSurvey = {
  readonly siteUrl: string
  readonly language: string
  readonly authors: ReadonlyMap<string, Author>
  readonly categories: ReadonlyMap<string, Term>
  readonly tags: ReadonlyMap<string, Term>
  /** By the id that the item has in WordPress. */
  readonly items: ReadonlyMap<string, Known>
  /** Entry ids by the path of the address that items had. */
  readonly byAddress: ReadonlyMap<string, string>
  readonly counts: { readonly entries: number }
  readonly losses: Losses
}

/** Slugs of the entries that exist already, by id, for each kind. */
export type ExistingSlugs = Readonly<Record<WordpressKind, ReadonlyMap<string, string>>>

/**
 * Reads an export for the first time: what it has, and which ids and slugs that gets, so that the
 * second pass can refer to what comes later in the file. What has no place in Stoa is refused here.
 * A slug that an entry has is kept; one that another entry has is taken. Null when it was
 * interrupted.
 */
export async function surveyWordpress(
  path: string,
  existing: ExistingSlugs,
  report: Report,
  signal: AbortSignal,
): Promise<WordpressSurvey | null> {
  const survey = new Survey(existing, report)
  for await (const record of readWxr(path)) {
    if (signal.aborted) return null
    if (record.is === 'site') survey.site(record.url, record.language)
    else if (record.is === 'author') survey.author(record.login, record)
    else if (record.is === 'term') survey.term(record.term)
    else survey.item(record.item)
  }
  return survey.result()
}

class Survey {
  readonly #report: Report
  #siteUrl = ''
  #language = ''
  readonly #authors = new Map<string, Author>()
  readonly #terms = { category: new Map<string, Term>(), tag: new Map<string, Term>() }
  readonly #items = new Map<string, Known>()
  readonly #byAddress = new Map<string, string>()
  readonly #existing: ExistingSlugs
  /** `post slug` and the like: slugs that are in use. */
  readonly #slugs = new Set<string>()
  readonly #losses = new Losses()

  constructor(existing: ExistingSlugs, report: Report) {
    this.#existing = existing
    this.#report = report
    for (const kind of wordpressKinds)
      for (const slug of existing[kind].values()) this.#slugs.add(`${kind} ${slug}`)
  }

  site(url: string, language: string): void {
    if (url === '')
      throw new ImportSourceError(
        'The export does not say which site it is of; it has neither wp:base_blog_url nor link.',
        {},
      )
    this.#siteUrl = url
    this.#language = language
  }

  author(
    login: string,
    names: { readonly name: string; readonly firstName: string; readonly lastName: string },
  ): void {
    if (login === '' || this.#authors.has(login)) return
    const { name, firstName, lastName } = names
    this.#authors.set(login, {
      id: this.#id('author', login),
      login,
      name,
      firstName,
      lastName,
      slug: this.#slug('author', [login, name], login),
    })
  }

  term(term: WxrTerm): void {
    if (term.taxonomy === 'category' || term.taxonomy === 'post_tag') this.#addTerm(term)
    else if (term.taxonomy === 'nav_menu')
      this.#report.refuse(
        'menus',
        term.name || term.slug,
        'Stoa has no menus; build navigation in the site from pages and their parents.',
      )
    else if (term.taxonomy !== 'post_format')
      this.#report.refuse(
        'terms',
        `${term.taxonomy}/${term.slug}`,
        `The taxonomy "${term.taxonomy}" is not imported, only categories and tags are.`,
      )
  }

  #addTerm(term: WxrTerm): void {
    const kind = term.taxonomy === 'category' ? 'category' : 'tag'
    const key = termKey(term)
    const terms = this.#terms[kind]
    if (key === '' || terms.has(key)) return
    const name = plainText(term.name) || key
    terms.set(key, {
      id: this.#id(kind, key),
      slug: this.#slug(kind, [key, name], key),
      name,
      description: plainText(term.description),
      parent: term.parent === '' ? null : term.parent,
    })
  }

  item(item: WxrItem): void {
    const where = `${item.kind} ${item.id} "${item.title.slice(0, 80)}"`
    if (this.#items.size >= itemsMax)
      throw new ImportSourceError(
        `The export has more than ${itemsMax} items; export the site in parts.`,
        {},
      )
    if (item.kind === 'nav_menu_item')
      this.#report.refuse(
        'menu items',
        where,
        'Stoa has no menus; build navigation in the site from pages and their parents.',
      )
    else if (item.kind !== 'post' && item.kind !== 'page' && item.kind !== 'attachment')
      this.#report.refuse(
        'items',
        where,
        `Items of the kind "${item.kind}" are not imported, only posts, pages and attachments are.`,
      )
    else if (item.status === 'trash' || item.status === 'auto-draft')
      this.#report.refuse(
        `${item.kind}s`,
        where,
        `It is in the state "${item.status}" in WordPress.`,
      )
    else if (item.id === '')
      this.#report.refuse(
        `${item.kind}s`,
        where,
        'It has no wp:post_id, so it could not be found again.',
      )
    else if (this.#items.has(item.id))
      this.#report.refuse(`${item.kind}s`, where, 'Another item has the same wp:post_id.')
    else this.#take(item, item.kind)
  }

  #take(item: WxrItem, kind: Known['kind']): void {
    const known: Known = {
      id: this.#id(kind, item.id),
      kind,
      slug: this.#slug(kind, [item.slug, plainText(item.title)], item.id),
    }
    this.#items.set(item.id, known)
    this.#losses.item(item)
    const address = addressOf(item.link, this.#siteUrl)
    if (address !== null && address !== '/') this.#byAddress.set(address, known.id)
    if (item.creator !== '' && !this.#authors.has(item.creator))
      this.#report.remark(
        'authors',
        item.creator,
        'Items name this author, whom the export does not describe; only the login is known.',
      )
    if (item.creator !== '')
      this.author(item.creator, { name: item.creator, firstName: '', lastName: '' })
    for (const { taxonomy, slug, name } of item.terms)
      if (taxonomy === 'category' || taxonomy === 'post_tag')
        this.#addTerm({ taxonomy, slug, name, parent: '', description: '' })
  }

  #id(kind: WordpressKind, key: string): string {
    return derivedId('wordpress', siteKey(this.#siteUrl), kind, key)
  }

  /**
   * The slug that the entry has, or the first of the candidates that can be one, with the key
   * behind it when it is in use.
   */
  #slug(kind: WordpressKind, candidates: readonly string[], key: string): string {
    const kept = this.#existing[kind].get(this.#id(kind, key))
    if (kept !== undefined) return kept
    const fitting = candidates
      .map((text) => (text !== '' && slugProblem(text) === null ? text : makeSlug(text)))
      .find((text) => text !== '')
    const wanted = fitting ?? kind
    let slug =
      fitting === undefined || this.#slugs.has(`${kind} ${wanted}`)
        ? `${wanted.slice(0, 150)}-${makeSlug(key) || 'x'}`
        : wanted
    for (let number = 2; this.#slugs.has(`${kind} ${slug}`); number += 1)
      slug = `${wanted.slice(0, 150)}-${makeSlug(key) || 'x'}-${number}`
    this.#slugs.add(`${kind} ${slug}`)
    return slug
  }

  result(): WordpressSurvey {
    if (this.#siteUrl === '')
      throw new ImportSourceError('This is no WordPress export: it has no channel.', {})
    const { category, tag } = this.#terms
    const entries = this.#authors.size + category.size + tag.size + this.#items.size
    return {
      siteUrl: this.#siteUrl,
      language: this.#language,
      authors: this.#authors,
      categories: category,
      tags: tag,
      items: this.#items,
      byAddress: this.#byAddress,
      counts: { entries },
      losses: this.#losses,
    }
  }
}

/**
 * Identifies a site: the same one with `https` for `http`, or with `www`, is the same site, so its
 * items are the same entries.
 */
function siteKey(url: string): string {
  if (!URL.canParse(url)) return url
  const { host, pathname } = new URL(url)
  return `${bareHost(host)}${pathname.replace(/\/+$/, '')}`
}

/** A host without `www.`. */
export function bareHost(host: string): string {
  return host.toLowerCase().replace(/^www\./, '')
}

/** Identifies a category or tag: its slug, or one made from its name. Empty: it has neither. */
export function termKey(term: { readonly slug: string; readonly name: string }): string {
  return term.slug || makeSlug(term.name)
}

/**
 * The path and query of an address on this site, without a slash at the end; null for other sites.
 */
export function addressOf(address: string, siteUrl: string): string | null {
  if (!URL.canParse(address, siteUrl) || !URL.canParse(siteUrl)) return null
  const url = new URL(address, siteUrl)
  if (bareHost(url.host) !== bareHost(new URL(siteUrl).host)) return null
  return `${url.pathname.replace(/\/+$/, '') || '/'}${url.search}`
}

export type Fate =
  | { readonly is: 'publish'; readonly at: string | null }
  | { readonly is: 'schedule'; readonly dueAt: string }
  | { readonly is: 'draft'; readonly remark: string | null }

/** Decides what becomes of an item. Nothing that was not open in WordPress is published. */
export function fateOf(
  item: Pick<WxrItem, 'status' | 'password' | 'date' | 'dateGmt'>,
  nowMs: number,
): Fate {
  if (item.password !== '')
    return {
      is: 'draft',
      remark:
        'It is protected by a password in WordPress, which Stoa has not for entries; it is ' +
        'kept as a draft, and the password is not.',
    }
  const at = dateOf(item)
  switch (item.status) {
    case 'publish':
    case 'inherit':
      return { is: 'publish', at }
    case 'future':
      if (at === null)
        return {
          is: 'draft',
          remark: 'It is scheduled in WordPress without a time; it is kept as a draft.',
        }
      return Date.parse(at) <= nowMs ? { is: 'publish', at } : { is: 'schedule', dueAt: at }
    case 'private':
      return { is: 'draft', remark: 'It is private in WordPress; it is kept as a draft.' }
    case 'draft':
    case 'pending':
      return { is: 'draft', remark: null }
    default:
      return {
        is: 'draft',
        remark: `Its state in WordPress, "${item.status}", is not known; it is kept as a draft.`,
      }
  }
}

/** Returns when an item was or will be published. Drafts have no time in UTC, only a local one. */
export function dateOf(item: Pick<WxrItem, 'date' | 'dateGmt'>): string | null {
  return wordpressTime(item.dateGmt) ?? wordpressTime(item.date)
}
