import type { Content, Entries } from '#content/content.ts'
import type { Context } from '#content/context.ts'
import { createEntry } from '#content/entries/create.ts'
import { deleteEntry, readableAmong, takeOutAsset } from '#content/entries/delete.ts'
import { openWatch } from '#content/entries/entry-watch.ts'
import { localesOfEntry, oneVersion, restoreVersion, versionsOf } from '#content/entries/history.ts'
import { archiveEntry, publishEntry, unpublishEntry } from '#content/entries/publish.ts'
import { getEntry, listEntries } from '#content/entries/read.ts'
import { RecentSaves } from '#content/entries/recent-saves.ts'
import { saveEntry } from '#content/entries/save.ts'
import { createContentTypes } from '#content/model/content-types.ts'
import { createLocales } from '#content/model/locales.ts'
import { ModelStore } from '#content/model/model.ts'
import { createArchive } from '#content/bulk/create-archive.ts'
import { createBulk } from '#content/bulk/create-bulk.ts'
import { TypeUpgrade } from '#content/settling/type-upgrade.ts'
import { QueryLane } from '#content/query/query-lane.ts'
import { createReleases } from '#content/releases.ts'
import { createSchedule } from '#content/schedule.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import { findEntries, suggestTitles } from '#content/search/find.ts'
import { verifyWords } from '#content/search/verify.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'

/**
 * Content over whatever database each call brings along. Keeps types and locales in memory, and
 * nothing else.
 */
export function createContent(options: {
  readonly clock: Clock
  readonly logger: Logger
  /** Default: one that wakes no node, which finds jobs by looking. */
  readonly queue?: JobQueue
}): Content {
  const { clock, queue = new JobQueue(null) } = options
  const models = new ModelStore()
  const logger = options.logger.child({ part: 'content' })
  const context: Context = { models, recent: new RecentSaves(), queue, clock, logger }
  const reading = { ...context, lane: new QueryLane(options.clock) }
  const settling = new TypeUpgrade(models, logger)
  const entries: Entries = {
    get: (call, type, idOrSlug, options) =>
      getEntry(context, call, { typeName: type, key: idOrSlug }, options),
    list: (call, query) => listEntries(reading, call, query),
    create: (call, type, input) => createEntry(context, call, type, input),
    save: (call, entry, input, expected) => saveEntry(context, call, { ...entry, input, expected }),
    publish: (call, entry, what, expected) =>
      publishEntry(context, call, { ...entry, ...what, expected }),
    unpublish: (call, entry, locales, expected) =>
      unpublishEntry(context, call, { ...entry, locales, expected }),
    archive: (call, entry, archived, expected) =>
      archiveEntry(context, call, { ...entry, archived, expected }),
    restore: (call, entry, from, expected) =>
      restoreVersion(context, call, { ...entry, ...from, expected }),
    versions: (call, entry, page) => versionsOf(context, call, entry, page),
    version: (call, entry, which) => oneVersion(context, call, { ...entry, ...which }),
    delete: (call, entry, expected) => deleteEntry(context, call, { ...entry, expected }),
    takeOutAsset: (call, assetId) => takeOutAsset(context, call, assetId),
    readableAmong: (call, targetId, referrers) => readableAmong(context, call, targetId, referrers),
    locales: (call, entry, perspective) => localesOfEntry(context, call, entry, perspective),
  }
  const bulk = createBulk(context)
  return {
    types: createContentTypes(context, settling),
    locales: createLocales(),
    entries,
    releases: createReleases(context),
    schedule: createSchedule(context),
    bulk,
    archive: createArchive({ context, entries, bulk }),
    search: {
      find: (call, query) => findEntries(reading, call, query),
      suggest: (call, query) => suggestTitles(reading, call, query),
      verify: (db, options) => verifyWords(context, db, options),
    },
    watches: { open: (call, watch) => openWatch(context, call, watch) },
    stop: () => settling.stop(),
  }
}
