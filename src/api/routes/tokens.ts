import { Type } from 'typebox'
import type { RoutePlugin } from '#api/api-context.ts'
import { write } from '#api/writes/idempotency.ts'
import { noStore, roleNames, tokenSchema } from '#api/schemas/access.ts'
import { dataOf, idParam, nullable, strict, text, timestamp } from '#api/schemas/shared.ts'

const tags = ['access']
const managed = { permission: 'tokens.manage' } as const

export const tokenRoutes: RoutePlugin = (server, { access }) => {
  server.route({
    method: 'GET',
    url: '/api/tokens',
    config: { access: managed },
    schema: {
      operationId: 'listTokens',
      summary: 'All API tokens, without their secrets',
      tags,
      querystring: strict({}),
      response: { 200: dataOf(Type.Array(tokenSchema)) },
    },
    handler: async (_request, reply) =>
      reply.headers(noStore).send({ data: await access.tokens.list() }),
  })
  server.route({
    method: 'POST',
    url: '/api/tokens',
    config: { access: managed, errors: ['E_ACCESS_INPUT', 'E_ESCALATION', 'E_ROLE_NOT_FOUND'] },
    schema: {
      operationId: 'createToken',
      summary: 'Make an API token; it is shown this once',
      tags,
      querystring: strict({}),
      body: strict(
        { name: text(200, 1), roles: roleNames(), expiresAt: Type.Optional(nullable(timestamp())) },
        { $id: 'ApiTokenCreate' },
      ),
      response: {
        201: dataOf(
          strict({ token: Type.String({ pattern: '^stoa_[0-9A-Za-z]{49}$' }), info: tokenSchema }),
        ),
      },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { name, roles, expiresAt = null } = request.body
        return {
          status: 201,
          body: {
            data: await access.tokens.create(db, request.identity, { name, roles, expiresAt }),
          },
        }
      }),
  })
  server.route({
    method: 'DELETE',
    url: '/api/tokens/:id',
    config: { access: managed, errors: ['E_API_TOKEN_NOT_FOUND', 'E_ESCALATION'] },
    schema: {
      operationId: 'deleteToken',
      summary: 'Delete an API token; it is refused from then on',
      tags,
      params: strict({ id: idParam() }),
      querystring: strict({}),
      response: { 204: Type.Null() },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        await access.tokens.delete(db, request.identity, request.params.id)
        return { status: 204 }
      }),
  })
}
