import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { handleAppliedCalls } from '#http-cache/applied.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { Purger, purgeJob } from '#http-cache/purger.ts'
import { JobRunner } from '#jobs/job-runner.ts'
import { systemClock as clock } from '#lib/clock.ts'
import { silentLogger as logger } from '#lib/logger.ts'
import { testSite } from '#test/support/site.ts'
import type { Site } from '#test/support/site.ts'

/** A site that purges this HTTP cache, and listens. */
export type PurgingSite = AsyncDisposable & {
  readonly site: Site
  readonly origin: string
  readonly purger: Purger
  /** Publishes an entry of the type `note`; returns the token of the write. */
  readonly publish: (
    title: string,
    id?: string,
  ) => Promise<{ readonly id: string; readonly token: string }>
  readonly receipt: (token: string) => Promise<PurgeReceipt>
  /** The receipt once its edges are purged. */
  readonly purged: (token: string) => Promise<PurgeReceipt>
}

export type PurgeReceipt = {
  readonly everywhere: boolean
  readonly httpCache: readonly {
    readonly edge: string
    readonly state: 'purged' | 'waiting'
    readonly purgedAt: string | null
    readonly doneBy: string | null
    readonly problem: string | null
  }[]
}

const deadlineMs = 20_000

export async function purgingSite(
  cache: HttpCache,
  options: { readonly changesHide?: boolean; readonly turnMs?: number } = {},
): Promise<PurgingSite> {
  await using stack = new AsyncDisposableStack()
  const site = stack.use(await testSite({ httpCache: cache }))
  const { database, nodes, feed } = site
  const { calls, link } = site.server.api.cluster
  stack.use(handleAppliedCalls({ feed, calls }))
  const changesHide = async (): Promise<boolean> => options.changesHide === true
  const turn = options.turnMs === undefined ? {} : { turnMs: options.turnMs }
  const purger = stack.use(
    new Purger({ cache, database, feed, calls, changesHide, logger, ...turn }),
  )
  while (nodes.mode !== 'live') await sleep(5)
  const runner = stack.use(new JobRunner({ nodes, database, link, clock, logger }))
  runner.run([{ kind: purgeJob, run: (job) => purger.run(job) }])
  stack.defer(() => purger.stop())
  const origin = await site.server.listen({ host: '127.0.0.1', port: 0 })
  await site.request('PUT', '/api/types/note', {
    body: { name: 'note', label: 'Note', fields: [{ name: 'title', kind: 'text' }] },
  })
  site.forgetDocument()
  const receipt = async (token: string): Promise<PurgeReceipt> =>
    (await site.get(`/api/receipts/${token}`)).json.data as PurgeReceipt
  const closing = stack.move()
  return {
    site,
    origin,
    purger,
    publish: async (title, id) => {
      const body = { fields: { title }, publish: true }
      const written =
        id === undefined
          ? await site.request('POST', '/api/content/note', { body })
          : await site.request('PATCH', `/api/content/note/${id}`, { body })
      assert.ok(written.status < 300, written.text)
      return { id: written.json.data.id as string, token: written.headers['stoa-token'] ?? '' }
    },
    receipt,
    purged: async (token) => {
      const until = Date.now() + deadlineMs
      for (;;) {
        const now = await receipt(token)
        if (now.httpCache.every(({ state }) => state === 'purged')) return now
        assert.ok(Date.now() < until, `not purged: ${JSON.stringify(now)}`)
        await sleep(10)
      }
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}
