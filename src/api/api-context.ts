import type { IncomingMessage, ServerResponse } from 'node:http'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyTypeProvider,
  RawServerDefault,
  RouteOptions,
} from 'fastify'
import type { Static, TSchema } from 'typebox'
import type { Access, Identity, SystemPermission } from '#access/access.ts'
import type { WriteRecorder } from '#api/writes/write-recorder.ts'
import type { ResponseKeys } from '#api/delivery/response-keys.ts'
import type { Places } from '#api/http/places.ts'
import type { Connections } from '#api/http/connections.ts'
import type { ForwardingLog } from '#api/http/forwarding-log.ts'
import type { Place, RequestPlaces } from '#api/http/request-places.ts'
import type { Metrics } from '#api/metrics.ts'
import type { Cache } from '#cache/cache.ts'
import type { AppliedLog } from '#change-feed/applied-log.ts'
import type { ChangeFeed } from '#change-feed/feed.ts'
import type { ClusterLink } from '#cluster-link/cluster-link.ts'
import type { Content } from '#content/content.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import type { RowTexts } from '#content/query/row-texts.ts'
import type { Database } from '#database/database.ts'
import type { Diagnosis } from '#doctor/doctor.ts'
import type { FileStoreWatch } from '#file-store/file-store-watch.ts'
import type { EventHub } from '#events/event-hub.ts'
import type { Clock } from '#lib/clock.ts'
import type { JobQueue } from '#jobs/job-queue.ts'
import type { Logger } from '#lib/logger.ts'
import type { Calls } from '#nodes/calls.ts'
import type { Media } from '#media/media.ts'

export type ApiConfig = {
  /** False: load balancers are to send nothing here, since this node only runs jobs. */
  readonly servesWeb: boolean
  /**
   * Behind a reverse proxy: `true`, how many of them there are one behind the other, or their
   * addresses. `X-Forwarded-For` and `-Proto` are believed as far as these wrote them.
   */
  readonly trustProxy: boolean | number | string
  /** Origins that browsers may call from with credentials; `*`: any, without credentials. */
  readonly corsOrigins: readonly string[]
  readonly bodyBytesMax: number
  readonly uploadBytesMax: number
  readonly urlBytesMax: number
  /** The request line and all headers together. Node refuses more with 431. */
  readonly headerBytesMax: number
  readonly jsonDepthMax: number
  readonly pageSizeMax: number
  /**
   * Requests in flight that the clients of one address may have on this node, and half of what all
   * may have; past it 503 with `Retry-After`.
   */
  readonly requestsMax: number
  /** Streams of events of this node; one caller has at most half of them. */
  readonly eventStreamsMax: number
  /** A client that is waited for has to move this many bytes per second, … */
  readonly transferRateMin: number
  /** … measured over this time; otherwise its connection ends. */
  readonly transferGraceMs: number
  /** Bytes of responses in memory that clients have not read; past it the slowest are cut off. */
  readonly unsentBytesMax: number
  /** From a request's first byte to its response, except for routes that name their own. */
  readonly handlerTimeoutMs: number
  /** For the headers of a request to arrive. */
  readonly headersTimeoutMs: number
  readonly keepAliveTimeoutMs: number
  /**
   * A connection on which nothing moves for so long in the middle of a request or a response is
   * ended: a client that stalls must not hold memory.
   */
  readonly idleTimeoutMs: number
  /**
   * How long caches that are not purged may keep published content of the anonymous role, in
   * seconds.
   */
  readonly sharedCacheS: number
  readonly compress: boolean
  /**
   * True if clients reach the site by TLS although this node may see plain HTTP: session cookies
   * are `Secure` then. Otherwise each request decides.
   */
  readonly secureCookies: boolean
  /** `Strict-Transport-Security` in seconds; 0: not sent. */
  readonly hstsS: number
  /** `/metrics` for everyone, or for the permission `cluster.manage`. */
  readonly metricsPublic: boolean
}

/** The methods that routes have. */
export const allMethods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const

export const defaultApiConfig: ApiConfig = {
  servesWeb: true,
  trustProxy: false,
  corsOrigins: [],
  bodyBytesMax: 1_048_576,
  uploadBytesMax: 5 * 1024 ** 3,
  urlBytesMax: 8_192,
  headerBytesMax: 16_384,
  jsonDepthMax: 64,
  pageSizeMax: 200,
  requestsMax: 1_000,
  eventStreamsMax: 16_384,
  transferRateMin: 1_024,
  transferGraceMs: 20_000,
  unsentBytesMax: 64 * 1_024 ** 2,
  handlerTimeoutMs: 30_000,
  headersTimeoutMs: 15_000,
  keepAliveTimeoutMs: 72_000,
  idleTimeoutMs: 60_000,
  sharedCacheS: 1,
  compress: true,
  secureCookies: false,
  hstsS: 0,
  metricsPublic: true,
}

