import { Type } from 'typebox'
import type { ApiContext, RoutePlugin } from '#api/api-context.ts'
import { NotReadyError } from '#api/problems/errors.ts'
import { strict } from '#api/schemas/shared.ts'
import { sql } from '#database/database.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** A node that waits longer than this for its own database is not ready. */
const checkTimeoutMs = 2_000

const ping = sql<{ ok: number }>(`select 1 as ok`)

const partState = strict(
  { state: Type.Union([Type.Literal('up'), Type.Literal('down')]), detail: Type.String() },
  { $id: 'PartState' },
)
type PartState = { readonly state: 'up' | 'down'; readonly detail: string }

/**
 * `live`: the process answers. `ready`: this node can serve; it says why not, and judges nobody
 * else.
 */
export const healthRoutes: RoutePlugin = (server, context) => {
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
      tags: ['health'],
      response: {
        200: strict({
          status: Type.Literal('ready'),
          parts: Type.Record(Type.String(), partState),
        }),
      },
    },
    handler: async (_request, reply) => {
      const parts = {
        node: nodeState(context),
        database: withCachedResponses(context, await databaseState(context)),
      }
      const down = Object.entries(parts).filter(([, part]) => part.state === 'down')
      if (down.length > 0)
        throw new NotReadyError(
          `Not ready: ${down.map(([name, part]) => `${name}: ${part.detail}`).join('; ')}.`,
          { parts },
        )
      return reply.header('cache-control', 'no-store').send({ status: 'ready', parts })
    },
  })
}

function nodeState(context: ApiContext): PartState {
  return context.state.draining
    ? { state: 'down', detail: 'draining' }
    : { state: 'up', detail: 'serving' }
}

/**
 * A node that lost the database goes on with the responses that it knows, for a bounded time. It
 * stays in rotation: the database may be away for every node, and then all of them would be taken
 * out together with what they still can answer.
 */
function withCachedResponses({ cluster }: ApiContext, database: PartState): PartState {
  if (database.state === 'up' || cluster === null || !cluster.cache.canServe) return database
  return {
    state: 'up',
    detail: `degraded: ${database.detail}; known responses are served, marked as stale`,
  }
}

async function databaseState({ database, clock, logger }: ApiContext): Promise<PartState> {
  const startedMs = clock.monotonicMs()
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<PartState>((resolve) => {
    timer = setTimeout(
      () => resolve({ state: 'down', detail: `no response within ${checkTimeoutMs} ms` }),
      checkTimeoutMs,
    )
  })
  // A node whose connections are all at work is busy, not ill.
  const asked = (database.control ?? database).run(ping).then(
    (): PartState => ({
      state: 'up',
      detail: `answered in ${Math.round(clock.monotonicMs() - startedMs)} ms`,
    }),
    (error: unknown): PartState => {
      if (!(error instanceof StoaError)) logger.error({ err: error }, 'the database check failed')
      return { state: 'down', detail: error instanceof StoaError ? error.message : 'failed' }
    },
  )
  try {
    return await Promise.race([asked, late])
  } finally {
    clearTimeout(timer)
  }
}
