import { pageId } from '#cli/import/page-table.ts'
import type { Report } from '#cli/import/report.ts'
import type { Bulk } from '#content/bulk/bulk.ts'
import type { Call, Content } from '#content/content.ts'
import { StoaError } from '#lib/stoa-error.ts'

const entriesPerPage = 500

type Target = {
  readonly content: Content
  readonly bulk: Bulk
  readonly call: Call
  readonly report: Report
  readonly signal: AbortSignal
}

/**
 * Entries that an earlier import made and whose page is gone from the source: told, and with
 * `prune` deleted; of a page that lost one locale, that locale is unpublished. What editors made by
 * themselves is left alone: only an entry whose id derives from its own path came from an import.
 */
export async function findRemoved(
  target: Target,
  options: { readonly type: string; readonly prune: boolean },
  ids: ReadonlyMap<string, string>,
  pages: ReadonlySet<string>,
): Promise<void> {
  const { bulk, call, report } = target
  const present = new Set([...pages].map((key) => key.toLowerCase()))
  const gone = new Map<string, string>()
  for (let after: string | null = null; ;) {
    const states = await bulk.states(call, options.type, { after, limit: entriesPerPage })
    for (const { id, locale, filterJson, isPublished, isArchived } of states) {
      const { path } = JSON.parse(filterJson) as { path?: unknown }
      if (isArchived || typeof path !== 'string' || pageId(options.type, path) !== id) continue
      if (!ids.has(path)) gone.set(id, path)
      else if (isPublished && !present.has(`${locale} ${path}`.toLowerCase()))
        await withdraw(target, options, id, path, locale)
    }
    const last = states.at(-1)
    if (last === undefined || target.signal.aborted) break
    after = last.id
  }
  for (const [id, path] of gone) {
    if (!options.prune)
      report.remark(
        'removed page',
        path,
        'It is not in the source any more; --prune deletes its entry.',
      )
    else
      await attempt(
        target,
        path,
        async () => void (await target.content.entries.delete(call, options.type, id, null)),
      )
  }
}

async function withdraw(
  target: Target,
  options: { readonly type: string; readonly prune: boolean },
  id: string,
  path: string,
  locale: string,
): Promise<void> {
  if (!options.prune)
    target.report.remark(
      'removed page',
      `${locale} ${path}`,
      'It is not in the source any more; --prune unpublishes it.',
    )
  else
    await attempt(
      target,
      `${locale} ${path}`,
      async () =>
        void (await target.content.entries.unpublish(
          target.call,
          options.type,
          id,
          [locale],
          null,
        )),
    )
}

async function attempt(target: Target, where: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
    target.report.count('removed pages', 'changed')
  } catch (error) {
    if (!(error instanceof StoaError)) throw error
    target.report.refuse('removed pages', where, error.message)
  }
}
