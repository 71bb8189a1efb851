import { Type } from 'typebox'
import type { RoutePlugin } from '#api/api-context.ts'
import { dataOf, nullable, strict, timestamp } from '#api/schemas/shared.ts'
import { jobTotals, parkedProblem } from '#jobs/job-admin.ts'
import { clusterStatus, partNames, statusMethod } from '#nodes/cluster-status.ts'

/** A node that has not replied by then is shown without its report. */
const askDeadlineMs = 2_500

const partSchema = nullable(
  strict({
    state: Type.Union([Type.Literal('up'), Type.Literal('down')]),
    address: nullable(Type.String({ description: 'Without an account.' })),
    version: nullable(Type.String()),
  }),
)

const reportSchema = strict(
  {
    feedLagMs: nullable(
      Type.Number({
        description:
          'Since the start of the last good poll of the change feed: nothing that the node ' +
          'serves as fresh is older.',
      }),
    ),
    clockSkewMs: Type.Integer({
      description:
        'By how much its clock is ahead of the database’s; negative: behind. Past a second ' +
        'the node leads nothing.',
    }),
    cache: nullable(
      strict({
        hits: Type.Integer(),
        misses: Type.Integer(),
        hitRate: nullable(Type.Number({ minimum: 0, maximum: 1 })),
        entries: Type.Integer(),
        bytes: Type.Integer(),
        bytesMax: Type.Integer(),
      }),
    ),
    parts: Type.Object(Object.fromEntries(partNames.map((name) => [name, partSchema])), {
      description: 'The services that the node uses; null where it is not configured to.',
      additionalProperties: false,
    }),
    degraded: Type.Array(Type.String()),
  },
  { $id: 'NodeReport' },
)

const nodeSchema = strict(
  {
    id: Type.String(),
    name: Type.String(),
    address: nullable(Type.String()),
    version: Type.String(),
    fingerprint: Type.String({
      description: 'Of the settings that should be the same everywhere.',
    }),
    state: Type.Union(
      ['starting', 'live', 'draining', 'silent'].map((state) => Type.Literal(state)),
      {
        description: '`starting`: does not serve yet. `silent`: no beat for longer than its lease.',
      },
    ),
    duties: Type.Array(Type.String(), { description: 'What it does for all nodes.' }),
    startedAt: timestamp(),
    seenMsAgo: Type.Integer({ description: 'Since its last beat, by the database’s clock.' }),
    report: nullable(reportSchema),
    problem: nullable(Type.String({ description: 'Why there is no report.' })),
  },
  { $id: 'Node' },
)

const findingSchema = strict(
  {
    check: Type.String({ description: 'The check that found it; the reference lists them.' }),
    severity: Type.Union([Type.Literal('error'), Type.Literal('warning')], {
      description: '`error`: data or a guarantee is in danger.',
    }),
    nodes: Type.Array(Type.String(), {
      description: 'The nodes that it is about, by name; none: the cluster as a whole.',
    }),
    message: Type.String(),
    cure: Type.String({ description: 'The step that removes it.' }),
  },
  { $id: 'Finding' },
)

const findings: RoutePlugin = (server, { cluster }) => {
  server.route({
    method: 'GET',
    url: '/api/cluster/findings',
    config: { access: { permission: 'cluster.manage' }, whenBusy: true },
    schema: {
      operationId: 'getFindings',
      summary: 'Whatever is not as it should be, each with its cure',
      description:
        'The same as `stoa doctor`: every node inspects itself and its machine. Takes up to ' +
        'ten seconds.',
      tags: ['cluster'],
      querystring: strict({}),
      response: {
        200: dataOf(
          strict(
            {
              findings: Type.Array(findingSchema),
              nodes: Type.Array(Type.String(), { description: 'Those that were inspected.' }),
              checks: Type.Integer({ description: 'How many checks there are.' }),
            },
            { $id: 'Diagnosis' },
          ),
        ),
      },
    },
    handler: async (_request, reply) =>
      reply.header('cache-control', 'no-store').send({ data: await cluster.findings() }),
  })
}

export const clusterRoutes: RoutePlugin = async (server, context) => {
  const { database, cluster } = context
  await findings(server, context)
  server.route({
    method: 'GET',
    url: '/api/cluster',
    config: { access: { permission: 'cluster.manage' }, whenBusy: true },
    schema: {
      operationId: 'getCluster',
      summary: 'The nodes, and how they are',
      tags: ['cluster'],
      querystring: strict({}),
      response: {
        200: dataOf(
          strict(
            {
              nodes: Type.Array(nodeSchema),
              degraded: Type.Array(Type.String(), {
                description: 'What does not work as it should, in words.',
              }),
              jobs: nullable(
                strict(
                  {
                    waiting: Type.Integer(),
                    running: Type.Integer(),
                    parked: Type.Integer({ description: 'Failed too often; see `/api/jobs`.' }),
                  },
                  { description: 'Jobs of the whole cluster.' },
                ),
              ),
            },
            { $id: 'Cluster' },
          ),
        ),
      },
    },
    handler: async (_request, reply) => {
      const control = database.control ?? database
      const [status, jobs] = await Promise.all([
        clusterStatus(control, () =>
          cluster.calls.onAll(statusMethod, null, { deadlineMs: askDeadlineMs }),
        ),
        jobTotals(control),
      ])
      const problems = jobs === null ? [] : parkedProblem(jobs)
      const data = { ...status, degraded: [...status.degraded, ...problems], jobs }
      return reply.header('cache-control', 'no-store').send({ data })
    },
  })
}
