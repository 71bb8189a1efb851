import type { Report } from '#cli/import/report.ts'
import type { WxrItem } from '#cli/import/wordpress/wxr.ts'

/** Names of one kind that are counted apart; the rest counts together. */
const namesMax = 1_000
/** A text is searched for shortcodes up to here. */
const searchedCharsMax = 1_000_000

/** Fields by which WordPress itself and its editors remember something of no use elsewhere. */
const internalFields =
  /^_(?:edit_|wp_|thumbnail_id$|pingme$|encloseme$|oembed_|menu_item_|customize_|publicize_)/
/** Taxonomies that are taken over. */
const knownTaxonomies = new Set(['category', 'post_tag', 'post_format', 'nav_menu'])
/** Shortcodes that stand without attributes. */
const bareShortcodes = new Set(['audio', 'caption', 'embed', 'gallery', 'playlist', 'video'])

/**
 * Counts what the items of an export have and Stoa does not take over, so that the report names
 * each thing once with the number of items that have it.
 */
export class Losses {
  readonly #counts = new Map<string, Map<string, number>>()

  count(what: string, name: string, times = 1): void {
    let names = this.#counts.get(what)
    if (names === undefined) {
      names = new Map()
      this.#counts.set(what, names)
    }
    const key = names.has(name) || names.size < namesMax ? name : 'others'
    names.set(key, (names.get(key) ?? 0) + times)
  }

  /** Counts what an item has beside its text, and what in its text stays as it is written. */
  item(item: WxrItem): void {
    for (const key of item.meta.keys())
      if (!internalFields.test(key)) this.count('custom fields', key)
    for (const { taxonomy } of item.terms)
      if (!knownTaxonomies.has(taxonomy)) this.count('taxonomies', taxonomy)
    for (const name of shortcodesOf(item.content)) this.count('shortcodes', name)
    if (/\[:[a-z]{2}\]|<!--:[a-z]{2}-->/.test(`${item.title}${item.content}`))
      this.count('texts', 'several languages in one text (qTranslate)')
    if (`${item.title}${item.content}${item.excerpt}`.includes('\uFFFD'))
      this.count('texts', 'bytes that are no characters of the encoding')
    if (item.modifiedGmt !== '' && item.modifiedGmt !== item.dateGmt)
      this.count('dates', 'the time of the last change')
    if (item.unread > 0) this.count('texts', 'comments and fields beyond the limit', item.unread)
  }

  report(report: Report): void {
    for (const [what, names] of this.#counts)
      for (const [name, times] of names) report.leaveOut(what, name, sentenceOf(what, times))
    this.#counts.clear()
  }
}

function sentenceOf(what: string, times: number): string {
  const subject = times === 1 ? '1 item has it' : `${times} items have it`
  return what === 'shortcodes'
    ? `${subject}; it stays in the text as it is written.`
    : `${subject}; it is not taken over.`
}

/** The names of the shortcodes of a text: `[gallery ids="1,2"]`, `[caption]…[/caption]`. */
function shortcodesOf(content: string): Set<string> {
  const names = new Set<string>()
  const text = content.slice(0, searchedCharsMax)
  for (const [, name = '', rest = ''] of text.matchAll(/\[([a-z][\w-]{1,50})([^[\]]{0,500})\]/g)) {
    const isShortcode =
      bareShortcodes.has(name) || /^\s+[\w-]+=/.test(rest) || text.includes(`[/${name}]`)
    if (isShortcode) names.add(name)
  }
  return names
}
