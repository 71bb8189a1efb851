import { ErrorReply, RESP_TYPES, createCluster } from '@redis/client'
import { secondLevelKeepS, secondLevelTimeoutMs } from '#cache/second-level.ts'
import type { SecondLevel, SecondLevelExamination } from '#cache/second-level.ts'
import { backoffMs } from '#lib/backoff.ts'
import type { Logger } from '#lib/logger.ts'
import { Reconnecting } from '#lib/reconnecting.ts'
import { openRedis, redisAccount, redisSocket } from '#lib/redis-connection.ts'
import { parseRedisUrl } from '#lib/redis-url.ts'
import type { RedisUrl } from '#lib/redis-url.ts'
import type { ServerFacts } from '#lib/server-facts.ts'
import { timedOut, withTimeout } from '#lib/timeout.ts'

export type RedisOptions = {
  /** One Redis or Valkey, behind sentinels, or a Redis Cluster; see `parseRedisUrl`. */
  readonly url: string
  /** Names the cluster for others on the same server. Absent: it leaves no mark there. */
  readonly identity?: () => Promise<string>
  readonly logger: Logger
}

const connectTimeoutMs = 2_000
/** The pause before a server of a Redis Cluster is tried again, doubled up to the maximum. */
const retryFirstMs = 100
const retryMaxMs = 2_000
/** A Redis Cluster is asked for its servers anew when one has been away for so long. */
const refreshAfterMs = 1_000
/** Commands on their way; past them a value is not there. */
const commandsMax = 1_000
/**
 * Bytes of values on their way there; past them none is sent. A server that hangs would otherwise
 * make the node hold on to thousands.
 */
const putBytesMax = 16 * 1024 * 1024
/**
 * After a timeout the server is not used for this long, and then it is probed: otherwise each
 * request would wait for nothing.
 */
const pauseMs = 1_000
/** The server is probed this often: while nothing is read, nothing else would notice. */
const probeEveryMs = 5_000
const probeMaxMs = 1_000
/** Here each cluster leaves its name with the time, in seconds, when it was last there. */
const clustersKey = 'stoa:clusters'
const clustersKeepS = 86_400
const clustersSeenS = 3_600
const clustersMax = 100
/** The server responds, but with these it is not one to use now. */
const unusable = /^(READONLY|MASTERDOWN|CLUSTERDOWN|LOADING|NOAUTH|NOPERM)\b/

/** The commands that are needed of one server or of a Redis Cluster. */
type Store = {
  get(key: string): Promise<Buffer | null>
  set(key: string, bytes: Buffer): Promise<unknown>
  /** Any command, of which `key` decides which server of a Redis Cluster gets it. */
  send(key: string, command: readonly string[]): Promise<unknown>
  destroy(): void
  readonly server: ServerFacts
}

/**
 * Redis or Valkey as the second level. A node starts and works without it.
 *
 * Modes: away, until a connection is open; in use, until a command fails or takes too long;
 * suspended, until a probe succeeds, or fails and the connection is opened anew.
 */
export class RedisSecondLevel implements SecondLevel {
  readonly #options: RedisOptions
  readonly #stores: Reconnecting<Store>
  readonly #probing: NodeJS.Timeout
  #suspended: Store | null = null
  #resume: NodeJS.Timeout | null = null
  #putBytes = 0
  #closed = false

