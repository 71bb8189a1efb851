import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Access, Identity, Login } from '#access/access.ts'
import type { RoutePlugin } from '#api/api-context.ts'
import { noStore, sessionSchema, userSchema } from '#api/schemas/access.ts'
import { dataOf, strict, text, timestamp } from '#api/schemas/shared.ts'
import {
  readDeviceCookie,
  readSessionCookie,
  setDeviceCookie,
  setSessionCookie,
} from '#api/http/session-cookie.ts'
import { writesOf } from '#api/writes/idempotency.ts'
import type { Clock } from '#lib/clock.ts'

const tags = ['access']
const password = () => text(1_024, 1)
const loginResponse = dataOf(
  strict({ user: userSchema, csrfToken: Type.String(), expiresAt: timestamp() }),
)

/** Signing in and out, the caller's session, and the first administrator. */
export const sessionRoutes: RoutePlugin = (server, { access, clock }) => {
  server.route({
    method: 'GET',
    url: '/api/session',
    config: { access: 'public' },
    schema: {
      operationId: 'getSession',
      summary: 'The caller, and what they may do',
      tags,
      querystring: strict({}),
      response: { 200: dataOf(sessionSchema) },
    },
    handler: (request, reply) => reply.headers(noStore).send({ data: shown(request.identity) }),
  })
  server.route({
    method: 'POST',
    url: '/api/session',
    config: {
      access: 'public',
      csrf: false,
      idempotent: false,
      errors: ['E_LOGIN_FAILED', 'E_THROTTLED'],
    },
    schema: {
      operationId: 'signIn',
      summary: 'Sign in: starts a session, kept by a cookie',
      tags,
      querystring: strict({}),
      body: strict({ email: text(320, 1), password: password() }, { $id: 'SignIn' }),
      response: { 201: loginResponse },
    },
    handler: async (request, reply) => {
      const { email, password } = request.body
      const agent = request.headers['user-agent'] ?? ''
      const login = await access.login(writesOf(request), {
        email,
        password,
        address: request.ip,
        agent,
        requestId: request.id,
        sessionCookie: readSessionCookie(request),
        deviceCookie: readDeviceCookie(request),
      })
      return sendLogin(request, reply, login, clock)
    },
  })
  server.route({
    method: 'DELETE',
    url: '/api/session',
    config: { access: 'signedIn', idempotent: false },
    schema: {
      operationId: 'signOut',
      summary: 'Sign out: ends this session',
      tags,
      querystring: strict({}),
      response: { 204: Type.Null() },
    },
    handler: async (request, reply) => {
      const cookie = readSessionCookie(request)
      if (cookie !== null && request.identity.csrfToken !== null)
        await access.logout(writesOf(request), cookie)
      setSessionCookie(request, reply, null)
      return reply.code(204).headers(noStore).send()
    },
  })
  firstAdministratorRoute(server, access, clock)
}

function firstAdministratorRoute(
  server: Parameters<RoutePlugin>[0],
  access: Access,
  clock: Clock,
): void {
  server.route({
    method: 'POST',
    url: '/api/first-administrator',
    config: {
      access: 'public',
      csrf: false,
      idempotent: false,
      errors: ['E_FIRST_ADMINISTRATOR', 'E_ACCESS_INPUT', 'E_PASSWORD_REFUSED'],
    },
    schema: {
      operationId: 'createFirstAdministrator',
      summary: 'Create the first administrator, with the one-time secret from the log, and sign in',
      tags,
      querystring: strict({}),
      body: strict(
        { secret: text(200, 1), email: text(320, 1), name: text(200, 1), password: password() },
        { $id: 'FirstAdministrator' },
      ),
      response: { 201: loginResponse },
    },
    handler: async (request, reply) => {
      const login = await access.createFirstAdministrator(writesOf(request), {
        ...request.body,
        agent: request.headers['user-agent'] ?? '',
        origin: { address: request.ip, requestId: request.id },
      })
      return sendLogin(request, reply, login, clock)
    },
  })
}

/**
 * Starts the browser's session: the cookie holds what no script may read, the response the rest.
 */
function sendLogin(
  request: FastifyRequest,
  reply: FastifyReply,
  login: Login,
  clock: Clock,
): FastifyReply {
  const { user, csrfToken, expiresAt, deviceCookie } = login
  setDeviceCookie(request, reply, deviceCookie)
  setSessionCookie(
    request,
    reply,
    login.cookie,
    Math.max(1, Math.floor((Date.parse(expiresAt) - clock.nowMs()) / 1_000)),
  )
  return reply.code(201).headers(noStore).send({ data: { user, csrfToken, expiresAt } })
}

function shown(identity: Identity): Record<string, unknown> {
  const { authority, user, roles, csrfToken, expiresAt, staleMs } = identity
  return {
    actor: authority.actor,
    user,
    roles,
    permissions: identity.describe(),
    csrfToken,
    expiresAt,
    staleMs: staleMs === null ? null : Math.ceil(staleMs),
  }
}
