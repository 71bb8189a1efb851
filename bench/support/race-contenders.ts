import type { EventEmitter } from 'node:events'
import { Keyv } from 'keyv'
import KeyvRedis from '@keyv/redis'
import { RedisMessageProvider } from '@qified/redis'
import { BentoCache, bentostore } from 'bentocache'
import { memoryDriver } from 'bentocache/drivers/memory'
import { redisBusDriver, redisDriver } from 'bentocache/drivers/redis'
import { Cacheable } from 'cacheable'
import { Redis } from 'ioredis'
import { Loader, RedisCache, createNotificationPair } from 'layered-loader'
import { joinCluster, sql } from 'stoa/cluster'

/** As long as nothing else ends an entry, it stays for the whole run. */
const ttlMs = 3_600_000

/** One node of a cluster whose nodes keep the values of `race_item` in memory. */
export type RaceNode = {
  /**
   * Reads through the cache; a loader that has read the database waits for `pause` before it hands
   * the value over.
   */
  get(key: string, pause?: Promise<void>): Promise<string | null>
  /**
   * Notifies the cache that `key` was written just now, without waiting for the cache's own
   * messages.
   */
  invalidate(key: string): Promise<void>
  /** Puts the value that was written; where there is no such call, the same as `invalidate`. */
  put(key: string, value: string): Promise<void>
  close(): Promise<void>
}

export type Addresses = {
  readonly databaseUrl: string
  /** The second level. */
  readonly redisUrl: string
  /** The way that messages between nodes take: it can be cut. */
  readonly busUrl: string
  readonly prefix: string
  /** Reads the database; null: there is no such row. */
  read(key: string): Promise<string | null>
}

export type Contender = { readonly name: string; join(addresses: Addresses): Promise<RaceNode> }

/** Waits after the read, so that a write can overtake it, and returns the value read before. */
async function loaded(
  addresses: Addresses,
  key: string,
  pause: Promise<void> | undefined,
): Promise<string | null> {
  const value = await addresses.read(key)
  await pause
  return value
}

function connection(url: string): { readonly host: string; readonly port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}

const bentocache: Contender = {
  name: 'bentocache',
  async join(addresses) {
    const { redisUrl, busUrl, prefix } = addresses
    const store = bentostore()
      .useL1Layer(memoryDriver({ maxItems: 10_000 }))
      .useL2Layer(redisDriver({ connection: connection(redisUrl), prefix }))
      .useBus(redisBusDriver({ connection: connection(busUrl) }))
    const bento = new BentoCache({ default: 'all', stores: { all: store }, ttl: ttlMs })
    return {
      get: async (key, pause) =>
        bento.getOrSet({ key, factory: async () => loaded(addresses, key, pause) }),
      invalidate: async (key) => void (await bento.delete({ key })),
      put: async (key, value) => void (await bento.set({ key, value })),
      close: async () => bento.disconnectAll(),
    }
  },
}

const layeredLoader: Contender = {
  name: 'layered-loader',
  async join(addresses) {
    const { redisUrl, busUrl, prefix } = addresses
    const clients = [
      new Redis(connection(redisUrl)),
      new Redis(connection(busUrl)),
      new Redis(connection(busUrl)),
    ] as const
    for (const client of clients) client.on('error', () => undefined)
    const { publisher, consumer } = createNotificationPair<string>({
      channel: prefix,
      publisherRedis: clients[1],
      consumerRedis: clients[2],
    })
    const pauses = new Map<string, Promise<void>>()
    const loader = new Loader<string>({
      inMemoryCache: { ttlInMsecs: ttlMs, maxItems: 10_000 },
      asyncCache: new RedisCache<string>(clients[0], { ttlInMsecs: ttlMs, prefix, json: true }),
      notificationPublisher: publisher,
      notificationConsumer: consumer,
      dataSources: [
        {
          name: 'database',
          get: async (key) => loaded(addresses, key, pauses.get(key)),
          getMany: async (keys) =>
            Promise.all(keys.map(async (key) => (await loaded(addresses, key, undefined)) ?? '')),
        },
      ],
    })
    await loader.init()
    return {
      get: async (key, pause) => {
        if (pause !== undefined) pauses.set(key, pause)
        try {
          return (await loader.get(key)) ?? null
        } finally {
          pauses.delete(key)
        }
      },
      invalidate: async (key) => loader.invalidateCacheFor(key),
      put: async (key, value) => loader.forceSetValue(key, value),
      close: async () => {
        await loader.close()
        for (const client of clients) client.disconnect()
      },
    }
  },
}

const cacheable: Contender = {
  name: 'cacheable',
  async join(addresses) {
    const { redisUrl, busUrl, prefix } = addresses
    const provider = new RedisMessageProvider({ uri: busUrl, id: `${prefix}${Math.random()}` })
    // The provider does not handle errors of its two clients, so a cut would end the process.
    const { pub, sub } = provider as unknown as Record<'pub' | 'sub', EventEmitter>
    for (const client of [pub, sub]) client.on('error', () => undefined)
    const cache = new Cacheable({
      secondary: new Keyv({ store: new KeyvRedis(redisUrl), namespace: prefix }),
      ttl: ttlMs,
      namespace: prefix,
      sync: { qified: provider },
    })
    return {
      get: async (key, pause) =>
        (await cache.getOrSet(key, async () => loaded(addresses, key, pause))) ?? null,
      invalidate: async (key) => void (await cache.delete(key)),
      put: async (key, value) => void (await cache.set(key, value)),
      close: async () => {
        await cache.disconnect()
        await provider.disconnect()
      },
    }
  },
}

const select = sql<{ value: string }>(`select value from race_item where key = $1`)

const stoa: Contender = {
  name: 'stoa',
  /** The whole way to the database is its bus: a cut ends the reading of changes too. */
  async join({ busUrl }) {
    const cluster = await joinCluster({ url: busUrl })
    await cluster.attach('race_item', { collection: 'race_item', key: ['key'] })
    return {
      get: async (key, pause) => {
        const { value } = await cluster.cache.get(key, async (load) => {
          const [row] = await load.row('race_item', key).run(select, [key])
          await pause
          return row?.value ?? null
        })
        return value
      },
      invalidate: async () => cluster.feed.committed(),
      put: async () => cluster.feed.committed(),
      close: async () => cluster[Symbol.asyncDispose](),
    }
  },
}

export const contenders: readonly Contender[] = [bentocache, layeredLoader, cacheable, stoa]
