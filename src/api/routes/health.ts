import { Type } from 'typebox'
import type { ApiContext, RoutePlugin } from '#api/api-context.ts'
import { NotReadyError } from '#api/problems/errors.ts'
import { strict } from '#api/schemas/shared.ts'
import { sql } from '#database/database.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { failingEdges } from '#http-cache/receipts.ts'
import { StoaError } from '#lib/stoa-error.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

/** A node that waits longer than this for its own database is not ready. */
const checkTimeoutMs = 2_000
/** Checks that come together share one, since anyone may ask. */
const checkSharedMs = 250
/** A node without a free place for this long takes no more requests. */
const fullMs = 2_000

const ping = sql<{ ok: number }>(`select 1 as ok`)

const partState = strict(
  { state: Type.Union([Type.Literal('up'), Type.Literal('down')]), detail: Type.String() },
  { $id: 'PartState' },
)
type PartState = { readonly state: 'up' | 'down'; readonly detail: string }
type Parts = Readonly<Record<string, PartState>>

/**
 * `live`: the process responds. `ready`: this node can serve. It speaks for itself alone: a part
 * that is down for every node takes none of them out of rotation while they can serve without it.
 */
export const healthRoutes: RoutePlugin = (server, context) => {
  const checked = sharedCheck(context)
  server.route({
    method: 'GET',
    url: '/healthz/live',
    config: { access: 'public', whenBusy: true },
    schema: {
      operationId: 'getLive',
      summary: 'Does this process respond?',
      tags: ['health'],
      response: { 200: strict({ status: Type.Literal('live') }) },
    },
    handler: (_request, reply) =>
      reply.header('cache-control', 'no-store').send({ status: 'live' }),
  })
  server.route({
    method: 'GET',
    url: '/healthz/ready',
    config: { access: 'public', whenBusy: true, errors: ['E_NOT_READY'] },
    schema: {
      operationId: 'getReady',
      summary: 'Can this node serve?',
      description:
        'Each part says of itself whether it is up. A node is ready while it can serve: ' +
        'without the database too, as long as it has responses that it may mark as stale.',
      tags: ['health'],
      response: {
        200: strict({
          status: Type.Union([Type.Literal('ready'), Type.Literal('degraded')]),
          parts: Type.Record(Type.String(), partState),
        }),
      },
    },
    handler: async (_request, reply) => {
      const parts: Parts = {
        node: nodeState(context),
        requests: requestsState(context),
        ...(await checked()),
        ...clusterStates(context),
      }
      const needed = ['node', 'requests', ...(context.cluster.cache.canServe ? [] : ['database'])]
      const missing = needed.filter((name) => parts[name]!.state === 'down')
      if (missing.length > 0)
        throw new NotReadyError(
          `Not ready: ${missing.map((name) => `${name}: ${parts[name]!.detail}`).join('; ')}.`,
          { parts },
        )
      const isWhole = Object.values(parts).every(({ state }) => state === 'up')
      return reply
        .header('cache-control', 'no-store')
        .send({ status: isWhole ? 'ready' : 'degraded', parts })
    },
  })
}

function nodeState({ state, config }: ApiContext): PartState {
  if (!config.servesWeb) return down('it only runs jobs (STOA_WORK)')
  return state.draining ? down('draining') : up('serving')
}

/** The places for requests: a node that has none left for any client says so. */
function requestsState({ places, clock }: ApiContext): PartState {
  const fullForMs = places.fullForMs(clock.monotonicMs())
  const detail = `${places.inFlight} in flight`
  return fullForMs !== null && fullForMs >= fullMs
    ? down(`all places are taken: ${detail}`)
    : up(detail)
}

/** Parts that the node serves without, more slowly or less freshly. */
function clusterStates({ cluster: { cache, link, files } }: ApiContext): Parts {
  const { missing } = cache
  const store = files?.now
  return {
    changeFeed: cache.leased
      ? up('within the lease')
      : down('behind the lease; what is served from memory is marked as stale'),
    ...(store === undefined
      ? {}
      : {
          fileStore:
            store.problem === null
              ? up('in use')
              : down('uploads, and files that are not in memory, are refused'),
        }),
    clusterLink: link.connected ? up('connected') : down('changes are found by polling'),
    ...(cache.config.secondLevel
      ? { secondLevel: missing.secondLevel ? down('not reachable') : up('connected') }
      : {}),
    ...(cache.config.replica
      ? { standby: missing.replica ? down('not reachable; the primary is read') : up('in use') }
      : {}),
  }
}

function up(detail: string): PartState {
  return { state: 'up', detail }
}

function down(detail: string): PartState {
  return { state: 'down', detail }
}

function sharedCheck(context: ApiContext): () => Promise<Parts> {
  let last: { readonly atMs: number; readonly states: Promise<Parts> } | null = null
  return () => {
    const nowMs = context.clock.monotonicMs()
    if (last === null || nowMs - last.atMs >= checkSharedMs)
      last = { atMs: nowMs, states: checkedStates(context) }
    return last.states
  }
}

async function checkedStates(context: ApiContext): Promise<Parts> {
  const database = await databaseState(context)
  const { httpCache } = context
  return httpCache === null || database.state === 'down'
    ? { database }
    : { database, httpCache: await httpCacheState(context, httpCache) }
}

/** An HTTP cache that is away takes no node out of rotation: its purges wait. */
async function httpCacheState(
  { database, logger }: ApiContext,
  httpCache: HttpCache,
): Promise<PartState> {
  try {
    const failing = await withTimeout(failingEdges(database, httpCache), checkTimeoutMs)
    if (failing === timedOut) return down(`not known within ${checkTimeoutMs} ms`)
    return failing.length === 0 ? up('purged') : down(`purges wait: ${failing.join('; ')}`)
  } catch (error) {
    logger.debug({ err: error }, 'the check of the HTTP cache failed')
    return down('not known')
  }
}

async function databaseState({ database, clock, logger }: ApiContext): Promise<PartState> {
  const startedMs = clock.monotonicMs()
  try {
    // A node whose connections are all at work is busy, not broken.
    const pinged = await withTimeout((database.control ?? database).run(ping), checkTimeoutMs)
    return pinged === timedOut
      ? down(`no response within ${checkTimeoutMs} ms`)
      : up(`responded in ${Math.round(clock.monotonicMs() - startedMs)} ms`)
  } catch (error) {
    if (error instanceof StoaError) return down(error.message)
    logger.error({ err: error }, 'the database check failed')
    return down('failed')
  }
}
