import { createServer as createHttpServer } from 'node:http'
import type { IncomingMessage, Server as HttpServer, ServerResponse } from 'node:http'
import { fastify } from 'fastify'
import type { FastifyReply, FastifyRequest, preValidationHookHandler, RouteOptions } from 'fastify'
import type { Access } from '#access/access.ts'
import { PermissionError } from '#access/errors.ts'
import { defaultApiConfig } from '#api/api-context.ts'
import type { ApiConfig, ApiContext, ClusterParts, RoutePlugin, Server } from '#api/api-context.ts'
import { responseHook, requestHook } from '#api/http/response-headers.ts'
import { respondToBrokenConnection } from '#api/http/broken-connection.ts'
import {
  MediaTypeUnsupportedError,
  MethodNotAllowedError,
  RequestMalformedError,
  RequestTimeoutError,
  RouteNotFoundError,
  SignInNeededError,
} from '#api/problems/errors.ts'
import { identityHook, isAnonymous } from '#api/http/identity.ts'
import { parseJson } from '#api/http/json-body.ts'
import { contentSecurityPolicy } from '#api/pages/layout.ts'
import { problemPage } from '#api/pages/problem.ts'
import { deadlineError, problemResponse } from '#api/problems/problem.ts'
import { fastPath } from '#api/delivery/fast-path.ts'
import { handleReceiptCalls } from '#api/writes/receipts.ts'
import { RefusalLog } from '#api/problems/refusal-log.ts'
import { requestId } from '#api/http/request-id.ts'
import { tokenHook } from '#api/writes/token-hook.ts'
import { routePlugins } from '#api/routes.ts'
import { closeUnused } from '#api/http/unused-connections.ts'
import { validatorCompiler } from '#api/http/validation.ts'
import { announceClose } from '#api/http/waiting-responses.ts'
import { ForbiddenError } from '#content/errors.ts'
import type { Content } from '#content/content.ts'
import type { Database } from '#database/database.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import type { Calls } from '#nodes/calls.ts'
import type { Media } from '#media/media.ts'

/** Longest value of one path parameter: a slug or an id. */
const paramLengthMax = 1_000
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const

export type ServerOptions = {
  readonly database: Database
  readonly cluster?: ClusterParts
  /** To the other nodes; those of `cluster` where they are not named. */
  readonly calls?: Calls
  readonly content: Content
  readonly access: Access
  readonly media: Media
  readonly logger: Logger
  readonly clock: Clock
  readonly config?: Partial<ApiConfig>
  /** Of this program, for `/openapi.json`. */
  readonly version?: string
  /** Routes beside the API's own, by whoever wires the server. */
  readonly plugins?: readonly RoutePlugin[]
  /** Where refused requests are told of; left out: in the log only. */
  readonly refusals?: RefusalLog
}

/**
 * The HTTP server, ready to listen or to be injected into. `close()` drains: answers what is in
 * flight and asks clients to leave.
 */
