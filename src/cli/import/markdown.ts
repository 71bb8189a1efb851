import { ImportSourceError } from '#cli/import/errors.ts'
import { PageReader } from '#lib/front-matter.ts'
import { FrontMatterSeen, fieldValue, inferType } from '#cli/import/infer-type.ts'
import type { InferredType } from '#cli/import/infer-type.ts'
import { scanLinks } from '#cli/import/links.ts'
import type { Layout, Place } from '#cli/import/page-table.ts'
import { findLayout, pageId, placeOf, slugsOf } from '#cli/import/page-table.ts'
import { readAhead } from '#cli/import/page-source.ts'
import type { PageSource, SourceFile } from '#cli/import/page-source.ts'
import { BatchWriter } from '#cli/import/batch-writer.ts'
import { ensureLocales, saveType, typeOrNull } from '#cli/import/model-plan.ts'
import { findRemoved } from '#cli/import/removed.ts'
import { resolveLinks } from '#cli/import/resolve-links.ts'
import type { PageTable } from '#cli/import/resolve-links.ts'
import type { Report } from '#cli/import/report.ts'
import type { Output } from '#cli/output.ts'
import type { Bulk, BulkItem } from '#content/bulk/bulk.ts'
import type { Call, Content } from '#content/content.ts'

/** A page path longer than this is no path but an accident; unique values have a limit too. */
const pathCharsMax = 500
/** A title is a line. */
const headingCharsMax = 500

export type MarkdownOptions = {
  readonly type: string
  readonly localesFromFolders: boolean | null
  readonly publish: boolean
  readonly prune: boolean
  readonly dryRun: boolean
  readonly siteUrl: string | null
}

export type MarkdownTarget = { readonly content: Content; readonly bulk: Bulk; readonly call: Call }

/**
 * What the first passes over the files found: everything that links, slugs and the type depend on.
 */
type Survey = {
  readonly layout: Layout
  readonly table: PageTable
  /** Files that the import takes, by path in the source; the others were refused. */
  readonly taken: ReadonlySet<string>
  readonly locales: ReadonlySet<string>
  readonly pages: ReadonlySet<string>
  readonly inferred: InferredType
  readonly reader: PageReader
}

/**
 * Imports Markdown pages. The pages are gone through twice: for their front matter, and for their
 * content in batches; so memory holds a table of paths and two batches, never all pages. Ids derive
 * from type and path, and equal content makes no version: the import can be stopped anywhere and
 * run again.
 */
export async function importMarkdown(
  source: PageSource,
  target: MarkdownTarget,
  options: MarkdownOptions,
  tell: { readonly report: Report; readonly output: Output; readonly signal: AbortSignal },
): Promise<void> {
  if (source.files.length === 0)
    throw new ImportSourceError(
      'Nothing there is a Markdown page: no file ends in .md, .mdx or .markdown.',
    )
  const { content, call } = target
  const defaultLocale = (await content.locales.list(call.db)).find(
    (locale) => locale.isDefault,
  )!.code
  const survey = await surveyOf(source, target, options, defaultLocale, tell)
  if (survey === null) {
    tell.report.interrupted()
    return
  }
  const used = await ensureLocales(content, call.db, [...survey.locales], {
    dryRun: options.dryRun,
    report: tell.report,
  })
  await saveType(content, call.db, survey.inferred.definition, { dryRun: options.dryRun, ...tell })
  if (options.dryRun) return

  const made = new Set<string>()
  const ids = [...survey.table.ids.values()]
  for (let at = 0; at < ids.length; at += 5_000)
    for (const id of await target.bulk.reserve(call, options.type, ids.slice(at, at + 5_000)))
      made.add(id)
  const finished = await writePages(source, survey, used, target, options, tell)
  if (!finished) {
    tell.report.interrupted()
    return
  }
  tell.report.lap('pages')
  for (const id of await target.bulk.release(call, options.type, ids)) made.delete(id)
  tell.report.count('entries', 'made', made.size)
  tell.report.count('entries', 'unchanged', ids.length - made.size)
  await findRemoved({ ...target, ...tell }, options, survey.table.ids, survey.pages)
}

async function surveyOf(
  source: PageSource,
  target: MarkdownTarget,
  options: MarkdownOptions,
  defaultLocale: string,
  tell: { readonly report: Report; readonly signal: AbortSignal },
): Promise<Survey | null> {
  const layout = findLayout(
    source.files.map((file) => file.path),
    options.localesFromFolders,
  )
  const seen = new FrontMatterSeen()
  const reader = new PageReader()
  const ids = new Map<string, string>()
  const taken = new Set<string>()
  const pages = new Set<string>()
  const locales = new Set<string>()
  for await (const { item: file, content } of readAhead(source.files, (one) => one)) {
    if (tell.signal.aborted) return null
    const place = placeOf(file.path, layout)
    const locale = place.locale ?? defaultLocale
    const key = `${locale} ${place.path}`
    const reason = refusal({ path: file.path, content }, place, key, pages, seen, reader)
    if (reason !== null) {
      tell.report.refuse('page', file.path, reason)
      continue
    }
    taken.add(file.path)
    pages.add(key)
    locales.add(locale)
    ids.set(place.path, pageId(options.type, place.path))
  }
  const inferred = inferType(
    options.type,
    seen,
    await typeOrNull(target.content, target.call.db, options.type),
  )
  for (const note of inferred.notes) tell.report.remark('type', options.type, note)
  const table = {
    ids,
    locales: new Set([...locales].map((locale) => locale.toLowerCase())),
    siteUrl: options.siteUrl,
  }
  return { layout, table, taken, locales, pages, inferred, reader }
}

