import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from '@redis/client'
import { freePort } from '#test/support/database.ts'
import { startTestRedis } from '#test/support/redis.ts'
import type { TestRedis } from '#test/support/redis.ts'

const readyWithinMs = 30_000
const slots = 16_384

/** Runs commands on one server, for setting it up and looking at it. */
export async function redisCommands(
  port: number,
  ...commands: readonly (readonly string[])[]
): Promise<unknown[]> {
  const client = createClient({ url: `redis://127.0.0.1:${port}` })
  client.on('error', () => undefined)
  await client.connect()
  try {
    const results: unknown[] = []
    for (const command of commands) results.push(await client.sendCommand([...command]))
    return results
  } finally {
    client.destroy()
  }
}

async function until(isTrue: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + readyWithinMs
  while (!(await isTrue().catch(() => false))) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`)
    await sleep(50)
  }
}

export type Sentinels = AsyncDisposable & {
  readonly url: string
  readonly primary: TestRedis
  readonly replica: TestRedis
  /** Resolves when the sentinels name the former replica. */
  failedOver(): Promise<void>
}

/** A primary, a replica and three sentinels that promote it a second after the primary is away. */
export async function startSentinels(): Promise<Sentinels> {
  await using opened = new AsyncDisposableStack()
  const primary = opened.use(await startTestRedis())
  const replica = opened.use(
    await startTestRedis({ settings: ['--replicaof', '127.0.0.1', String(primary.port)] }),
  )
  const ports: number[] = []
  for (let count = 0; count < 3; count += 1) {
    const folder = await mkdtemp(join(tmpdir(), 'stoa-sentinel-'))
    opened.defer(() => rm(folder, { recursive: true, force: true }))
    const sentinel = join(folder, 'sentinel.conf')
    await writeFile(
      sentinel,
      `bind 127.0.0.1
dir ${folder}
sentinel monitor main 127.0.0.1 ${primary.port} 2
sentinel down-after-milliseconds main 1000
sentinel failover-timeout main 5000
`,
    )
    ports.push(opened.use(await startTestRedis({ sentinel })).port)
  }
  for (const port of ports)
    await until(async () => {
      const [found] = await redisCommands(port, ['SENTINEL', 'MASTER', 'main'])
      const text = JSON.stringify(found)
      return /"num-other-sentinels"[,:]"2"/.test(text) && /"num-slaves"[,:]"1"/.test(text)
    }, 'the sentinels know each other and the replica')
  const closing = opened.move()
  return {
    url: `redis://${ports.map((port) => `127.0.0.1:${port}`).join(',')}/0?sentinel=main`,
    primary,
    replica,
    failedOver: () =>
      until(async () => {
        const [found] = await redisCommands(ports[0]!, [
          'SENTINEL',
          'GET-MASTER-ADDR-BY-NAME',
          'main',
        ])
        const [role] = await redisCommands(replica.port, ['ROLE'])
        return (found as string[])[1] === String(replica.port) && (role as string[])[0] === 'master'
      }, 'the replica is promoted'),
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

export type RedisCluster = AsyncDisposable & {
  readonly url: string
  readonly servers: readonly TestRedis[]
}

/** A Redis Cluster of three servers without replicas. `more`: arguments of their command lines. */
export async function startRedisCluster(more: readonly string[] = []): Promise<RedisCluster> {
  await using opened = new AsyncDisposableStack()
  const servers: TestRedis[] = []
  const busPorts: number[] = []
  for (let count = 0; count < 3; count += 1) {
    const busPort = await freePort()
    busPorts.push(busPort)
    const settings = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000', ...more]
    servers.push(
      opened.use(
        await startTestRedis({ settings: [...settings, '--cluster-port', String(busPort)] }),
      ),
    )
  }
  const [first, ...others] = servers
  const share = Math.ceil(slots / servers.length)
  for (const [index, { port }] of servers.entries()) {
    const range = [index * share, Math.min(slots, (index + 1) * share) - 1].map(String)
    await redisCommands(port, ['CLUSTER', 'ADDSLOTSRANGE', ...range])
  }
  for (const [index, { port }] of others.entries())
    await redisCommands(first!.port, [
      'CLUSTER',
      'MEET',
      '127.0.0.1',
      String(port),
      String(busPorts[index + 1]),
    ])
  for (const { port } of servers)
    await until(async () => {
      const [info] = await redisCommands(port, ['CLUSTER', 'INFO'])
      return /cluster_state:ok/.test(String(info)) && /cluster_known_nodes:3/.test(String(info))
    }, 'the Redis Cluster is complete')
  const closing = opened.move()
  return {
    url: `redis://${servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}?cluster=true`,
    servers,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

export type Certificate = AsyncDisposable & { readonly cert: string; readonly key: string }

/** A certificate that signs itself, for 127.0.0.1. */
export async function selfSigned(days = 2): Promise<Certificate> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-tls-'))
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  const request = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
  const subject = '-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1'
  execFileSync(
    'openssl',
    `${request} -days ${days} ${subject} -out ${cert} -keyout ${key}`.split(' '),
    { stdio: 'ignore' },
  )
  return {
    cert,
    key,
    [Symbol.asyncDispose]: async () => rm(folder, { recursive: true, force: true }),
  }
}