export async function createServer(options: ServerOptions): Promise<Server> {
  const {
    plugins = [],
    config,
    version = '0.0.0',
    cluster = null,
    calls = cluster?.calls ?? null,
    refusals = new RefusalLog(options.logger.child({ part: 'api' })),
    ...parts
  } = options
  const context: ApiContext = {
    ...parts,
    cluster,
    calls,
    logger: parts.logger.child({ part: 'api' }),
    config: { ...defaultApiConfig, ...config },
    state: { draining: false },
    version,
  }
  const { metrics, hook } = requestHook(context)
  const server = instance(
    context.config,
    fastPath(context, () => metrics.ready()),
  )
  server.decorate('api', context)
  server.decorate('beginDrain', () => {
    context.state.draining = true
  })
  server.decorateRequest('identity')
  server.decorateRequest('writes', null)
  server.setValidatorCompiler(validatorCompiler())
  // What a handler answers is what is sent: schemas of responses are documentation that tests hold,
  // they remove nothing.
  server.setSerializerCompiler(() => JSON.stringify)
  bodies(server, context.config)
  failures(server, { logger: context.logger, refusals })
  const endUnusedConnections = closeUnused(server.server)
  server.addHook('preClose', async () => {
    server.beginDrain()
    endUnusedConnections()
  })
  server.decorate('metrics', metrics)
  server.addHook('onClose', async () => metrics.registry.clear())
  const answering = cluster === null ? null : handleReceiptCalls(cluster)
  server.addHook('onClose', async () => answering?.[Symbol.dispose]())
  server.addHook('onRequest', hook)
  server.addHook('onRequest', identityHook(context.access))
  if (cluster !== null) server.addHook('onSend', tokenHook(cluster))
  server.addHook('onSend', responseHook(context))
  const { paths, documented } = routeRules(server, context.config)
  server.decorate('documented', documented)
  for (const plugin of [...routePlugins, ...plugins]) await plugin(server, context)
  otherMethods(server, paths)
  await server.ready()
  return server
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

/** The server itself, which first looks whether a response is ready. */
function listener(
  config: ApiConfig,
  ready: ReturnType<typeof fastPath>,
  routes: Handler,
): HttpServer {
  const options = {
    maxHeaderSize: config.headerBytesMax,
    headersTimeout: config.headersTimeoutMs,
    connectionsCheckingInterval: 5_000,
  }
  const server = createHttpServer(options, (request, response) => {
    announceClose(request, response)
    if (!ready(request, response)) routes(request, response)
  })
  server.keepAliveTimeout = config.keepAliveTimeoutMs
  // Headers have their deadline; bodies have the route's, since an upload may take long.
  server.requestTimeout = 0
  server.timeout = config.idleTimeoutMs
  return server
}

/**
 * Whom Fastify believes. Its own `true` takes the first address of the header, which is what the
 * client wrote: a new one with each try at a password.
 */
function trusted(
  proxies: ApiConfig['trustProxy'],
): string | false | ((address: string, hop: number) => boolean) {
  if (typeof proxies === 'string') return proxies
  if (proxies === false || proxies === 0) return false
  return (_address, hop) => hop < Number(proxies)
}

function instance(config: ApiConfig, ready: ReturnType<typeof fastPath>): Server {
  const server = fastify({
    logger: false,
    genReqId: requestId,
    trustProxy: trusted(config.trustProxy),
    bodyLimit: config.bodyBytesMax,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    routerOptions: { maxParamLength: paramLengthMax },
    serverFactory: (routes) => listener(config, ready, routes),
    clientErrorHandler: respondToBrokenConnection,
    frameworkErrors: (error, request, reply) =>
      void sendProblem(
        error,
        request,
        reply.headers({ 'x-request-id': request.id, 'x-content-type-options': 'nosniff' }),
      ),
  })
  return server
}

function bodies(server: Server, config: ApiConfig): void {
  server.removeAllContentTypeParsers()
  server.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, bytes, done) => {
    const charset = /charset\s*=\s*"?([^\s";]+)/i.exec(request.headers['content-type'] ?? '')?.[1]
    if (charset !== undefined && charset.toLowerCase() !== 'utf-8') {
      done(new MediaTypeUnsupportedError('Send JSON in UTF-8.'))
      return
    }
    let value: unknown
    try {
      value = bytes.length === 0 ? undefined : parseJson(bytes as Buffer, config.jsonDepthMax)
    } catch (error) {
      done(error as Error)
      return
    }
    done(null, value)
  })
}

type Told = { readonly logger: Logger; readonly refusals: RefusalLog }

function failures(server: Server, told: Told): void {
  server.setErrorHandler((error, request, reply) => sendProblem(error, request, reply, told))
  server.setNotFoundHandler((request, reply) => {
    return sendProblem(
      new RouteNotFoundError('There is nothing at this path.'),
      request,
      reply,
      told,
    )
  })
}

function sendProblem(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  told?: Told,
): FastifyReply {
  const { status, headers, body, defect } = problemResponse(meant(error, request), request.id)
  told?.refusals.note(error)
  if (defect)
    told?.logger.error(
      {
        err: error,
        requestId: request.id,
        method: request.method,
        route: request.routeOptions.url,
      },
      'a request failed',
    )
  reply.code(status).headers(headers)
  if (!isForPeople(request))
    return reply.type('application/problem+json').send(JSON.stringify(body))
  return reply
    .header('content-security-policy', contentSecurityPolicy)
    .header('vary', 'Accept')
    .type('text/html; charset=utf-8')
    .send(problemPage(body))
}

