import { randomUUID } from 'node:crypto'
import { connect } from '@nats-io/transport-node'
import type { NatsConnection } from '@nats-io/transport-node'
import { ReconnectingLink } from '#cluster-link/reconnecting-link.ts'
import type { LinkConnection, LinkEvents } from '#cluster-link/reconnecting-link.ts'
import type { Logger } from '#lib/logger.ts'
import { parseNatsUrl } from '#lib/nats-url.ts'
import type { NatsUrl } from '#lib/nats-url.ts'

export type NatsClusterLinkOptions = {
  /** One server or several of a NATS cluster; see `parseNatsUrl`. */
  readonly url: string
  /** Names the cluster, so that several can share one NATS. Rejects while it is not known. */
  readonly identity: () => Promise<string>
  readonly logger: Logger
}

const connectTimeoutMs = 2_000
/** A server that did not respond to the last of these is left. */
const pingEveryMs = 10_000
const probePrefix = 'stoa.probe'

/** Core NATS, without JetStream, in a subject that has the cluster's name in it. */
export class NatsClusterLink extends ReconnectingLink {
  constructor({ url, identity, logger }: NatsClusterLinkOptions) {
    const parsed = parseNatsUrl(url)
    super(async (events) => connectTo(parsed, await identity(), events), logger)
  }
}

async function connectTo(
  url: NatsUrl,
  cluster: string,
  { receive, lost }: LinkEvents,
): Promise<LinkConnection> {
  const nats = await connect(optionsOf(url))
  try {
    const connection = await subscribed(nats, cluster, receive)
    void nats.closed().then((error) => lost(connection, error ?? null))
    return connection
  } catch (error) {
    await nats.close()
    throw error
  }
}

function optionsOf({ servers, user, password, token, tls, caFile }: NatsUrl) {
  return {
    servers: [...servers],
    ...(user === null ? {} : { user }),
    ...(password === null ? {} : { pass: password }),
    ...(token === null ? {} : { token }),
    ...(tls ? { tls: caFile === null ? {} : { caFile } } : {}),
    name: 'stoa',
    timeout: connectTimeoutMs,
    pingInterval: pingEveryMs,
    maxPingOut: 1,
    // Names are resolved as everywhere else on this machine, and who opened it opens the next one.
    resolve: false,
    reconnect: false,
  }
}

async function subscribed(
  nats: NatsConnection,
  cluster: string,
  receive: (message: string) => void,
): Promise<LinkConnection> {
  const subject = `stoa.link.${cluster}`
  // No other connection listens here, so a probe costs the other nodes nothing.
  const own = `${probePrefix}.${cluster}.${randomUUID()}`
  let probed: (() => void) | null = null
  const refusals: Error[] = []
  nats.subscribe(subject, {
    callback: (error, message) => {
      if (error !== null) refusals.push(error)
      else receive(message.string())
    },
  })
  nats.subscribe(own, {
    callback: (error) => {
      if (error !== null) refusals.push(error)
      else probed?.()
    },
  })
  await nats.flush()
  if (refusals[0] !== undefined) throw refusals[0]
  return {
    publish: async (message) => {
      nats.publish(subject, message)
      await nats.flush()
    },
    probe: async () => {
      const arrived = new Promise<void>((resolve) => (probed = resolve))
      nats.publish(own)
      await arrived
    },
    close: () => nats.close(),
    destroy: () => void nats.close(),
    server: {
      driver: 'nats',
      address: nats.getServer(),
      version: nats.info?.version ?? null,
    },
    watchClusters: (found) => watch(nats, cluster, found),
  }
}

async function watch(
  nats: NatsConnection,
  mine: string,
  found: (cluster: string) => void,
): Promise<AsyncDisposable> {
  const refusals: Error[] = []
  const watching = nats.subscribe(`${probePrefix}.>`, {
    callback: (error, message) => {
      if (error !== null) return void refusals.push(error)
      const [cluster = ''] = message.subject.slice(probePrefix.length + 1).split('.')
      if (cluster !== mine) found(cluster)
    },
  })
  await nats.flush()
  if (refusals[0] !== undefined) throw refusals[0]
  return { [Symbol.asyncDispose]: async () => watching.unsubscribe() }
}
