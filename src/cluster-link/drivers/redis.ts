import { randomUUID } from 'node:crypto'
import { ReconnectingLink } from '#cluster-link/reconnecting-link.ts'
import type { LinkConnection, LinkEvents } from '#cluster-link/reconnecting-link.ts'
import type { Logger } from '#lib/logger.ts'
import { openRedis } from '#lib/redis-connection.ts'
import type { RedisConnection } from '#lib/redis-connection.ts'
import { parseRedisUrl } from '#lib/redis-url.ts'
import type { RedisUrl } from '#lib/redis-url.ts'

export type RedisClusterLinkOptions = {
  /** One Redis or Valkey, behind sentinels, or a Redis Cluster; see `parseRedisUrl`. */
  readonly url: string
  /** Names the cluster, so that several can share one Redis. Rejects while it is not known. */
  readonly identity: () => Promise<string>
  readonly logger: Logger
}

const connectTimeoutMs = 2_000

/**
 * Publish and subscribe on one connection, in a channel that has the cluster's name in it. A Redis
 * Cluster passes each message on to all of its servers, so any of them will do.
 */
export class RedisClusterLink extends ReconnectingLink {
  constructor({ url, identity, logger }: RedisClusterLinkOptions) {
    const parsed = parseRedisUrl(url)
    super(async (events) => connectTo(parsed, await identity(), events), logger)
  }
}

async function connectTo(
  url: RedisUrl,
  cluster: string,
  events: LinkEvents,
): Promise<LinkConnection> {
  const ended: { error: unknown; connection: LinkConnection | null } = {
    error: null,
    connection: null,
  }
  const client = await openRedis(url, {
    connectTimeoutMs,
    lost: (error) => {
      ended.error ??= error
      if (ended.connection !== null) events.lost(ended.connection, error)
    },
  })
  try {
    const connection = await subscribed(client, { url, cluster, receive: events.receive })
    ended.connection = connection
    if (ended.error !== null) events.lost(connection, ended.error)
    return connection
  } catch (error) {
    client.destroy()
    throw error
  }
}

type Subscription = {
  readonly url: RedisUrl
  readonly cluster: string
  readonly receive: (message: string) => void
}

async function subscribed(
  client: RedisConnection,
  { url, cluster, receive }: Subscription,
): Promise<LinkConnection> {
  const channel = `stoa:link:${cluster}`
  // No other connection listens here, so a probe costs the other nodes nothing.
  const own = `${probePrefix}${cluster}:${randomUUID()}`
  let probed: (() => void) | null = null
  await client.subscribe(channel, receive)
  await client.subscribe(own, () => probed?.())
  const version = /^(?:valkey|redis)_version:(\S+)/m.exec(await client.info('server'))
  return {
    publish: async (message) => void (await client.publish(channel, message)),
    probe: async () => {
      const arrived = new Promise<void>((resolve) => (probed = resolve))
      if (url.kind === 'sentinel') await refuseReplica(client)
      await client.publish(own, '')
      await arrived
    },
    close: async () => client.destroy(),
    destroy: () => client.destroy(),
    server: { driver: 'redis', address: addressOf(url), version: version?.[1] ?? null },
    watchClusters: (found) => watch(client, cluster, found),
  }
}

const probePrefix = 'stoa:probe:'

/** A message on a replica reaches none of the nodes that found the new primary. */
async function refuseReplica(client: RedisConnection): Promise<void> {
  const [role] = await client.sendCommand<readonly unknown[]>(['ROLE'])
  if (String(role) !== 'master') throw new Error('the primary of this connection was replaced')
}

async function watch(
  client: RedisConnection,
  mine: string,
  found: (cluster: string) => void,
): Promise<AsyncDisposable> {
  const listener = (_message: string, channel: string): void => {
    const [cluster = ''] = channel.slice(probePrefix.length).split(':')
    if (cluster !== mine) found(cluster)
  }
  await client.pSubscribe(`${probePrefix}*`, listener)
  return {
    [Symbol.asyncDispose]: async () => client.pUnsubscribe(`${probePrefix}*`, listener),
  }
}

function addressOf({ hosts }: RedisUrl): string {
  return hosts.map(({ host, port }) => `${host}:${port}`).join(', ')
}
