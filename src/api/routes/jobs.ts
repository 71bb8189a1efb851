import { Type } from 'typebox'
import type { RoutePlugin } from '#api/api-context.ts'
import { noStore } from '#api/schemas/access.ts'
import {
  dataOf,
  defaultPageSize,
  nullable,
  pageOf,
  pageQuery,
  strict,
  text,
  timestamp,
} from '#api/schemas/shared.ts'
import { audited } from '#api/writes/audited.ts'
import { write } from '#api/writes/idempotency.ts'
import type { Queryable } from '#database/database.ts'
import { cancelJob, jobStates, listJobs, readJob, retryJob } from '#jobs/job-admin.ts'
import type { JobView } from '#jobs/job-admin.ts'
import type { JobQueue } from '#jobs/job-queue.ts'

const tags = ['cluster']
const access = { permission: 'cluster.manage' } as const
const state = Type.Union(
  jobStates.map((name) => Type.Literal(name)),
  {
    description:
      '`blocked`: behind an earlier job of its order key. `parked`: failed too often; retry it.',
  },
)
const jobSchema = strict(
  {
    id: Type.String(),
    kind: Type.String(),
    state,
    attempt: Type.Integer({ description: 'Attempts so far, the one that runs included.' }),
    failures: Type.Integer({ description: 'Failed ones since it was added or retried.' }),
    attemptsMax: Type.Integer({ description: 'At so many failures it is parked.' }),
    createdAt: timestamp(),
    dueAt: timestamp(),
    startedAt: nullable(timestamp()),
    endedAt: nullable(timestamp()),
    node: nullable(Type.String({ description: 'The name of the node that runs it.' })),
    progress: Type.Unknown({ description: 'As its kind reports it; null: nothing yet.' }),
    failure: nullable(
      strict(
        { code: Type.String(), message: Type.String() },
        { description: 'Why the last attempt failed.' },
      ),
    ),
  },
  { $id: 'Job' },
)
/** An id is a number; anything else is simply not found. */
const params = strict({ id: text(40, 1) })

const pageOfJobs = (limitMax: number) =>
  strict({
    ...pageQuery(limitMax),
    state: Type.Optional(state),
    kind: Type.Optional(text(40, 1)),
    after: Type.Optional(
      Type.String({
        pattern: '^[1-9][0-9]{0,17}$',
        description: '`meta.after` of the page before.',
      }),
    ),
  })

export const jobRoutes: RoutePlugin = (server, { database, config, queue }) => {
  server.route({
    method: 'GET',
    url: '/api/jobs',
    config: { access },
    schema: {
      operationId: 'listJobs',
      summary: 'The jobs of the cluster, newest first',
      tags,
      querystring: pageOfJobs(config.pageSizeMax),
      response: { 200: pageOf(jobSchema) },
    },
    handler: async (request, reply) => {
      const { limit = defaultPageSize, after, state, kind } = request.query
      const data = await listJobs(database, {
        state: state ?? null,
        kind: kind ?? null,
        after: after ?? null,
        limit,
      })
      const last = data.length < limit ? undefined : data.at(-1)
      return reply.headers(noStore).send({ data, meta: { after: last?.id ?? null } })
    },
  })
  server.route({
    method: 'GET',
    url: '/api/jobs/:id',
    config: { access, errors: ['E_JOB_NOT_FOUND'] },
    schema: {
      operationId: 'getJob',
      summary: 'One job',
      tags,
      params,
      querystring: strict({}),
      response: { 200: dataOf(jobSchema) },
    },
    handler: async (request, reply) =>
      reply.headers(noStore).send({ data: await readJob(database, request.params.id) }),
  })
  for (const [verb, work, summary] of actions)
    server.route({
      method: 'POST',
      url: `/api/jobs/:id/${verb}`,
      config: { access, errors: ['E_JOB_NOT_FOUND', 'E_JOB_STATE'] },
      schema: {
        operationId: `${verb}Job`,
        summary,
        tags,
        params,
        querystring: strict({}),
        response: { 200: dataOf(jobSchema) },
      },
      handler: (request, reply) =>
        write(request, reply, async (db) => {
          const data = await audited(
            request,
            db,
            (tx) => work(tx, queue, request.params.id),
            ({ id, kind }) => ({ action: `job.${verb}`, subject: id, facts: { kind } }),
          )
          return { status: 200, body: { data } }
        }),
    })
}

type Work = (db: Queryable, queue: JobQueue, id: string) => Promise<JobView>

const actions: readonly (readonly ['retry' | 'cancel', Work, string])[] = [
  ['retry', retryJob, 'Make a parked or waiting job due now, with all its attempts anew'],
  ['cancel', cancelJob, 'Cancel a job: nothing of it commits from now on'],
]
