import { anonymousRole } from '#access/permissions.ts'
import type { ClusterParts } from '#api/api-context.ts'
import type { Config } from '#config/config.ts'
import { handleAppliedCalls } from '#http-cache/applied.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { Purger, purgeJob } from '#http-cache/purger.ts'
import type { JobHandler } from '#jobs/running-job.ts'
import { openHttpCache } from '#node/drivers.ts'
import type { Site } from '#node/site.ts'

/** This node's part in the HTTP cache. */
export type NodeHttpCache = Disposable & {
  /** Null: there is none. */
  readonly cache: HttpCache | null
  readonly jobs: readonly JobHandler<unknown>[]
  /** Edges that this node purges and that do not take it, each in a sentence. */
  readonly problems: () => readonly string[]
  /** The node stops: another one goes on with the purges. */
  readonly leave: () => void
}

/** Errors: `HttpCacheUrlError`. */
export async function openNodeHttpCache(
  config: Config,
  { access, database, logger, purgeKey }: Site,
  { feed, calls }: ClusterParts,
): Promise<NodeHttpCache> {
  const cache = await openHttpCache(config, purgeKey)
  if (cache === null)
    return {
      cache,
      jobs: [],
      problems: () => [],
      leave: () => undefined,
      [Symbol.dispose]: () => undefined,
    }
  const replies = handleAppliedCalls({ feed, calls })
  const purger = new Purger({
    cache,
    database,
    feed,
    calls,
    // An entry that changes may no longer match what strangers may read.
    changesHide: async () => {
      const { content } = await access.roles.get(anonymousRole)
      return content.some(({ filter }) => filter !== null)
    },
    logger: logger.child({ part: 'http-cache' }),
  })
  return {
    cache,
    jobs: [{ kind: purgeJob, run: (job) => purger.run(job) }],
    problems: () => purger.problems(),
    leave: () => purger.stop(),
    [Symbol.dispose]: () => {
      purger[Symbol.dispose]()
      replies[Symbol.dispose]()
    },
  }
}
