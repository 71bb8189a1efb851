import { Type } from 'typebox'
import type { RoutePlugin } from '#api/api-context.ts'
import { receiptOf } from '#api/writes/receipts.ts'
import { dataOf, nullable, strict, text, timestamp } from '#api/schemas/shared.ts'

const receiptSchema = strict(
  {
    token: text(100),
    writtenAt: nullable(timestamp()),
    everywhere: Type.Boolean(),
    nodes: Type.Array(
      strict({
        id: Type.String(),
        name: Type.String(),
        applied: Type.Boolean(),
        appliedAt: nullable(timestamp()),
        tookMs: nullable(Type.Integer({ minimum: 0 })),
        problem: nullable(Type.String()),
      }),
    ),
    httpCache: Type.Array(
      strict({
        edge: Type.String(),
        state: Type.Union([Type.Literal('purged'), Type.Literal('waiting')]),
        purgedAt: nullable(timestamp()),
        doneBy: nullable(timestamp()),
        problem: nullable(Type.String()),
      }),
    ),
  },
  {
    $id: 'Receipt',
    description:
      '`writtenAt` and `appliedAt` are null where it was too long ago to be known. `tookMs` ' +
      'compares the clocks of two machines. `doneBy`: when an edge will be purged, within the ' +
      'calls that it accepts; null where it is, or is failing.',
  },
)

/** Where a write has arrived (G7). */
export const receiptRoutes: RoutePlugin = (server, context) => {
  server.route({
    method: 'GET',
    url: '/api/receipts/:token',
    config: { access: 'signedIn', errors: ['E_RECEIPT_NOT_FOUND'] },
    schema: {
      operationId: 'getReceipt',
      summary: 'Which nodes have applied a write, and which HTTP caches were purged of it',
      description: 'The token is what the write returned as `Stoa-Token`.',
      tags: ['cluster'],
      params: strict({ token: text(100, 1) }),
      querystring: strict({}),
      response: { 200: dataOf(receiptSchema) },
    },
    handler: async (request, reply) =>
      reply
        .header('cache-control', 'private, no-store')
        .send({ data: await receiptOf(context, request.params.token) }),
  })
}
