import { readFile } from 'node:fs/promises'
import { rootCertificates } from 'node:tls'
import { createClient } from '@redis/client'
import type { RedisUrl } from '#lib/redis-url.ts'
import { StoaError } from '#lib/stoa-error.ts'

/** No Redis that takes writes was found. */
export class RedisUnavailableError extends StoaError {
  readonly code = 'E_REDIS_UNAVAILABLE'
}

/**
 * A connection on which nothing was sent or received for so long is ended. Its owners probe it more
 * often, so this one leads nowhere, or its server hangs while it is opened.
 */
const idleMaxMs = 15_000
/** Commands on their way on one connection. */
const commandsMax = 1_000

export type RedisTarget = { readonly host: string; readonly port: number }
type Account = { readonly username?: string; readonly password?: string; readonly database: number }

/** Settings of the socket of every connection that a URL asks for. */
export type RedisSocket = {
  readonly connectTimeout: number
  readonly socketTimeout: number
  readonly tls?: true
  readonly ca?: readonly string[]
}

/** Reads the file of certificates, if the URL names one. */
export async function redisSocket(
  { tls, caFile }: RedisUrl,
  connectTimeoutMs: number,
): Promise<RedisSocket> {
  const deadlines = { connectTimeout: connectTimeoutMs, socketTimeout: idleMaxMs }
  if (!tls) return deadlines
  const ca = caFile === null ? null : await readFile(caFile, 'utf8')
  return {
    ...deadlines,
    tls: true,
    ...(ca === null ? {} : { ca: [...rootCertificates, ca] }),
  }
}

export function redisAccount({ username, password, database }: RedisUrl): Account {
  return {
    ...(username === null ? {} : { username }),
    ...(password === null ? {} : { password }),
    database,
  }
}

export type RedisConnection = ReturnType<typeof clientOf>

function clientOf(target: RedisTarget, socket: RedisSocket, account: Account) {
  return createClient({
    ...account,
    RESP: 3,
    // While it is away nothing waits for it; who opened it opens the next one.
    disableOfflineQueue: true,
    commandsQueueMaxLength: commandsMax,
    socket: {
      ...target,
      ...socket,
      reconnectStrategy: false,
    } as { host: string; port: number; reconnectStrategy: false },
  })
}

export type RedisOpenOptions = {
  readonly connectTimeoutMs: number
  /** Called once or more often when the connection has broken, perhaps before it is returned. */
  readonly lost: (error: unknown) => void
}

/**
 * Opens one connection to a server that takes writes: the host, the primary that the sentinels
 * name, or any server of a Redis Cluster. It does not reconnect by itself. Errors: those of the
 * network, and `RedisUnavailableError`.
 */
export async function openRedis(
  url: RedisUrl,
  { connectTimeoutMs, lost }: RedisOpenOptions,
): Promise<RedisConnection> {
  const socket = await redisSocket(url, connectTimeoutMs)
  const client = await (url.kind === 'sentinel' ? openPrimary(url, socket) : openFirst(url, socket))
  client.on('error', lost)
  if (!client.isReady) lost(new RedisUnavailableError('The connection ended as it was opened.'))
  return client
}

async function openFirst(url: RedisUrl, socket: RedisSocket): Promise<RedisConnection> {
  let failure: unknown = null
  for (const target of url.hosts) {
    try {
      return await connected(clientOf(target, socket, redisAccount(url)))
    } catch (error) {
      failure ??= error
    }
  }
  throw failure
}

/** A primary that was replaced may still respond: its role shows it. */
async function openPrimary(url: RedisUrl, socket: RedisSocket): Promise<RedisConnection> {
  const target = await primaryOf(url, socket)
  const client = await connected(clientOf(target, socket, redisAccount(url)))
  try {
    const [role] = await client.sendCommand<readonly unknown[]>(['ROLE'])
    if (String(role) === 'master') return client
  } catch (error) {
    client.destroy()
    throw error
  }
  client.destroy()
  throw new RedisUnavailableError(
    `${target.host}:${target.port} is named as the primary by a sentinel, but is a replica now.`,
  )
}

/** The first sentinel that knows decides. */
async function primaryOf(url: RedisUrl, socket: RedisSocket): Promise<RedisTarget> {
  const { hosts, primaryName, sentinelPassword } = url
  const account = {
    database: 0,
    ...(sentinelPassword === null ? {} : { password: sentinelPassword }),
  }
  const asked = hosts.map(async (host) => {
    const sentinel = await connected(clientOf(host, socket, account))
    try {
      const found = await sentinel.sendCommand<readonly unknown[] | null>([
        'SENTINEL',
        'GET-MASTER-ADDR-BY-NAME',
        primaryName,
      ])
      if (found === null)
        throw new RedisUnavailableError(
          `The sentinel ${host.host}:${host.port} knows no primary called "${primaryName}".`,
        )
      return { host: String(found[0]), port: Number(found[1]) }
    } finally {
      sentinel.destroy()
    }
  })
  try {
    return await Promise.any(asked)
  } catch (error) {
    const reasons = error instanceof AggregateError ? (error.errors as unknown[]) : [error]
    throw new RedisUnavailableError(
      `No sentinel names the primary "${primaryName}": ${reasons.map(messageOf).join('; ')}`,
      {},
      { cause: error },
    )
  }
}

async function connected(client: RedisConnection): Promise<RedisConnection> {
  // Without a listener an error would end the process.
  client.on('error', () => undefined)
  try {
    await client.connect()
    return client
  } catch (error) {
    client.destroy()
    throw error
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
