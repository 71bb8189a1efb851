import { Type } from 'typebox'
import type { Identity, Role, SystemPermission } from '#access/access.ts'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { preconditionOf, valueTag } from '#api/delivery/entity-tag.ts'
import { write } from '#api/writes/idempotency.ts'
import { noStore, roleBody, roleName, roleSchema } from '#api/schemas/access.ts'
import { dataOf, strict } from '#api/schemas/shared.ts'

const tags = ['access']
const byName = strict({ name: roleName() })
const managed = { permission: 'roles.manage' } as const
/** A caller that gives roles to users or tokens has to see them. */
const readers: readonly SystemPermission[] = ['roles.manage', 'users.manage', 'tokens.manage']

function requireReader(identity: Identity): void {
  if (!readers.some((permission) => identity.can(permission))) identity.require('roles.manage')
}

export const roleRoutes: RoutePlugin = (server, context) => {
  readRoutes(server, context)
  changeRoutes(server, context)
}

function readRoutes(server: Server, { access }: ApiContext): void {
  server.route({
    method: 'GET',
    url: '/api/roles',
    config: { access: 'signedIn', errors: ['E_PERMISSION'] },
    schema: {
      operationId: 'listRoles',
      summary: 'All roles; for who manages roles, users or tokens',
      tags,
      querystring: strict({}),
      response: { 200: dataOf(Type.Array(roleSchema)) },
    },
    handler: async (request, reply) => {
      requireReader(request.identity)
      return reply.headers(noStore).send({ data: await access.roles.list() })
    },
  })
  server.route({
    method: 'GET',
    url: '/api/roles/:name',
    config: { access: 'signedIn', errors: ['E_PERMISSION', 'E_ROLE_NOT_FOUND'] },
    schema: {
      operationId: 'getRole',
      summary: 'One role',
      tags,
      params: byName,
      querystring: strict({}),
      response: { 200: dataOf(roleSchema) },
    },
    handler: async (request, reply) => {
      requireReader(request.identity)
      const data = await access.roles.get(request.params.name)
      return reply.headers({ ...noStore, etag: valueTag(data) }).send({ data })
    },
  })
}

function changeRoutes(server: Server, { access }: ApiContext): void {
  server.route({
    method: 'PUT',
    url: '/api/roles/:name',
    config: {
      access: managed,
      ifMatch: true,
      errors: ['E_PRECONDITION', 'E_ACCESS_INPUT', 'E_ESCALATION', 'E_ROLE_BUILT_IN'],
    },
    schema: {
      operationId: 'saveRole',
      summary: 'Make or replace a role',
      tags,
      params: byName,
      querystring: strict({}),
      body: roleBody,
      response: { 200: dataOf(roleSchema) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const { label, content, system } = request.body
        // The schema cannot draw the filters' tree; access checks every node of it.
        const role = {
          name: request.params.name,
          label,
          content: content as Role['content'],
          system,
        }
        const saved = await access.roles.save(
          db,
          request.identity,
          role,
          preconditionOf(request, valueTag),
        )
        return { status: 200, headers: { etag: valueTag(saved) }, body: { data: saved } }
      }),
  })
  server.route({
    method: 'DELETE',
    url: '/api/roles/:name',
    config: {
      access: managed,
      ifMatch: true,
      errors: [
        'E_PRECONDITION',
        'E_ROLE_NOT_FOUND',
        'E_ROLE_IN_USE',
        'E_ROLE_BUILT_IN',
        'E_ESCALATION',
      ],
    },
    schema: {
      operationId: 'deleteRole',
      summary: 'Delete a role that no user or token has',
      tags,
      params: byName,
      querystring: strict({}),
      response: { 204: Type.Null() },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        await access.roles.delete(
          db,
          request.identity,
          request.params.name,
          preconditionOf(request, valueTag),
        )
        return { status: 204 }
      }),
  })
}
