import { plainLines, plainText } from '#cli/import/html-tree.ts'
import { richTextOf } from '#cli/import/rich-text.ts'
import type { Addresses } from '#cli/import/rich-text.ts'
import { termKey } from '#cli/import/wordpress/wordpress-survey.ts'
import type { WordpressSurvey } from '#cli/import/wordpress/wordpress-survey.ts'
import { wordpressTime } from '#cli/import/wordpress/wxr.ts'
import type { WxrComment, WxrItem } from '#cli/import/wordpress/wxr.ts'

/** Characters that are kept of a comment. */
const commentCharsMax = 20_000
const textCharsMax = 20_000
const addressCharsMax = 2_000

/** Finds what an item refers to. */
export type Surroundings = {
  readonly survey: WordpressSurvey
  readonly addresses: Addresses
  readonly assetOf: (wordpressId: string) => string | null
  /** True for an entry that was refused: referring to it would lead to nothing. */
  readonly isRefused: (id: string) => boolean
}

/** The fields of a post or page. What is empty is left out. */
export function itemFields(item: WxrItem, around: Surroundings): Record<string, unknown> {
  const { survey } = around
  const comments = commentsOf(item.comments)
  const author = survey.authors.get(item.creator)?.id
  const fields: Record<string, unknown> = {
    title: cut(plainText(item.title)),
    slug: survey.items.get(item.id)?.slug,
    body: richTextOf(item.content, around.addresses, (what) => survey.losses.count('texts', what)),
    excerpt: cut(plainText(item.excerpt)),
    author: author === undefined || around.isRefused(author) ? null : author,
    featuredImage: around.assetOf(item.meta.get('_thumbnail_id') ?? ''),
    commentsOpen: item.commentsOpen,
    comments: comments.length === 0 ? null : comments,
    originalUrl: webAddress(item.link),
  }
  if (item.kind === 'page') Object.assign(fields, pageFields(item, survey))
  else Object.assign(fields, postFields(item, around))
  return present(fields)
}

function pageFields(item: WxrItem, survey: WordpressSurvey): Record<string, unknown> {
  const parent = survey.items.get(item.parent)
  const order = Number(item.menuOrder)
  const template = item.meta.get('_wp_page_template') ?? 'default'
  return {
    parent: parent?.kind === 'page' ? parent.id : null,
    menuOrder: Number.isSafeInteger(order) ? order : 0,
    template: template === 'default' ? null : template,
  }
}

function postFields(item: WxrItem, around: Surroundings): Record<string, unknown> {
  const { survey, isRefused } = around
  const ids = (taxonomy: string, terms: WordpressSurvey['tags']): string[] => [
    ...new Set(
      item.terms
        .filter((term) => term.taxonomy === taxonomy)
        .flatMap((term) => terms.get(termKey(term))?.id ?? [])
        .filter((id) => !isRefused(id)),
    ),
  ]
  const format = item.terms
    .find((term) => term.taxonomy === 'post_format')
    ?.slug.replace(/^post-format-/, '')
    .slice(0, 100)
  return {
    categories: ids('category', survey.categories),
    tags: ids('post_tag', survey.tags),
    sticky: item.sticky,
    format: format ?? 'standard',
  }
}

/** Approved comments, as plain text, with neither email nor network address. */
function commentsOf(comments: readonly WxrComment[]): unknown[] {
  return comments
    .filter((comment) => comment.approved)
    .map(({ id, parent, author, url, dateGmt, content, kind }) =>
      present({
        id,
        parent: parent === '0' ? null : parent,
        author: cut(plainText(author)),
        url: webAddress(url),
        at: wordpressTime(dateGmt),
        kind,
        text: plainLines(content).slice(0, commentCharsMax).toWellFormed(),
      }),
    )
}

function present(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(
      ([, value]) => value !== null && value !== undefined && value !== '',
    ),
  )
}

/** The fields of an attachment. `file` is the asset, where there is one. */
export function attachmentFields(
  item: WxrItem,
  survey: WordpressSurvey,
  file: string | null,
): Record<string, unknown> {
  return present({
    title: cut(plainText(item.title)),
    slug: survey.items.get(item.id)?.slug,
    file,
    alt: cut(plainText(item.meta.get('_wp_attachment_image_alt') ?? '')),
    caption: cut(plainText(item.excerpt)),
    description: cut(plainText(item.content)),
    originalUrl: webAddress(item.attachmentUrl),
  })
}

/** Sites make links of it, so it is an address of the web; a shortened one would lead elsewhere. */
function webAddress(text: string): string | null {
  return text.length <= addressCharsMax && /^https?:\/\//i.test(text) ? text : null
}

function cut(text: string): string {
  return text.replaceAll('\0', '').slice(0, textCharsMax).toWellFormed()
}
