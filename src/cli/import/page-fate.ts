import { instantOf } from '#cli/import/instant.ts'
import type { FrontMatter } from '#lib/front-matter.ts'

/** Says for whom a page is, by its front matter, its name and its folder. */
export type PageFate =
  | { readonly is: 'publish'; readonly unpublishAt: string | null; readonly remark: string | null }
  | { readonly is: 'schedule'; readonly dueAt: string; readonly unpublishAt: string | null }
  | { readonly is: 'draft'; readonly reason: string }

/**
 * Keys that keep a page from readers when they are true: of Hugo, Jekyll, Zola, Docusaurus,
 * Astro, Eleventy, Grav and Obsidian Publish. `draft` does so with any value but false.
 */
const hidingKeys = new Set([
  'confidential',
  'disabled',
  'embargoed',
  'headless',
  'hidden',
  'internal',
  'isdraft',
  'ishidden',
  'isprivate',
  'private',
  'secret',
  'trashed',
  'unlisted',
  'unpublished',
  'wip',
])

/** Keys that keep a page from readers when they are false. */
const showingKeys = new Set([
  'enabled',
  'ispublic',
  'ispublished',
  'listed',
  'live',
  'output',
  'permalink',
  'public',
  'publish',
  'published',
  'render',
  'visible',
])

const stateKeys = new Set([
  'poststatus',
  'publicationstatus',
  'publishstatus',
  'state',
  'status',
  'workflow',
  'workflowstate',
])
const publicStates = wordsPattern('^(?:', [
  'published?|public|live|active|final|done|completed?|released?|approved|stable|visible',
  'all|everyone)$',
])
const hiddenStates = wordsPattern('(?:', [
  'draft|unpublish|private|hidden|pending|review|wip|progress|todo|idea|outline|schedul|future',
  'embargo|archiv|delet|trash|internal|inactive|disabled|reject|confidential|secret',
  'not[ _-]?(?:ready|published|public|yet))',
])

function wordsPattern(start: string, words: readonly string[]): RegExp {
  return new RegExp(start + words.join('|'), 'i')
}

/** Keys whose time is the one from which a page is public; `date` counts where there is none. */
const publishTimes = new Set([
  'availablefrom',
  'embargo',
  'embargountil',
  'golive',
  'golivedate',
  'pubdate',
  'publicationdate',
  'publishat',
  'publishdate',
  'publishedat',
  'publishedon',
  'publishfrom',
  'publishon',
  'releasedate',
  'scheduledat',
])
const expiryTimes = new Set([
  'expirationdate',
  'expire',
  'expiredate',
  'expires',
  'expiresat',
  'expirydate',
  'publishuntil',
  'unpublishat',
  'unpublishdate',
  'unpublishon',
])

/**
 * Decides by what the static site generators would do; where they differ, the page stays a draft.
 * `path` is the path of the file in the source.
 */
export function fateOfPage(path: string, frontMatter: FrontMatter, nowMs: number): PageFate {
  const pairs = pairsOf(frontMatter)
  const reason = hiddenByName(path) ?? hiddenByFrontMatter(pairs)
  if (reason !== null) return { is: 'draft', reason }
  const times = publicationTimes(path, pairs, nowMs)
  if (times.unreadable !== null) return { is: 'draft', reason: times.unreadable }
  const unpublishAt = times.until
  if (unpublishAt !== null && Date.parse(unpublishAt) <= nowMs)
    return { is: 'draft', reason: `It expired at ${unpublishAt}.` }
  const dueAt = times.from
  if (dueAt !== null && Date.parse(dueAt) > nowMs) return { is: 'schedule', dueAt, unpublishAt }
  return { is: 'publish', unpublishAt, remark: unknownState(pairs) }
}

type Pair = { readonly key: string; readonly name: string; readonly value: unknown }

/** Keys without case, `-` and `_`; those of `build` and `_build` (Hugo) count as well. */
function pairsOf(frontMatter: FrontMatter): Pair[] {
  return Object.entries(frontMatter).flatMap(([name, value]): Pair[] => {
    const key = name.toLowerCase().replaceAll(/[^a-z]/g, '')
    const isBuild = key === 'build' && typeof value === 'object' && value !== null
    return isBuild ? pairsOf(value as FrontMatter) : [{ key, name, value }]
  })
}

