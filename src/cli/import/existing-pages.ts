import { pageKey } from '#cli/import/layout.ts'
import { pageId } from '#cli/import/page-slugs.ts'
import type { Report } from '#cli/import/report.ts'
import type { Bulk, BulkState } from '#content/bulk/bulk.ts'
import type { Call, Content } from '#content/content.ts'
import { StoaError } from '#lib/stoa-error.ts'

const entriesPerPage = 500

type Reader = { readonly bulk: Bulk; readonly call: Call }

export type ExistingPages = {
  /** `pageKey` of the pages that earlier imports made. */
  readonly keys: ReadonlySet<string>
  /** Slugs of all entries of the type by id. */
  readonly slugs: ReadonlyMap<string, string>
}

/** Reads the entries that a type has; null: the type does not exist. */
export async function existingPages(reader: Reader, type: string | null): Promise<ExistingPages> {
  const keys = new Set<string>()
  const slugs = new Map<string, string>()
  if (type === null) return { keys, slugs }
  for await (const { id, locale, filterJson } of statesOf(reader, type)) {
    const { path, slug } = JSON.parse(filterJson) as { path?: unknown; slug?: unknown }
    if (typeof slug === 'string') slugs.set(id, slug)
    if (typeof path === 'string' && pageId(type, path) === id) keys.add(pageKey(locale, path))
  }
  return { keys, slugs }
}

/** Reads the latest versions of all entries of a type. */
export async function* statesOf(reader: Reader, type: string): AsyncGenerator<BulkState> {
  for (let after: string | null = null; ;) {
    const states: BulkState[] = await reader.bulk.states(reader.call, type, {
      after,
      limit: entriesPerPage,
    })
    yield* states
    const last = states.at(-1)
    if (last === undefined) return
    after = last.id
  }
}

type Target = Reader & {
  readonly content: Content
  readonly report: Report
  readonly signal: AbortSignal
}

type Pages = {
  readonly ids: ReadonlyMap<string, string>
  /** `pageKey` of the pages that the source has. */
  readonly keys: ReadonlySet<string>
  /** `pageKey` of those that are not for readers. */
  readonly drafts: ReadonlySet<string>
}

/**
 * Unpublishes pages that were published by an earlier import and are drafts in the source now, and
 * reports entries whose page is gone from it: with `prune` these are deleted, and a locale that is
 * gone is unpublished. What editors made by themselves is left alone: only an entry whose id
 * derives from its own path came from an import.
 */
export async function withdrawPages(
  target: Target,
  options: { readonly type: string; readonly prune: boolean },
  pages: Pages,
): Promise<void> {
  const { call, report, content, signal } = target
  const { type, prune } = options
  const gone = new Map<string, string>()
  for await (const { id, locale, filterJson, isPublished, isArchived } of statesOf(target, type)) {
    if (signal.aborted) return
    const { path } = JSON.parse(filterJson) as { path?: unknown }
    if (isArchived || typeof path !== 'string' || pageId(type, path) !== id) continue
    const key = pageKey(locale, path)
    const where = `${locale} ${path}`
    const unpublish = async (): Promise<void> =>
      void (await content.entries.unpublish(call, { type, id }, [locale], null))
    if (!pages.ids.has(path)) gone.set(id, path)
    else if (isPublished && pages.drafts.has(key))
      await attempt(report, { what: 'withdrawn pages', where }, unpublish)
    else if (isPublished && !pages.keys.has(key)) {
      if (prune) await attempt(report, { what: 'removed pages', where }, unpublish)
      else report.remark('removed page', where, removedSentence('unpublishes it'))
    }
  }
  for (const [id, path] of gone) {
    if (!prune) report.remark('removed page', path, removedSentence('deletes its entry'))
    else
      await attempt(
        report,
        { what: 'removed pages', where: path },
        async () => void (await content.entries.delete(call, { type, id }, null)),
      )
  }
}

function removedSentence(effect: string): string {
  return `It is not in the source any more; --prune ${effect}.`
}

async function attempt(
  report: Report,
  thing: { readonly what: string; readonly where: string },
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work()
    report.count(thing.what, 'changed')
  } catch (error) {
    if (!(error instanceof StoaError)) throw error
    report.refuse(thing.what, thing.where, error.message)
  }
}
