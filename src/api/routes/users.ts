import { Type } from 'typebox'
import type { ApiContext, RoutePlugin, Server } from '#api/api-context.ts'
import { write, writesOf } from '#api/writes/idempotency.ts'
import { noStore, roleNames, userSchema } from '#api/schemas/access.ts'
import {
  dataOf,
  defaultPageSize,
  idParam,
  pageOf,
  pageQuery,
  strict,
  text,
} from '#api/schemas/shared.ts'
import { setSessionCookie } from '#api/http/session-cookie.ts'

const tags = ['access']
const managed = { permission: 'users.manage' } as const
const email = () => text(320, 1)
const name = () => text(200, 1)
const password = () => text(1_024, 1)
const state = () => Type.Union([Type.Literal('active'), Type.Literal('disabled')])
const byId = strict({ id: idParam() })
const inputErrors = [
  'E_ACCESS_INPUT',
  'E_PASSWORD_REFUSED',
  'E_EMAIL_TAKEN',
  'E_ESCALATION',
  'E_ROLE_NOT_FOUND',
]

export const userRoutes: RoutePlugin = (server, context) => {
  ownRoutes(server, context)
  readRoutes(server, context)
  writeRoutes(server, context)
}

/** Users change themselves. */
function ownRoutes(server: Server, { access, clock }: ApiContext): void {
  server.route({
    method: 'PATCH',
    url: '/api/users/me',
    config: {
      access: 'signedIn',
      idempotent: false,
      errors: [
        'E_ACCESS_INPUT',
        'E_PASSWORD_REFUSED',
        'E_LOGIN_FAILED',
        'E_THROTTLED',
        'E_ESCALATION',
      ],
    },
    schema: {
      operationId: 'updateOwnUser',
      summary:
        'Change your own name or password; a new password ends all your sessions and starts a ' +
        'new one',
      tags,
      querystring: strict({}),
      body: strict(
        {
          name: Type.Optional(name()),
          password: Type.Optional(strict({ current: password(), next: password() })),
        },
        { $id: 'OwnUserUpdate' },
      ),
      response: {
        200: dataOf(
          strict({ user: userSchema, csrfToken: Type.Union([Type.String(), Type.Null()]) }),
        ),
      },
    },
    handler: async (request, reply) => {
      const { user, login } = await access.users.updateOwn(writesOf(request), request.identity, {
        ...request.body,
        agent: request.headers['user-agent'] ?? '',
      })
      const lifetimeMs = login === null ? 0 : Date.parse(login.expiresAt) - clock.nowMs()
      if (login !== null)
        setSessionCookie(request, reply, login.cookie, Math.max(1, Math.floor(lifetimeMs / 1_000)))
      return reply
        .headers(noStore)
        .send({ data: { user, csrfToken: login?.csrfToken ?? request.identity.csrfToken } })
    },
  })
}

function readRoutes(server: Server, { access, config }: ApiContext): void {
  server.route({
    method: 'GET',
    url: '/api/users',
    config: { access: managed, errors: ['E_ACCESS_INPUT'] },
    schema: {
      operationId: 'listUsers',
      summary: 'All users, oldest first',
      tags,
      querystring: strict(pageQuery(config.pageSizeMax)),
      response: { 200: pageOf(userSchema) },
    },
    handler: async (request, reply) => {
      const { data, after } = await access.users.list({
        limit: request.query.limit ?? defaultPageSize,
        after: request.query.after ?? null,
      })
      return reply.headers(noStore).send({ data, meta: { after } })
    },
  })
  server.route({
    method: 'GET',
    url: '/api/users/:id',
    config: { access: managed, errors: ['E_USER_NOT_FOUND'] },
    schema: {
      operationId: 'getUser',
      summary: 'One user',
      tags,
      params: byId,
      querystring: strict({}),
      response: { 200: dataOf(userSchema) },
    },
    handler: async (request, reply) =>
      reply.headers(noStore).send({ data: await access.users.get(request.params.id) }),
  })
}

function writeRoutes(server: Server, context: ApiContext): void {
  changeRoutes(server, context)
  endRoutes(server, context)
}

function changeRoutes(server: Server, { access }: ApiContext): void {
  server.route({
    method: 'POST',
    url: '/api/users',
    config: { access: managed, errors: inputErrors },
    schema: {
      operationId: 'createUser',
      summary: 'Create a user',
      tags,
      querystring: strict({}),
      body: strict(
        { email: email(), name: name(), password: password(), roles: roleNames() },
        { $id: 'UserCreate' },
      ),
      response: { 201: dataOf(userSchema) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const data = await access.users.create(db, request.identity, request.body)
        return { status: 201, headers: { location: `/api/users/${data.id}` }, body: { data } }
      }),
  })
  server.route({
    method: 'PATCH',
    url: '/api/users/:id',
    config: {
      access: managed,
      errors: [...inputErrors, 'E_USER_NOT_FOUND', 'E_LAST_ADMINISTRATOR'],
    },
    schema: {
      operationId: 'updateUser',
      summary: 'Change a user; a new password or disabling ends their sessions',
      tags,
      params: byId,
      querystring: strict({}),
      body: strict(
        {
          email: Type.Optional(email()),
          name: Type.Optional(name()),
          password: Type.Optional(password()),
          roles: Type.Optional(roleNames()),
          state: Type.Optional(state()),
        },
        { $id: 'UserUpdate' },
      ),
      response: { 200: dataOf(userSchema) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => ({
        status: 200,
        body: {
          data: await access.users.update(db, request.identity, request.params.id, request.body),
        },
      })),
  })
}

function endRoutes(server: Server, { access }: ApiContext): void {
  server.route({
    method: 'DELETE',
    url: '/api/users/:id',
    config: {
      access: managed,
      errors: ['E_USER_NOT_FOUND', 'E_LAST_ADMINISTRATOR', 'E_ESCALATION'],
    },
    schema: {
      operationId: 'deleteUser',
      summary: 'Delete a user',
      tags,
      params: byId,
      querystring: strict({}),
      response: { 204: Type.Null() },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        await access.users.delete(db, request.identity, request.params.id)
        return { status: 204 }
      }),
  })
  server.route({
    method: 'DELETE',
    url: '/api/users/:id/sessions',
    config: { access: 'signedIn', errors: ['E_PERMISSION', 'E_USER_NOT_FOUND', 'E_ESCALATION'] },
    schema: {
      operationId: 'endSessions',
      summary:
        'Sign out everywhere: your own sessions, or with users.manage those of users who may ' +
        'do no more than you',
      tags,
      params: byId,
      querystring: strict({}),
      response: { 200: dataOf(strict({ ended: Type.Integer({ minimum: 0 }) })) },
    },
    handler: (request, reply) =>
      write(request, reply, async (db) => {
        const ended = await access.logoutEverywhere(db, request.identity, request.params.id)
        return { status: 200, body: { data: { ended } } }
      }),
  })
}