function hiddenByName(path: string): string | null {
  const segments = path.split('/')
  const file = segments.at(-1) ?? ''
  const drafts = segments.slice(0, -1).find((segment) => /^[_.]?drafts?$/i.test(segment))
  if (drafts !== undefined) return `It lies in the folder ${drafts}.`
  if (/\.draft\.[a-z]+$/i.test(file)) return 'Its name ends in .draft.'
  const underscored = segments.find(
    (segment) => segment.startsWith('_') && !/^_(?:posts|pages|index\.[a-z]+)$/i.test(segment),
  )
  return underscored === undefined
    ? null
    : `${underscored} begins with _, and site generators publish no such page.`
}

function hiddenByFrontMatter(pairs: readonly Pair[]): string | null {
  for (const { key, name, value } of pairs) {
    if (isEmpty(value)) continue
    const says = `Its front matter has ${name}: ${textOf(value)}.`
    if (key === 'draft' && !isFalse(value)) return says
    if (hidingKeys.has(key) && isTrue(value)) return says
    if (showingKeys.has(key) && (isFalse(value) || isNever(value))) return says
    if (key === 'password') return 'It is protected by a password, which entries do not have.'
    if (key === 'visibility' && !publicStates.test(textOf(value))) return says
    if (stateKeys.has(key) && hiddenStates.test(textOf(value))) return says
  }
  return null
}

function unknownState(pairs: readonly Pair[]): string | null {
  const unknown = pairs.find(
    ({ key, value }) =>
      stateKeys.has(key) && !isEmpty(value) && !publicStates.test(textOf(value).trim()),
  )
  return unknown === undefined
    ? null
    : `"${unknown.name}: ${textOf(unknown.value)}" does not say that the page is a draft; it is ` +
        `published.`
}

type Times = {
  readonly from: string | null
  readonly until: string | null
  /** A time of publication that cannot be read: it could be in the future. */
  readonly unreadable: string | null
}

function publicationTimes(path: string, pairs: readonly Pair[], nowMs: number): Times {
  const froms: string[] = []
  const untils: string[] = []
  for (const { key, name, value } of pairs) {
    const isFrom = publishTimes.has(key) || (key === 'published' && !isTrue(value))
    if (isEmpty(value) || (!isFrom && !expiryTimes.has(key))) continue
    const at = timeOf(value)
    if (at === null) {
      const unreadable = `Its front matter has ${name}: ${textOf(value)}, which is no date.`
      return { from: null, until: null, unreadable }
    }
    if (isFrom) froms.push(at)
    else untils.push(at)
  }
  const date = pairs.find(({ key }) => key === 'date')?.value
  const dated = isEmpty(date) ? instantOf(dateInName(path)) : timeOf(date)
  const from = froms.toSorted().at(-1) ?? dated
  const until = untils.toSorted()[0] ?? null
  const unreadable =
    from === null && namesLaterYear(date, nowMs)
      ? `Its front matter has date: ${textOf(date)}, which cannot be read and may be in the future.`
      : null
  return { from, until, unreadable }
}

/** Other forms than those of front matter count here: a page is not public before its time. */
function timeOf(value: unknown): string | null {
  const text = typeof value === 'number' ? String(value) : value
  if (typeof text !== 'string') return null
  const instant = instantOf(text)
  if (instant !== null || /^\d{5,}$/.test(text)) return instant
  const ms = Date.parse(text)
  return Number.isNaN(ms) ? null : new Date(ms).toISOString()
}

function namesLaterYear(value: unknown, nowMs: number): boolean {
  if (isEmpty(value)) return false
  const thisYear = new Date(nowMs).getUTCFullYear()
  return [...textOf(value).matchAll(/\d{4}/g)].some((match) => Number(match[0]) > thisYear)
}

/** Jekyll names posts `2019-05-06-hello.md`. */
function dateInName(path: string): string | null {
  return /(?:^|\/)(\d{4}-\d\d-\d\d)[-_][^/]*$/.exec(path)?.[1] ?? null
}

function textOf(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.slice(0, 100).replaceAll(/\s+/g, ' ')
}

function isEmpty(value: unknown): boolean {
  return value === null || value === undefined || value === ''
}

function isTrue(value: unknown): boolean {
  return value === true || value === 1 || /^(?:true|yes|y|on|1|x)$/i.test(asWord(value))
}

function isFalse(value: unknown): boolean {
  return value === false || value === 0 || /^(?:false|no|n|off|0)$/i.test(asWord(value))
}

/** Hugo writes `render: never`. */
function isNever(value: unknown): boolean {
  return /^(?:never|none)$/i.test(asWord(value))
}

function asWord(value: unknown): string {
  return typeof value === 'string' ? value.trim() : ''
}