  constructor(options: RedisOptions) {
    this.#options = options
    const url = parseRedisUrl(options.url)
    this.#stores = new Reconnecting({
      connect: (lost) => openStore(url, lost),
      destroy: (store) => store.destroy(),
      logger: options.logger,
      messages: {
        failing: 'the second level of the cache cannot be reached; the database is asked instead',
        recovered: 'the second level of the cache is back',
      },
    })
    this.#probing = setInterval(() => void this.#probe(), probeEveryMs).unref()
    void this.#stores.attempted().then(() => this.#probe())
  }

  get connected(): boolean {
    return this.#usable !== null
  }

  get server(): ServerFacts | null {
    return this.#stores.connection?.server ?? null
  }

  get #usable(): Store | null {
    const store = this.#stores.connection
    return this.#closed || store === this.#suspended ? null : store
  }

  async get(key: string): Promise<Buffer | null> {
    const store = this.#usable
    return store === null ? null : this.#inTime(store, store.get(key))
  }

  async put(key: string, bytes: Buffer): Promise<void> {
    const store = this.#usable
    if (store === null || this.#putBytes + bytes.byteLength > putBytesMax) return
    this.#putBytes += bytes.byteLength
    const sent = store.set(key, bytes).finally(() => {
      this.#putBytes -= bytes.byteLength
    })
    await this.#inTime(store, sent)
  }

  async examine(): Promise<SecondLevelExamination> {
    const store = this.#stores.connection
    if (store === null) throw new Error('there is no connection')
    const [info, clusters] = await Promise.all([
      store.send(clustersKey, ['INFO']),
      store.send(clustersKey, ['HGETALL', clustersKey]),
    ])
    const text = String(info)
    const fact = (name: string): string => new RegExp(`^${name}:(\\S+)`, 'm').exec(text)?.[1] ?? ''
    const own = await this.#options.identity?.()
    return {
      serverId: fact('run_id'),
      memoryBytesMax: Number(fact('maxmemory')),
      refusesWhenFull: fact('maxmemory_policy') === 'noeviction',
      otherClusters: recentClusters(clusters).filter((name) => name !== own),
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#probing)
    if (this.#resume !== null) clearTimeout(this.#resume)
    ;(await this.#stores.close())?.destroy()
  }

  async #inTime<T>(store: Store, command: Promise<T>): Promise<T | null> {
    const tried = command.catch((error: unknown) => {
      this.#options.logger.debug({ err: error }, 'the second level did not respond')
      if (!(error instanceof ErrorReply) || unusable.test(error.message)) this.#suspend(store)
      return null
    })
    const result = await withTimeout(tried, secondLevelTimeoutMs)
    if (result !== timedOut) return result
    this.#suspend(store)
    return null
  }

  #suspend(store: Store): void {
    if (this.#closed || this.#suspended === store) return
    this.#suspended = store
    this.#resume = setTimeout(() => void this.#probe(), pauseMs).unref()
  }

  /** Also leaves the mark of this cluster, which only a server that takes writes lets it do. */
  async #probe(): Promise<void> {
    const store = this.#stores.connection
    if (store === null || this.#closed) return
    try {
      const probed = await withTimeout(this.#mark(store), probeMaxMs)
      if (probed === timedOut) throw new Error('the server did not respond in time')
      if (this.#suspended === store) this.#suspended = null
    } catch (error) {
      this.#stores.lost(store, error)
    }
  }

  async #mark(store: Store): Promise<void> {
    const name = await this.#options.identity?.().catch(() => null)
    if (name === undefined || name === null) {
      await store.get(clustersKey.concat(':none'))
      return
    }
    const now = String(Math.floor(Date.now() / 1_000))
    await store.send(clustersKey, ['HSET', clustersKey, name, now])
    await store.send(clustersKey, ['EXPIRE', clustersKey, String(clustersKeepS)])
  }
}

/** Any program that may write there can have made the reply as it is. */
function recentClusters(reply: unknown): string[] {
  const pairs: readonly (readonly [unknown, unknown])[] =
    reply instanceof Map
      ? [...reply.entries()]
      : Object.entries(typeof reply === 'object' && reply !== null ? reply : {})
  const sinceS = Date.now() / 1_000 - clustersSeenS
  return pairs
    .filter(([, seenS]) => Number(String(seenS)) >= sinceS)
    .map(([name]) => String(name))
    .filter((name) => /^[0-9a-f]{1,32}$/.test(name))
    .slice(0, clustersMax)
}

const asBuffers = { [RESP_TYPES.BLOB_STRING]: Buffer }
const expiration = { type: 'EX', value: secondLevelKeepS } as const

async function openStore(
  url: RedisUrl,
  lost: (store: Store, error: unknown) => void,
): Promise<Store> {
  if (url.kind === 'cluster') return openClusterStore(url)
  const opened: { store: Store | null; error: unknown } = { store: null, error: null }
  const client = await openRedis(url, {
    connectTimeoutMs,
    lost: (error) => {
      opened.error ??= error
      if (opened.store !== null) lost(opened.store, error)
    },
  })
  const values = client.withTypeMapping(asBuffers)
  try {
    const store: Store = {
      get: (key) => values.get(key),
      set: (key, bytes) => client.set(key, bytes, { expiration }),
      send: (_key, command) => client.sendCommand([...command]),
      destroy: () => client.destroy(),
      server: { address: addressOf(url), version: versionIn(await client.info('server')) },
    }
    opened.store = store
    if (opened.error !== null) lost(store, opened.error)
    return store
  } catch (error) {
    client.destroy()
    throw error
  }
}

/** Its servers come and go, and the library follows: the store stays the same. */
async function openClusterStore(url: RedisUrl): Promise<Store> {
  const socket = await redisSocket(url, connectTimeoutMs)
  const { database: _none, ...account } = redisAccount(url)
  const cluster = createCluster({
    RESP: 3,
    rootNodes: url.hosts.map((host) => ({ socket: { ...host, ...socket } as typeof host })),
    topologyRefreshOnReconnectionAttemptStrategy: refreshAfterMs,
    defaults: {
      ...account,
      disableOfflineQueue: true,
      commandsQueueMaxLength: commandsMax,
      socket: {
        ...(socket as { connectTimeout: number }),
        reconnectStrategy: (retries: number) =>
          backoffMs(retries, { firstMs: retryFirstMs, maxMs: retryMaxMs }),
      },
    },
  })
  // Each failure is also reported by the command that it makes fail.
  cluster.on('error', () => undefined)
  try {
    await cluster.connect()
    const values = cluster.withTypeMapping(asBuffers)
    const info = await cluster.sendCommand<string>(clustersKey, true, ['INFO', 'server'])
    return {
      get: (key) => values.get(key),
      set: (key, bytes) => cluster.set(key, bytes, { expiration }),
      send: (key, command) => cluster.sendCommand(key, false, [...command]),
      destroy: () => cluster.destroy(),
      server: { address: addressOf(url), version: versionIn(info) },
    }
  } catch (error) {
    cluster.destroy()
    throw error
  }
}

function versionIn(info: string): string | null {
  return /^(?:valkey|redis)_version:(\S+)/m.exec(info)?.[1] ?? null
}

function addressOf({ hosts }: RedisUrl): string {
  return hosts.map(({ host, port }) => `${host}:${port}`).join(', ')
}