function refusal(
  file: { readonly path: string; readonly content: Awaited<ReturnType<SourceFile['read']>> },
  place: Place,
  key: string,
  pages: ReadonlySet<string>,
  seen: FrontMatterSeen,
  reader: PageReader,
): string | null {
  if (place.path.length > pathCharsMax) return `The path is longer than ${pathCharsMax} characters.`
  if (pages.has(key))
    return `Another file is the page "${place.path}" already; a folder and its index are one page.`
  const { content } = file
  if (!content.ok) return content.reason
  const parsed = reader.read(file.path, content.text)
  if (!parsed.ok) return parsed.reason
  return seen.add(place.path, parsed.page.frontMatter)
    ? null
    : 'The pages have too many different front-matter keys; this looks like data, not front matter.'
}

/** The second pass. False when it was interrupted. */
async function writePages(
  source: PageSource,
  survey: Survey,
  used: ReadonlyMap<string, string>,
  target: MarkdownTarget,
  options: MarkdownOptions,
  tell: { readonly report: Report; readonly output: Output; readonly signal: AbortSignal },
): Promise<boolean> {
  const slugs = slugsOf(survey.table.ids)
  const progress = tell.output.progress('Pages')
  const writer = new BatchWriter({
    bulk: target.bulk,
    call: target.call,
    type: options.type,
    report: tell.report,
    what: 'pages',
  })
  const defaultLocale = (await target.content.locales.list(target.call.db)).find(
    (locale) => locale.isDefault,
  )!.code
  for await (const { item: next, content } of readAhead(
    inOrder(source.files, survey),
    ({ file }) => file,
  )) {
    if (tell.signal.aborted) break
    const { file, place } = next
    const parsed = content.ok ? survey.reader.read(file.path, content.text) : null
    if (parsed === null || !parsed.ok) {
      tell.report.refuse(
        'pages',
        file.path,
        'The file changed while it was imported; run the import again.',
      )
      continue
    }
    const locale = place.locale ?? defaultLocale
    const { fields, unresolved } = fieldsOf(parsed.page, place, survey, slugs)
    for (const link of unresolved)
      tell.report.remark(
        'link',
        `${file.path}:${link.line}`,
        `"${link.target.slice(0, 200)}" leads to no page of the import.`,
      )
    const item: BulkItem = {
      id: survey.table.ids.get(place.path)!,
      locale: used.get(locale) ?? locale,
      fields,
      publish: options.publish,
    }
    await writer.add(item, file.path, parsed.page.body.length)
    progress.update(writer.done, survey.taken.size)
  }
  await writer.finish()
  progress.end(tell.signal.aborted ? `Stopped after ${writer.done} pages` : `${writer.done} pages`)
  return !tell.signal.aborted
}

/**
 * All locales of a page one after the other: they share a batch, and the database is asked for each
 * entry once.
 */
function inOrder(
  files: readonly SourceFile[],
  survey: Survey,
): { readonly file: SourceFile; readonly place: Place }[] {
  const taken = files
    .filter((file) => survey.taken.has(file.path))
    .map((file) => ({ file, place: placeOf(file.path, survey.layout) }))
  return taken.sort((left, right) =>
    left.place.path === right.place.path
      ? left.file.path < right.file.path
        ? -1
        : 1
      : left.place.path < right.place.path
        ? -1
        : 1,
  )
}

function fieldsOf(
  page: { readonly frontMatter: Readonly<Record<string, unknown>>; readonly body: string },
  place: Place,
  survey: Survey,
  slugs: ReadonlyMap<string, string>,
): { fields: Record<string, unknown>; unresolved: ReturnType<typeof resolveLinks>['unresolved'] } {
  const fields: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(page.frontMatter)) {
    const field = survey.inferred.fieldOf.get(key)
    if (field !== undefined && value !== null) fields[field.name] = fieldValue(field, value)
  }
  fields['title'] ??= headingOf(page.body) ?? place.path.split('/').at(-1)
  const { ids, unresolved } = resolveLinks(scanLinks(page.body), place, survey.table)
  return {
    fields: {
      ...fields,
      path: place.path,
      slug: slugs.get(place.path),
      body: page.body,
      links: ids,
    },
    unresolved,
  }
}

/** The heading that a page begins with; null when it begins with something else. */
function headingOf(body: string): string | null {
  const line = body.slice(0, headingCharsMax).trimStart().split('\n', 1)[0] ?? ''
  return /^#[ \t]+(\S.*)$/.exec(line)?.[1]?.trim() ?? null
}
