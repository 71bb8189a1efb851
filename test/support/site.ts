import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { InjectOptions } from 'fastify'
import type { Access } from '#access/access.ts'
import { createAccess } from '#access/create-access.ts'
import type { ApiConfig, RoutePlugin, Server } from '#api/api-context.ts'
import type { OpenApi } from '#api/openapi/document.ts'
import { createServer } from '#api/server.ts'
import type { Content } from '#content/content.ts'
import type { ChangeFeed } from '#change-feed/feed.ts'
import { createContent } from '#content/create-content.ts'
import type { Database } from '#database/database.ts'
import { DiskFileStore } from '#file-store/drivers/disk.ts'
import { JobQueue } from '#jobs/job-queue.ts'
import type { HttpCache } from '#http-cache/http-cache.ts'
import { systemClock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import type { Logger } from '#lib/logger.ts'
import type { Nodes } from '#nodes/nodes.ts'
import { createMedia } from '#media/create-media.ts'
import type { Media } from '#media/media.ts'
import { testCluster } from '#test/support/cluster-parts.ts'
import { testDatabase } from '#test/support/database.ts'
import { ResponseChecker } from '#test/support/openapi.ts'

export type Persona = 'anonymous' | 'author' | 'editor' | 'administrator'
export type SiteRequest = {
  readonly as?: Persona
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}
export type SiteResponse = {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly text: string
  readonly json: SiteJson
}
// The response of any route: only the test knows its shape.
// oxlint-disable-next-line typescript/no-explicit-any
export type SiteJson = any

/**
 * A whole API on a database of its own, without listening: real content, access and media. Every
 * response is compared with `/openapi.json`.
 */
export class Site implements AsyncDisposable {
  readonly server: Server
  readonly database: Database
  readonly content: Content
  readonly access: Access
  readonly media: Media
  readonly tokens: ReadonlyMap<Persona, string>
  readonly feed: ChangeFeed
  readonly nodes: Nodes
  readonly #dispose: () => Promise<void>
  #checker: ResponseChecker | null = null

  constructor(
    parts: Pick<
      Site,
      'server' | 'database' | 'content' | 'access' | 'media' | 'tokens' | 'feed' | 'nodes'
    >,
    dispose: () => Promise<void>,
  ) {
    this.server = parts.server
    this.database = parts.database
    this.content = parts.content
    this.access = parts.access
    this.media = parts.media
    this.tokens = parts.tokens
    this.feed = parts.feed
    this.nodes = parts.nodes
    this.#dispose = dispose
  }

  async request(
    method: string,
    url: string,
    { as = 'administrator', body, headers = {} }: SiteRequest = {},
  ): Promise<SiteResponse> {
    const token = this.tokens.get(as)
    const options: InjectOptions = {
      method,
      url,
      headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
      ...(body === undefined ? {} : { payload: body as string | object }),
    }
    const response = await this.server.inject(options)
    if (method !== 'HEAD') (await this.checker()).check(method, url, response)
    const isJson = (response.headers['content-type'] ?? '').includes('json') && response.body !== ''
    return {
      status: response.statusCode,
      headers: response.headers as Record<string, string | undefined>,
      text: response.body,
      json: isJson ? JSON.parse(response.body) : null,
    }
  }

  get(url: string, options?: SiteRequest): Promise<SiteResponse> {
    return this.request('GET', url, options)
  }

  async document(as: Persona = 'administrator'): Promise<OpenApi> {
    const token = this.tokens.get(as)
    const response = await this.server.inject({
      url: '/openapi.json',
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    })
    return response.json<OpenApi>()
  }

  async checker(): Promise<ResponseChecker> {
    this.#checker ??= new ResponseChecker(await this.document())
    return this.#checker
  }

  /** After a change of types, which changes the document. */
  forgetDocument(): void {
    this.#checker = null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispose()
  }
}

export async function testSite(
  options: {
    readonly config?: Partial<ApiConfig>
    readonly logger?: Logger
    readonly plugins?: readonly RoutePlugin[]
    readonly httpCache?: HttpCache
  } = {},
): Promise<Site> {
  const db = await testDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'stoa-site-'))
  const { database } = db
  const [clock, logger] = [systemClock, options.logger ?? silentLogger]
  const content = createContent({ clock, logger })
  const cluster = testCluster(db, logger)
  const secret = 'a secret of a test, which is long enough'
  const access = createAccess({
    database,
    clock,
    logger,
    secret,
    cache: cluster.cache,
  })
  const fileStore = new DiskFileStore({
    folder: join(folder, 'files'),
    mayCreateFolder: true,
    clock,
  })
  await fileStore.identity.claim('a test')
  const media = createMedia({
    database,
    fileStore,
    dataDir: folder,
    clock,
    logger,
  })
  const server = await createServer({
    database,
    cluster,
    secret,
    content,
    access,
    media,
    queue: new JobQueue(null),
    logger,
    clock,
    ...(options.config === undefined ? {} : { config: options.config }),
    plugins: options.plugins ?? [],
    httpCache: options.httpCache ?? null,
  })
  const tokens = new Map<Persona, string>()
  for (const role of ['author', 'editor', 'administrator'] as const) {
    const { token } = await access.tokens.create(database, access.systemIdentity, {
      name: role,
      roles: [role],
      expiresAt: null,
    })
    tokens.set(role, token)
  }
  return new Site(
    { server, database, content, access, media, tokens, feed: cluster.feed, nodes: cluster.nodes },
    async () => {
      await server.close()
      await media.stop()
      await cluster[Symbol.asyncDispose]()
      await db[Symbol.asyncDispose]()
      await rm(folder, { recursive: true, force: true })
    },
  )
}
