import { BatchWriter } from '#cli/import/batch-writer.ts'
import { ImportSourceError } from '#cli/import/errors.ts'
import { existingPages, withdrawPages } from '#cli/import/existing-pages.ts'
import type { ExistingPages } from '#cli/import/existing-pages.ts'
import { FrontMatterSeen, fieldValue, inferType } from '#cli/import/infer-type.ts'
import type { InferredType } from '#cli/import/infer-type.ts'
import { findLayout, pageKey, placeOf } from '#cli/import/layout.ts'
import type { Layout, Place } from '#cli/import/layout.ts'
import { scanLinks } from '#cli/import/links.ts'
import type { Link } from '#cli/import/links.ts'
import { ensureLocales, saveType, typeOrNull } from '#cli/import/model-plan.ts'
import { fateOfPage } from '#cli/import/page-fate.ts'
import type { PageFate } from '#cli/import/page-fate.ts'
import { pageId, slugsOf } from '#cli/import/page-slugs.ts'
import { readAhead } from '#cli/import/page-source.ts'
import type { PageSource, SourceFile } from '#cli/import/page-source.ts'
import type { Report } from '#cli/import/report.ts'
import { namesOf, resolveLinks } from '#cli/import/resolve-links.ts'
import type { PageTable } from '#cli/import/resolve-links.ts'
import { Schedules } from '#cli/import/schedules.ts'
import type { Output } from '#cli/output.ts'
import type { Bulk, BulkItem } from '#content/bulk/bulk.ts'
import type { Call, Content } from '#content/content.ts'
import type { Clock } from '#lib/clock.ts'
import { PageReader } from '#lib/front-matter.ts'
import type { Page } from '#lib/front-matter.ts'

/** A longer path is an accident; unique values have a limit, too. */
const pathCharsMax = 500
/** A title is one line. */
const headingCharsMax = 500
const idsPerStatement = 5_000

export type MarkdownOptions = {
  readonly type: string
  /** Null: kept as earlier imports had it, or found. */
  readonly localesFromFolders: boolean | null
  readonly publish: boolean
  readonly prune: boolean
  readonly dryRun: boolean
  readonly siteUrl: string | null
}

export type MarkdownTarget = {
  readonly content: Content
  readonly bulk: Bulk
  readonly call: Call
  readonly clock: Clock
}

type Console = {
  readonly report: Report
  readonly output: Output
  readonly signal: AbortSignal
}

/**
 * Imports Markdown pages. The pages are read twice: for their front matter, and for their content
 * in batches. So memory holds a table of paths and two batches, never all pages. Ids derive from
 * type and path, and equal content makes no version: the import can be stopped anywhere and run
 * again. What its front matter or its name keeps from readers stays a draft.
 */
export async function importMarkdown(
  source: PageSource,
  target: MarkdownTarget,
  options: MarkdownOptions,
  console: Console,
): Promise<void> {
  if (source.files.length === 0)
    throw new ImportSourceError(
      'Nothing there is a Markdown page: no file ends in .md, .mdx or .markdown.',
    )
  const job = new MarkdownImport(source, target, options, console)
  if (!(await job.run())) console.report.interrupted()
}

/** The result of the first pass over the files: all that links, slugs and the type depend on. */
type Survey = {
  readonly layout: Layout
  readonly table: PageTable
  readonly slugs: ReadonlyMap<string, string>
  /** Files that are imported, by path in the source; the others were refused. */
  readonly files: ReadonlyMap<string, { readonly place: Place; readonly fate: PageFate }>
  readonly locales: ReadonlySet<string>
  /** `pageKey` of each page. */
  readonly keys: ReadonlySet<string>
  readonly inferred: InferredType
}

class MarkdownImport {
  readonly #source: PageSource
  readonly #target: MarkdownTarget
  readonly #options: MarkdownOptions
  readonly #console: Console
  readonly #reader = new PageReader()
  readonly #schedules: Schedules
  #defaultLocale = ''

  constructor(
    source: PageSource,
    target: MarkdownTarget,
    options: MarkdownOptions,
    console: Console,
  ) {
    this.#source = source
    this.#target = target
    this.#options = options
    this.#console = console
    this.#schedules = new Schedules(target, console.report)
  }

