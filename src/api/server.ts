import { createServer as createHttpServer } from 'node:http'
import type { IncomingMessage, Server as HttpServer, ServerResponse } from 'node:http'
import { fastify } from 'fastify'
import type { Access } from '#access/access.ts'
import { defaultApiConfig } from '#api/api-context.ts'
import type { ApiConfig, ApiContext, ClusterParts, RoutePlugin, Server } from '#api/api-context.ts'
import { compression } from '#api/delivery/compression.ts'
import { edgeHeaders } from '#api/delivery/edge-headers.ts'
import { fastPath } from '#api/delivery/fast-path.ts'
import { ResponseKeys } from '#api/delivery/response-keys.ts'
import { respondToBrokenRequest } from '#api/http/broken-request.ts'
import { lastAddress, removeForwardedPorts } from '#api/http/client-address.ts'
import { FairTurns } from '#api/http/fair-turns.ts'
import { Connections } from '#api/http/connections.ts'
import { cors } from '#api/http/cors.ts'
import { ForwardingLog } from '#api/http/forwarding-log.ts'
import { identification } from '#api/http/identity.ts'
import { jsonBodies } from '#api/http/json-parser.ts'
import { requestId } from '#api/http/request-id.ts'
import { Places } from '#api/http/places.ts'
import { placeRelease, RequestPlaces, requestPlaces } from '#api/http/request-places.ts'
import { otherMethods, routeRules } from '#api/http/route-rules.ts'
import { securityHeaders } from '#api/http/security-headers.ts'
import { validatorCompiler } from '#api/http/validation.ts'
import { Metrics } from '#api/metrics.ts'
import { problems, sendProblem } from '#api/problems/problem-plugin.ts'
import { RefusalLog } from '#api/problems/refusal-log.ts'
import { routePlugins } from '#api/routes.ts'
import { handleReceiptCalls } from '#api/writes/receipts.ts'
import { writeTokens } from '#api/writes/token-hook.ts'
import type { Content } from '#content/content.ts'
import type { Database } from '#database/database.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { EventHub } from '#events/event-hub.ts'
import type { Clock } from '#lib/clock.ts'
import type { Logger } from '#lib/logger.ts'
import type { Media } from '#media/media.ts'

/** The longest value of one path parameter: a slug or an id. */
const paramLengthMax = 1_000

export type ServerOptions = {
  readonly database: Database
  readonly cluster: ClusterParts
  readonly content: Content
  readonly access: Access
  readonly media: Media
  /** Default: one that wakes no node. */
  readonly queue?: JobQueue
  /** The HTTP cache in front of the nodes; default: none that they know of. */
  readonly httpCache?: HttpCache | null
  readonly logger: Logger
  readonly clock: Clock
  readonly secret: string
  readonly config?: Partial<ApiConfig>
  /** The version of this program, for `/openapi.json`. */
  readonly version?: string
  /** Routes beside the API's own. */
  readonly plugins?: readonly RoutePlugin[]
  /** Receives requests that were refused because a part is down; default: the log alone. */
  readonly refusals?: RefusalLog
  /** Counts how requests arrive through proxies; default: one of its own. */
  readonly forwarding?: ForwardingLog
}

/**
 * The HTTP server, ready to listen or to be injected into. `close()` drains: it finishes what is in
 * flight and asks clients to leave.
 */
export async function createServer(options: ServerOptions): Promise<Server> {
  const {
    plugins = [],
    config,
    version = '0.0.0',
    refusals,
    forwarding,
    httpCache,
    ...parts
  } = options
  const { queue = new JobQueue(null) } = parts
  const logger = parts.logger.child({ part: 'api' })
  const apiConfig = { ...defaultApiConfig, ...config }
  const context: ApiContext = {
    ...parts,
    queue,
    httpCache: httpCache ?? null,
    logger,
    config: apiConfig,
    places: new RequestPlaces(apiConfig.requestsMax),
    forwarding: forwarding ?? new ForwardingLog(),
    events: eventHub(parts, logger),
    streamPlaces: new Places(apiConfig.eventStreamsMax),
    responseKeys: new ResponseKeys(),
    state: { draining: false },
    version,
  }
  const metrics = new Metrics(context)
  const server = instance(context, metrics)
  decorate(server, context, metrics)
  await server.register(problems, { refusals: refusals ?? new RefusalLog(logger) })
  await server.register(routeRules)
  await server.register(jsonBodies)
  await server.register(requestPlaces)
  await server.register(edgeHeaders)
  await server.register(identification)
  await server.register(writeTokens)
  await server.register(securityHeaders)
  await server.register(cors)
  await server.register(compression)
  await server.register(placeRelease)
  for (const routes of [...routePlugins, ...plugins])
    await server.register(async (scope: Server) => routes(scope, context))
  await server.register(otherMethods)
  await server.ready()
  return server
}

