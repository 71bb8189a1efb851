import type { FastifyReply, FastifyRequest } from 'fastify'
import plugin from 'fastify-plugin'
import { PermissionError } from '#access/errors.ts'
import { allMethods } from '#api/api-context.ts'
import type { Server } from '#api/api-context.ts'
import { isAnonymous } from '#api/http/identity.ts'
import { contentSecurityPolicy } from '#api/pages/layout.ts'
import { problemPage } from '#api/pages/problem.ts'
import {
  MethodNotAllowedError,
  RequestMalformedError,
  RequestTimeoutError,
  RouteNotFoundError,
  SignInNeededError,
} from '#api/problems/errors.ts'
import { problemResponse } from '#api/problems/problem.ts'
import type { RefusalLog } from '#api/problems/refusal-log.ts'
import { EntryNotFoundError, ForbiddenError } from '#content/errors.ts'
import { isId } from '#lib/id.ts'
import type { Logger } from '#lib/logger.ts'

/** The route that finds an entry by its slug as well. */
const slugRoute = '/api/content/:type/:id'

type Sinks = { readonly logger: Logger; readonly refusals: RefusalLog }

/** Turns every error into a problem document (RFC 9457), or a page where a person navigates. */
export const problems = plugin(
  async (server: Server, { refusals }: { readonly refusals: RefusalLog }) => {
    const sinks = { logger: server.api.logger, refusals }
    server.setErrorHandler((error, request, reply) => sendProblem(error, request, reply, sinks))
    server.setNotFoundHandler((request, reply) =>
      sendProblem(new RouteNotFoundError('There is nothing at this path.'), request, reply, sinks),
    )
  },
  { name: 'problems' },
)

export function sendProblem(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  sinks?: Sinks,
): FastifyReply {
  const { status, headers, body, defect } = problemResponse(asShown(error, request), request.id)
  sinks?.refusals.note(error)
  if (defect)
    sinks?.logger.error(
      {
        err: error,
        requestId: request.id,
        method: request.method,
        route: request.routeOptions.url,
      },
      'a request failed',
    )
  reply.code(status).headers(headers)
  if (!wantsPage(request)) return reply.type('application/problem+json').send(JSON.stringify(body))
  return reply
    .header('content-security-policy', contentSecurityPolicy)
    .header('vary', 'Accept')
    .type('text/html; charset=utf-8')
    .send(problemPage(body))
}

/**
 * True for a browser that navigates: it names HTML first. Programs get the problem document, and so
 * does everything below /api.
 */
function wantsPage({ method, url, headers }: FastifyRequest): boolean {
  return (
    method === 'GET' &&
    headers.accept?.startsWith('text/html') === true &&
    !/^\/(api|assets|healthz|metrics|openapi)/.test(url)
  )
}

/**
 * The error as this client is to see it. An unknown method fails in its own ways before it is
 * looked up, a client that left is no failure of this side, and a caller without credentials is
 * asked for some before it is refused.
 */
function asShown(error: unknown, request: FastifyRequest): unknown {
  if (!(allMethods as readonly string[]).includes(request.method))
    return new MethodNotAllowedError(request.method, allMethods)
  if (error instanceof Error && error === request.raw.errored)
    return new RequestMalformedError(
      'The connection ended before the body did.',
      {},
      { cause: error },
    )
  const isLate =
    error instanceof Error && (error as { code?: unknown }).code === 'FST_ERR_HANDLER_TIMEOUT'
  if (isLate && !request.raw.complete)
    return new RequestTimeoutError('The body of the request did not arrive in time.')
  if (error instanceof EntryNotFoundError) return withIdHint(error, request)
  const isRefused = error instanceof ForbiddenError || error instanceof PermissionError
  return isRefused && isAnonymous(request.identity)
    ? new SignInNeededError('Sign in, or send a token, to do this.')
    : error
}

/** Only a read takes a slug in place of the id. The hint says nothing about what is there. */
function withIdHint(error: EntryNotFoundError, { params, routeOptions }: FastifyRequest): Error {
  const { type, id } = params as { readonly type?: string; readonly id?: string }
  const takesSlug = routeOptions.method === 'GET' && routeOptions.url === slugRoute
  if (takesSlug || type === undefined || id === undefined || isId(id)) return error
  const read = `GET /api/content/${encodeURIComponent(type)}/${encodeURIComponent(id)}`
  return new EntryNotFoundError(
    `This route takes the id of an entry, in lower case. If you have its slug, ${read} ` +
      'shows the entry with its id; send that.',
  )
}