  /** False when it was interrupted. */
  async run(): Promise<boolean> {
    const { content, call, bulk } = this.#target
    const { report } = this.#console
    const { type, dryRun } = this.#options
    const locales = await content.locales.list(call.db)
    this.#defaultLocale = locales.find((locale) => locale.isDefault)!.code
    const definition = await typeOrNull(content, call.db, type)
    const existing = await existingPages(this.#target, definition === null ? null : type)
    const layout = findLayout(
      this.#source.files.map((file) => file.path),
      {
        isArchive: this.#source.isArchive,
        wish: this.#options.localesFromFolders,
        known: existing.keys,
        defaultLocale: this.#defaultLocale,
        localeCodes: new Set(locales.map((locale) => locale.code)),
        type,
      },
    )
    const survey = await this.#survey(layout, existing, definition)
    if (survey === null) return false
    const codes = await ensureLocales(content, call.db, [...survey.locales], { dryRun, report })
    await saveType(content, call.db, survey.inferred.definition, { ...this.#console, dryRun })
    this.#reportPassedOver()
    if (dryRun) return true

    const made = new Set<string>()
    const ids = [...survey.table.ids.values()]
    for (let at = 0; at < ids.length; at += idsPerStatement)
      for (const id of await bulk.reserve(call, type, ids.slice(at, at + idsPerStatement)))
        made.add(id)
    if (!(await this.#writePages(survey, codes))) return false
    report.lap('pages')
    await this.#schedules.save()
    for (const id of await bulk.release(call, type, ids)) made.delete(id)
    report.count('entries', 'made', made.size)
    report.count('entries', 'unchanged', ids.length - made.size)
    await withdrawPages(
      { ...this.#target, ...this.#console },
      { type, prune: this.#options.prune },
      { ids: survey.table.ids, keys: survey.keys, drafts: this.#draftKeys(survey) },
    )
    return true
  }

  /** Pages that say themselves that they are drafts, and must not stay published. */
  #draftKeys(survey: Survey): Set<string> {
    const keys = new Set<string>()
    for (const { place, fate } of survey.files.values())
      if (fate.is !== 'publish') keys.add(pageKey(this.#localeOf(place), place.path))
    return keys
  }

  #localeOf(place: Place): string {
    return place.locale ?? this.#defaultLocale
  }

  async #survey(
    layout: Layout,
    existing: ExistingPages,
    definition: Awaited<ReturnType<typeof typeOrNull>>,
  ): Promise<Survey | null> {
    const { type, siteUrl } = this.#options
    const { report, signal } = this.#console
    const seen = new FrontMatterSeen()
    const ids = new Map<string, string>()
    const files = new Map<string, { readonly place: Place; readonly fate: PageFate }>()
    const keys = new Set<string>()
    const locales = new Set<string>()
    for await (const { item: file, content } of readAhead(this.#source.files, (one) => one)) {
      if (signal.aborted) return null
      const place = placeOf(file.path, layout)
      const page = this.#readPage(file, content)
      const reason = refusal(place, page, keys, (one) => this.#localeOf(one))
      if (reason !== null || place === null || !page.ok) {
        report.refuse('pages', file.path, reason ?? '')
        continue
      }
      if (!seen.add(place.path, page.page.frontMatter)) {
        report.refuse('pages', file.path, tooManyKeys)
        continue
      }
      const fate = fateOfPage(file.path, page.page.frontMatter, this.#target.clock.nowMs())
      files.set(file.path, { place, fate })
      keys.add(pageKey(this.#localeOf(place), place.path))
      locales.add(this.#localeOf(place))
      ids.set(place.path, pageId(type, place.path))
    }
    const inferred = inferType(type, seen, definition)
    for (const note of inferred.notes) report.remark('type', type, note)
    const table: PageTable = {
      ids,
      names: namesOf(ids),
      locales: new Set([...locales].map((locale) => locale.toLowerCase())),
      siteUrl,
    }
    return { layout, table, slugs: slugsOf(ids, existing.slugs), files, locales, keys, inferred }
  }

  #readPage(
    file: SourceFile,
    content: Awaited<ReturnType<SourceFile['read']>>,
  ): { readonly ok: true; readonly page: Page } | { readonly ok: false; readonly reason: string } {
    return content.ok ? this.#reader.read(file.path, content.text) : content
  }

  /** Writes the pages in a second pass. False when it was interrupted. */
  async #writePages(survey: Survey, codes: ReadonlyMap<string, string>): Promise<boolean> {
    const { bulk, call } = this.#target
    const { report, output, signal } = this.#console
    const { type } = this.#options
    const progress = output.progress('Pages')
    const writer = new BatchWriter({ bulk, call, type, report, what: 'pages' })
    const files = this.#inOrder(survey)
    for await (const { item: file, content } of readAhead(files, (one) => one)) {
      if (signal.aborted) break
      const parsed = this.#readPage(file, content)
      if (!parsed.ok) {
        report.refuse('pages', file.path, 'The file changed during the import; run it again.')
        continue
      }
      const item = this.#itemOf(file, parsed.page, survey, codes)
      await writer.add(item, file.path, parsed.page.body.length)
      progress.update(writer.done, survey.files.size)
    }
    await writer.finish()
    progress.end(signal.aborted ? `Stopped after ${writer.done} pages` : `${writer.done} pages`)
    return !signal.aborted
  }

  /** All locales of a page follow each other, so that they share a batch. */
  #inOrder(survey: Survey): SourceFile[] {
    const keyOf = (file: SourceFile): string =>
      `${survey.files.get(file.path)!.place.path}\0${file.path}`
    return this.#source.files
      .filter((file) => survey.files.has(file.path))
      .toSorted((left, right) => (keyOf(left) < keyOf(right) ? -1 : 1))
  }

  #itemOf(
    file: SourceFile,
    page: Page,
    survey: Survey,
    codes: ReadonlyMap<string, string>,
  ): BulkItem {
    const { place, fate } = survey.files.get(file.path)!
    const { fields, unresolved, files } = fieldsOf(page, place, survey)
    this.#reportLinks(file.path, unresolved, files)
    const wanted = this.#localeOf(place)
    const locale = codes.get(wanted) ?? wanted
    const id = survey.table.ids.get(place.path)!
    this.#follow(file.path, { id, locale }, fate)
    return { id, locale, fields, publish: this.#options.publish && fate.is === 'publish' }
  }

  /** Reports what becomes of a page that is not simply published, and schedules what is due. */
  #follow(
    where: string,
    entry: { readonly id: string; readonly locale: string },
    fate: PageFate,
  ): void {
    const { report } = this.#console
    if (!this.#options.publish) return
    const { type } = this.#options
    if (fate.is === 'draft') report.remark('draft', where, `It is kept as a draft. ${fate.reason}`)
    else {
      if (fate.is === 'schedule')
        this.#schedules.add({ ...entry, type, action: 'publish', dueAt: fate.dueAt, where })
      else if (fate.remark !== null) report.remark('page', where, fate.remark)
      if (fate.unpublishAt !== null)
        this.#schedules.add({ ...entry, type, action: 'unpublish', dueAt: fate.unpublishAt, where })
    }
  }

  #reportLinks(where: string, unresolved: readonly Link[], files: readonly Link[]): void {
    const { report } = this.#console
    for (const { target, line } of unresolved) {
      const sentence = `"${target.slice(0, 200)}" leads to no page of the import.`
      report.remark('link', `${where}:${line}`, sentence)
    }
    for (const { target, line } of files) {
      const sentence = `"${target.slice(0, 200)}" is a file, and files are not taken over.`
      report.leaveOut('file', `${where}:${line}`, sentence)
    }
  }

  #reportPassedOver(): void {
    const { report } = this.#console
    const { links, others } = this.#source.passedOver
    for (const path of links)
      report.leaveOut('link', path, 'It is a symbolic link, which an import does not follow.')
    const kinds = [...others].toSorted(([, left], [, right]) => right - left)
    if (kinds.length === 0) return
    const list = kinds.map(([ending, count]) => `${count} ${ending}`).join(', ')
    report.remark('files', this.#source.name, `Files that are no pages are passed over: ${list}.`)
  }
}

const tooManyKeys =
  'The pages have too many different front-matter keys; this looks like data, not front matter.'

/** Returns why a page is not imported; null: it is. */
function refusal(
  place: Place | null,
  page: { readonly ok: true } | { readonly ok: false; readonly reason: string },
  keys: ReadonlySet<string>,
  localeOf: (place: Place) => string,
): string | null {
  if (place === null)
    return (
      'It lies outside the folder that the pages of this type come from; import it with another ' +
      '--type.'
    )
  if (place.path.length > pathCharsMax) return `The path is longer than ${pathCharsMax} characters.`
  if (keys.has(pageKey(localeOf(place), place.path)))
    return `Another file is the page "${place.path}" already; a folder and its index are one page.`
  return page.ok ? null : page.reason
}

type PageFields = {
  readonly fields: Record<string, unknown>
  readonly unresolved: readonly Link[]
  readonly files: readonly Link[]
}

function fieldsOf(page: Page, place: Place, survey: Survey): PageFields {
  const fields: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(page.frontMatter)) {
    const field = survey.inferred.fieldOf.get(key)
    if (field !== undefined && value !== null) fields[field.name] = fieldValue(field, value)
  }
  fields['title'] ??= headingOf(page.body) ?? place.path.split('/').at(-1)
  const { ids, unresolved, files } = resolveLinks(scanLinks(page.body), place, survey.table)
  const own = { path: place.path, slug: survey.slugs.get(place.path), body: page.body, links: ids }
  return { fields: { ...fields, ...own }, unresolved, files }
}

/** The heading that a page begins with; null when it begins with something else. */
function headingOf(body: string): string | null {
  const line = body.slice(0, headingCharsMax).trimStart().split('\n', 1)[0] ?? ''
  return /^#[ \t]+(\S.*)$/.exec(line)?.[1]?.trim() ?? null
}