function eventHub(
  { cluster, database, access, content, clock }: ServerOptions,
  logger: Logger,
): EventHub {
  return new EventHub({ feed: cluster.feed, database, access, content, clock, logger })
}

function decorate(server: Server, context: ApiContext, metrics: Metrics): void {
  server.decorate('api', context)
  server.decorate('metrics', metrics)
  server.decorate('documented', [])
  server.decorate('routeMethods', new Map())
  server.decorate('beginDrain', () => {
    context.state.draining = true
    context.events.drain()
  })
  server.decorateRequest('identity')
  server.decorateRequest('place', null)
  server.decorateRequest('writes', null)
  server.setValidatorCompiler(validatorCompiler())
  // Handlers send what they return: schemas of responses are documentation that tests hold, they
  // remove nothing.
  server.setSerializerCompiler(() => JSON.stringify)
  server.addHook('preClose', async () => {
    server.beginDrain()
    server.connections.closeUnused()
  })
  const receipts = handleReceiptCalls(context.cluster)
  server.addHook('onClose', async () => {
    metrics.registry.clear()
    receipts?.[Symbol.dispose]()
  })
}

function instance(context: ApiContext, metrics: Metrics): Server {
  const { config } = context
  let connections: Connections | null = null
  const server: Server = fastify({
    logger: false,
    genReqId: requestId,
    trustProxy: trusted(config.trustProxy),
    bodyLimit: config.bodyBytesMax,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    routerOptions: { maxParamLength: paramLengthMax },
    serverFactory: (routes) => {
      const made = httpServer(context, metrics, routes)
      connections = made.connections
      return made.server
    },
    clientErrorHandler: respondToBrokenRequest,
    frameworkErrors: (error, request, reply) =>
      void sendProblem(
        error,
        request,
        reply.headers({ 'x-request-id': request.id, 'x-content-type-options': 'nosniff' }),
      ),
  })
  server.decorate('connections', connections as unknown as Connections)
  return server
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

/** The server of `node:http`: one request per connection at a time, the fast path first. */
function httpServer(
  context: ApiContext,
  metrics: Metrics,
  routes: Handler,
): { readonly server: HttpServer; readonly connections: Connections } {
  const { config } = context
  const respondFast = fastPath(context, () => metrics.fastResponse())
  const behindProxy = config.trustProxy !== false
  // Addresses of proxies, or true, stand for one proxy.
  const proxies = typeof config.trustProxy === 'string' ? 1 : Number(config.trustProxy)
  const turns = new FairTurns(context.clock)
  const handle: Handler = (request, response) => {
    context.forwarding.note(request, proxies)
    if (behindProxy) removeForwardedPorts(request)
    turns.run(lastAddress(request, behindProxy), () => {
      if (request.socket.destroyed) return
      if (!respondFast(request, response)) routes(request, response)
    })
  }
  const options = {
    maxHeaderSize: config.headerBytesMax,
    headersTimeout: config.headersTimeoutMs,
    connectionsCheckingInterval: 5_000,
    // The routes refuse a missing host with a problem document.
    requireHostHeader: false,
  }
  const server = createHttpServer(options, (request, response) =>
    connections.inTurn(request, response, handle),
  )
  const connections = new Connections(server, { ...config, behindProxy }, context.clock)
  server.keepAliveTimeout = config.keepAliveTimeoutMs
  // Headers have their deadline; bodies have the route's, since an upload may take long.
  server.requestTimeout = 0
  server.timeout = config.idleTimeoutMs
  return { server, connections }
}

/**
 * The proxies that Fastify believes. Its own `true` takes the first address of the header, which is
 * what the client wrote: a new one with each attempt at a password.
 */
function trusted(
  proxies: ApiConfig['trustProxy'],
): string | false | ((address: string, hop: number) => boolean) {
  if (typeof proxies === 'string') return proxies
  if (proxies === false || proxies === 0) return false
  return (_address, hop) => hop < Number(proxies)
}