/** This node's part of the cluster, as far as HTTP needs it. */
export type ClusterParts = {
  readonly feed: ChangeFeed
  readonly cache: Cache
  readonly link: ClusterLink
  readonly applied: AppliedLog
  readonly texts: RowTexts
  /** A look at the files now and then. Absent: this process does not look. */
  readonly files?: FileStoreWatch
  /** Calls to the other nodes, and from them. */
  readonly calls: Calls
  /** The duties that this node leads. */
  readonly duties: () => readonly string[]
  /** Inspects every node; takes up to ten seconds. */
  readonly findings: () => Promise<Diagnosis>
}

/** The parts and settings that routes use. */
export type ApiContext = {
  readonly database: Database
  readonly cluster: ClusterParts
  readonly content: Content
  readonly access: Access
  readonly media: Media
  readonly queue: JobQueue
  /** Null: there is none that this node knows of. */
  readonly httpCache: HttpCache | null
  readonly logger: Logger
  readonly clock: Clock
  readonly config: ApiConfig
  readonly places: RequestPlaces
  readonly forwarding: ForwardingLog
  readonly events: EventHub
  /** Streams of events, by their callers. */
  readonly streamPlaces: Places
  readonly responseKeys: ResponseKeys
  readonly version: string
  /** The secret of the cluster, from which keys are derived. */
  readonly secret: string
  /** Set once, by `beginDrain()` or by closing. */
  readonly state: { draining: boolean }
}

/**
 * Who may use a route; every route says it in `config.access`.
 * `public`: everyone. `signedIn`: a user or a token. `content`: the part content decides by type,
 * action and entry.
 */
export type RouteAccess =
  | 'public'
  | 'signedIn'
  | 'content'
  | { readonly permission: SystemPermission }

/** Makes `request.body`, `.query` and `.params` of a route have the types of its schemas. */
export interface SchemaTypes extends FastifyTypeProvider {
  readonly validator: this['schema'] extends TSchema ? Static<this['schema']> : unknown
  readonly serializer: unknown
}

export type Server = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  SchemaTypes
>

/** A file of `routes/` exports one of these, and `routes.ts` lists it. */
export type RoutePlugin = (server: Server, context: ApiContext) => void | Promise<void>

declare module 'fastify' {
  interface FastifyRequest {
    /** The caller, known from `onRequest` on. */
    identity: Identity
    /** Records what the request wrote; null: it has written nothing yet. */
    writes: WriteRecorder | null
    /** How new the response is at least; empty: not known, or no HTTP cache asks for it. */
    asOf: string
    /** Headers, in pairs, by which the HTTP cache may keep the response; null: it must not. */
    edge: readonly string[] | null
    /** The request's place among those in flight; null: it needs none, or has given it back. */
    place: Place | null
  }
  interface FastifyInstance {
    readonly api: ApiContext
    readonly metrics: Metrics
    readonly connections: Connections
    /** Every route there is, for the API's document. */
    readonly documented: RouteOptions[]
    /** The methods of each path. */
    readonly routeMethods: Map<string, Set<string>>
    /**
     * Responses from now on ask clients to leave, and `/healthz/ready` says no. Closing does it
     * too.
     */
    beginDrain(): void
  }
  interface FastifyContextConfig {
    access?: RouteAccess
    /**
     * `false`: a session cookie gives this route nothing, so its writes need no CSRF token (signing
     * in).
     */
    csrf?: false
    /** Codes of errors beside the usual ones, for the API's document. */
    errors?: readonly string[]
    /**
     * Health and metrics: served without identifying the caller, and even when the node has all the
     * requests it can take.
     */
    whenBusy?: boolean
    /** Takes `If-Match`, or `If-None-Match`. */
    ifMatch?: boolean
    ifNoneMatch?: boolean
    /**
     * False where `Idempotency-Key` means nothing: reads by POST, uploads that have a protocol of
     * their own.
     */
    idempotent?: boolean
    /**
     * A cached identity is enough while the database is away: the response then says
     * that it is stale.
     */
    mayBeStale?: true
    /** Rendered by the server for methods that a path does not have: no operation of the API. */
    generated?: boolean
  }
  interface FastifySchema {
    operationId?: string
    summary?: string
    description?: string
    tags?: readonly string[]
    /**
     * Parameters, and a body, that the handler reads by itself: in the API's document, but not
     * checked by the server.
     */
    documented?: {
      readonly params?: TSchema
      readonly querystring?: TSchema
      readonly body?: { readonly content: Readonly<Record<string, { readonly schema: TSchema }>> }
    }
  }
}