/**
 * A browser that goes to a page: it names HTML first. Scripts and programs get the problem
 * document, and so does everything below /api.
 */
function isForPeople({ method, url, headers }: FastifyRequest): boolean {
  return (
    method === 'GET' &&
    headers.accept?.startsWith('text/html') === true &&
    !/^\/(api|assets|healthz|metrics|openapi)/.test(url)
  )
}

/**
 * A method that no path has fails in its own ways before it is looked up. Nobody in particular
 * lacks a permission: who has not signed in is asked to.
 */
function meant(error: unknown, request: FastifyRequest): unknown {
  if (!(methods as readonly string[]).includes(request.method))
    return new MethodNotAllowedError(request.method, methods)
  // The client left: nothing failed on this side.
  if (error instanceof Error && error === request.raw.errored)
    return new RequestMalformedError(
      'The connection ended before the body did.',
      {},
      { cause: error },
    )
  const late =
    error instanceof Error && (error as { code?: unknown }).code === 'FST_ERR_HANDLER_TIMEOUT'
  if (late && !request.raw.complete)
    return new RequestTimeoutError('The body of the request did not arrive in time.')
  const refused = error instanceof ForbiddenError || error instanceof PermissionError
  return refused && isAnonymous(request.identity)
    ? new SignInNeededError('Sign in, or send a token, to do this.')
    : error
}

/**
 * Every route says who may use it and documents itself; forgetting either stops the server, not a
 * reviewer.
 */
function routeRules(
  server: Server,
  config: ApiConfig,
): { paths: Map<string, Set<string>>; documented: RouteOptions[] } {
  const paths = new Map<string, Set<string>>()
  const documented: RouteOptions[] = []
  server.addHook('onRoute', (route: RouteOptions) => {
    const named = [route.method].flat()
    const known = paths.get(route.url) ?? new Set()
    paths.set(route.url, known)
    for (const method of named) known.add(method)
    if (route.config?.generated === true || (named.length === 1 && named[0] === 'HEAD')) return
    const name = `${named.join(',')} ${route.url}`
    if (route.config?.access === undefined)
      throw new Error(`${name} does not say in config.access who may use it`)
    if (route.schema?.operationId === undefined || route.schema.response === undefined)
      throw new Error(`${name} has no operationId or no answers in its schema`)
    documented.push(route)
    // Reads of content wait for nothing but the database, whose every wait has a deadline: a second
    // one would cost more than the routing. Writes wait for their bodies too.
    const isRead = named.every((method) => method === 'GET' || method === 'HEAD')
    if (route.config.access !== 'content' || !isRead)
      route.handlerTimeout ??= config.handlerTimeoutMs
    if (!isRead && route.handlerTimeout !== undefined)
      route.preValidation = [
        respondWithin(route.handlerTimeout),
        ...[route.preValidation ?? []].flat(),
      ]
  })
  return { paths, documented }
}

/**
 * Fastify forgets the deadline of a request with the last byte of its body; this one holds from
 * there on.
 */
function respondWithin(timeoutMs: number): preValidationHookHandler {
  return (_request, reply, done) => {
    const timer = setTimeout(() => {
      if (!reply.sent) void reply.send(deadlineError())
    }, timeoutMs)
    reply.raw.once('close', () => clearTimeout(timer))
    done()
  }
}

/**
 * The methods that a path does not have: OPTIONS says which it has, the others get 405 and the
 * same.
 */
function otherMethods(server: Server, paths: Map<string, Set<string>>): void {
  for (const [url, present] of paths) {
    const allow = methods.filter((method) => present.has(method) || method === 'OPTIONS')
    const missing = methods.filter((method) => !present.has(method))
    server.route({
      method: missing,
      url,
      config: { generated: true },
      // Before the body is looked at: what it is does not matter.
      onRequest: (request, _reply, done) =>
        done(
          request.method === 'OPTIONS'
            ? undefined
            : new MethodNotAllowedError(request.method, allow),
        ),
      handler: (_request, reply) => reply.code(204).header('allow', allow.join(', ')).send(),
    })
  }
}
