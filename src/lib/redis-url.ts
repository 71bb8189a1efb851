import { parseServerUrl, refuseUnknownOptions } from '#lib/server-url.ts'
import type { ServerHost } from '#lib/server-url.ts'

/** How Redis or Valkey is reached. */
export type RedisUrl = {
  /** `single`: the host itself. `sentinel`: the hosts are sentinels. `cluster`: Redis Cluster. */
  readonly kind: 'single' | 'sentinel' | 'cluster'
  readonly hosts: readonly { readonly host: string; readonly port: number }[]
  readonly username: string | null
  readonly password: string | null
  readonly database: number
  readonly tls: boolean
  /** A file with the certificates to trust, beside those that Node trusts anyway. */
  readonly caFile: string | null
  /** The name by which the sentinels know the primary; only with `sentinel`. */
  readonly primaryName: string
  /** The sentinels' own, where they ask for one. */
  readonly sentinelPassword: string | null
}

export const redisPort = 6_379
const sentinelPort = 26_379
const databasesMax = 1_000_000

/**
 * Reads `redis://user:password@host:6379/0`, `redis://host1,host2/0?sentinel=NAME` and
 * `redis://host1,host2?cluster=true`; with `rediss:` all of them use TLS. Throws an error whose
 * message says what is allowed.
 */
export function parseRedisUrl(text: string): RedisUrl {
  const url = parseServerUrl(text)
  if (!['redis', 'rediss'].includes(url.scheme))
    throw new Error('must begin with redis: or rediss:')
  refuseUnknownOptions(url, ['sentinel', 'sentinelPassword', 'cluster', 'ca'])
  const { options } = url
  const kind = kindOf(options)
  if (kind === 'single' && url.hosts.length > 1)
    throw new Error('names several hosts: add ?sentinel=NAME or ?cluster=true')
  const database = url.path === '' ? 0 : Number(/^\d{1,7}$/.exec(url.path)?.[0])
  if (!(database <= databasesMax)) throw new Error('must name the database by its number, as in /0')
  if (kind === 'cluster' && database !== 0)
    throw new Error('must use database 0 of a Redis Cluster')
  const portDefault = kind === 'sentinel' ? sentinelPort : redisPort
  return {
    kind,
    hosts: url.hosts.map((host) => withPort(host, portDefault)),
    username: url.username === '' ? null : url.username,
    password: url.password,
    database,
    tls: url.scheme === 'rediss',
    caFile: options.get('ca') ?? null,
    primaryName: options.get('sentinel') ?? '',
    sentinelPassword: options.get('sentinelPassword') ?? null,
  }
}

function kindOf(options: ReadonlyMap<string, string>): RedisUrl['kind'] {
  const cluster = options.get('cluster')
  const sentinel = options.get('sentinel')
  if (cluster !== undefined && cluster !== 'true')
    throw new Error('has the option cluster, which can only be true')
  if (sentinel === '') throw new Error('must name the primary, as in ?sentinel=mymaster')
  if (cluster !== undefined && sentinel !== undefined)
    throw new Error('has both sentinel and cluster; choose one')
  if (sentinel !== undefined) return 'sentinel'
  return cluster === undefined ? 'single' : 'cluster'
}

function withPort(
  { host, port }: ServerHost,
  portDefault: number,
): { readonly host: string; readonly port: number } {
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: port ?? portDefault }
}
