import { parseNatsUrl } from '#lib/nats-url.ts'
import { parseRedisUrl } from '#lib/redis-url.ts'
import { parseS3Url } from '#lib/s3-url.ts'

/**
 * One setting of a node: its environment variable and flag, how its text is read, and what it does.
 * Its key in `settings` is its name in `stoa.config.ts`. The defaults start a node on a laptop.
 */
export type Setting<T> = {
  readonly env: `STOA_${string}`
  readonly flag: `--${string}`
  readonly fallback: T
  readonly help: string
  /** The value is never printed. */
  readonly secret?: true
  /** The value is a URL whose password is never printed. */
  readonly url?: true
  /** Throws an error whose message says what is allowed. */
  parse(text: string): T
}

function text(text: string): string {
  if (text === '') throw new Error('must not be empty')
  return text
}

function whole(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (!(value >= min && value <= max))
      throw new Error(`must be a whole number from ${min} to ${max}`)
    return value
  }
}

function oneOf<T extends string>(...values: readonly T[]): (text: string) => T {
  return (text) => {
    const value = values.find((candidate) => candidate === text)
    if (value === undefined) throw new Error(`must be one of ${values.join(', ')}`)
    return value
  }
}

function yesOrNo(text: string): boolean {
  return oneOf('true', 'false')(text) === 'true'
}

/** Each proxy in the row appends the address of its own client to X-Forwarded-For. */
function proxyCount(text: string): number {
  if (text === 'true') return 1
  if (text === 'false') return 0
  if (!/^\d$/.test(text)) throw new Error('must be true, false, or a whole number from 0 to 9')
  return Number(text)
}

function url(...schemes: readonly string[]): (text: string) => string {
  return (text) => {
    const scheme = /^([a-z0-9]+):/.exec(text)?.[1]
    if (scheme === undefined || !schemes.includes(scheme)) {
      throw new Error(
        `must be a URL that begins with ${schemes.map((each) => `${each}:`).join(' or ')}`,
      )
    }
    return text
  }
}

function filesUrl(text: string): string {
  url('file', 's3')(text)
  if (text.startsWith('s3:')) parseS3Url(text)
  else if (!URL.canParse(text) || !/^file:\/\/(localhost)?\/./.test(text))
    throw new Error('must name a folder: file:///path')
  return text
}

function redisUrl(text: string): string {
  url('redis', 'rediss')(text)
  parseRedisUrl(text)
  return text
}

function linkUrl(text: string): string {
  url('redis', 'rediss', 'nats', 'tls')(text)
  if (text.startsWith('redis')) parseRedisUrl(text)
  else parseNatsUrl(text)
  return text
}

function originList(text: string): readonly string[] {
  const origins = text.split(',').map((each) => each.trim())
  for (const origin of origins) {
    if (origin !== '*' && !/^https?:\/\/[^/\s]+$/.test(origin)) {
      throw new Error('must be * or origins such as https://www.example.com, separated by commas')
    }
  }
  return origins
}

function nodeName(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text))
    throw new Error('must be 1 to 63 letters, digits, dots, dashes or underscores')
  return text
}

function secret(text: string): string {
  if (text.length < 32)
    throw new Error('must have at least 32 characters; make one with: openssl rand -hex 32')
  return text
}

const works = ['web', 'jobs'] as const

function workList(text: string): readonly Work[] {
  const named = text.split(',').map((each) => each.trim())
  const found = works.filter((work) => named.includes(work))
  if (found.length !== named.length) throw new Error(`must be ${works.join(', ')}, or both`)
  return found
}

type Work = (typeof works)[number]
type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

export const settings = {
  databaseUrl: {
    env: 'STOA_DATABASE_URL',
    flag: '--database-url',
    fallback: null,
    url: true,
    parse: url('postgres', 'postgresql'),
    help:
      'PostgreSQL 15 or newer, on one host or several: ' +
      'postgres://user:password@host1,host2/name. Unset: an embedded PostgreSQL in the data ' +
      'folder.',
  } as Setting<string | null>,
  databaseDirectUrl: {
    env: 'STOA_DATABASE_DIRECT_URL',
    flag: '--database-direct-url',
    fallback: null,
    url: true,
    parse: url('postgres', 'postgresql'),
    help:
      'PostgreSQL itself, where STOA_DATABASE_URL leads to a pooler such as PgBouncer in ' +
      'transaction mode. The change feed, locks and notifications need sessions of the server: ' +
      'five connections for each node. Unset: STOA_DATABASE_URL.',
  } as Setting<string | null>,
  databaseReadUrl: {
    env: 'STOA_DATABASE_READ_URL',
    flag: '--database-read-url',
    fallback: null,
    url: true,
    parse: url('postgres', 'postgresql'),
    help:
      'Hot standbys of the same database: postgres://user:password@standby1,standby2/name. ' +
      'Reads that the cache cannot serve go to a standby that has replayed every change ' +
      'this node has seen, and otherwise to the primary. Unset: the primary serves all ' +
      'reads.',
  } as Setting<string | null>,
  databaseConnections: {
    env: 'STOA_DATABASE_CONNECTIONS',
    flag: '--database-connections',
    fallback: 10,
    parse: whole(6, 1_000),
    help:
      'Most connections that this node may hold to the primary. Five of them are for the change ' +
      'feed, heartbeats, health checks and notifications, the others for requests. The sum over ' +
      'all nodes must stay below the server’s max_connections. Fewer connections make requests ' +
      'wait longer under load.',
  } as Setting<number>,
  databaseTimeoutMs: {
    env: 'STOA_DATABASE_TIMEOUT_MS',
    flag: '--database-timeout-ms',
    fallback: 10_000,
    parse: whole(100, 600_000),
    help: 'Timeout of one statement and of the wait for a connection, in milliseconds.',
  } as Setting<number>,
  hstsS: {
    env: 'STOA_HSTS_S',
    flag: '--hsts-s',
    fallback: 31_536_000,
    parse: whole(0, 63_072_000),
    help:
      'Seconds for which browsers use TLS only (Strict-Transport-Security), sent where publicUrl ' +
      'begins with https. 0: not sent.',
  } as Setting<number>,
  cacheBytes: {
    env: 'STOA_CACHE_BYTES',
    flag: '--cache-bytes',
    fallback: 64 * 1024 * 1024,
    parse: whole(1024 ** 2, 1024 ** 4),
    help:
      'Memory for cached responses, permissions and sessions of this node, in bytes; at least ' +
      '1 MB.',
  } as Setting<number>,
  cacheUrl: {
    env: 'STOA_CACHE_URL',
    flag: '--cache-url',
    fallback: null,
    url: true,
    parse: redisUrl,
    help:
      'Redis or Valkey as a second cache level that the nodes share: redis://host:6379, ' +
      'redis://sentinel1,sentinel2/0?sentinel=NAME, or redis://host1,host2?cluster=true; ' +
      'rediss: with TLS, where ?ca=FILE names certificates to trust. A node can then reuse what ' +
      'another node has read. Unset or unreachable: the nodes read from the database.',
  } as Setting<string | null>,
  linkUrl: {
    env: 'STOA_LINK_URL',
    flag: '--link-url',
    fallback: null,
    url: true,
    parse: linkUrl,
    help:
      'Server for the hints between the nodes: a redis: or rediss: URL as for STOA_CACHE_URL, ' +
      'or nats://user:password@host1:4222,host2, with TLS tls://host?ca=FILE. Set the same ' +
      'server on every node. Several clusters can share one. Unset: NOTIFY of PostgreSQL. ' +
      'Unreachable: the nodes find changes by polling.',
  } as Setting<string | null>,
  leaseMs: {
    env: 'STOA_LEASE_MS',
    flag: '--lease-ms',
    fallback: 1_000,
    parse: whole(100, 2_500),
    help:
      'How long a node serves from its cache without contact to the database, in ' +
      'milliseconds. Set the same value on every node. Shorter: fresher reads when the ' +
      'network fails, more polls. Longer: fewer polls, staler reads in the worst case. A ' +
      'silent node counts as gone after 3 s.',
  } as Setting<number>,
  pollGapMs: {
    env: 'STOA_POLL_GAP_MS',
    flag: '--poll-gap-ms',
    fallback: 2,
    parse: whole(1, 100),
    help:
      'Least time between two polls of the change feed while there are writes, in ' +
      'milliseconds. Set the same value on every node. Longer: less work for the database ' +
      'with many nodes, but changes reach other nodes, and writes return, up to that much ' +
      'later.',
  } as Setting<number>,
  staleMs: {
    env: 'STOA_STALE_MS',
    flag: '--stale-ms',
    fallback: 600_000,
    parse: whole(0, 86_400_000),
    help:
      'While the database is away, how long after the lease the cache still serves ' +
      'responses, marked as stale, in milliseconds. After that: 503.',
  } as Setting<number>,
  httpCacheUrl: {
    env: 'STOA_HTTP_CACHE_URL',
    flag: '--http-cache-url',
    fallback: null,
    url: true,
    parse: url('varnish', 'fastly', 'cloudflare'),
    help:
      'The HTTP cache in front of the nodes, which they purge: varnish://cache1:80,cache2:80, ' +
      'fastly://:TOKEN@SERVICE, or cloudflare://:TOKEN@ZONE?plan=pro. Set the same value on ' +
      'every node. Unset: responses carry no tags, and shared caches keep them for a second.',
  } as Setting<string | null>,
  filesUrl: {
    env: 'STOA_FILES_URL',
    flag: '--files-url',
    fallback: null,
    url: true,
    parse: filesUrl,
    help:
      'Where the bytes of uploads are: a folder that exists, file:///path, or a bucket of object ' +
      'storage, s3://KEY:SECRET@bucket/folder?endpoint=https://host&region=name. Without KEY and ' +
      'SECRET those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of the machine. ' +
      'Unset: the folder files in the data folder.',
  } as Setting<string | null>,
  host: {
    env: 'STOA_HOST',
    flag: '--host',
    fallback: '127.0.0.1',
    parse: text,
    help: 'Address to listen on. Use 0.0.0.0 to accept connections from other machines.',
  } as Setting<string>,
  port: {
    env: 'STOA_PORT',
    flag: '--port',
    fallback: 4000,
    parse: whole(0, 65_535),
    help: 'Port to listen on. 0: a free port, which the log names.',
  } as Setting<number>,
  publicUrl: {
    env: 'STOA_PUBLIC_URL',
    flag: '--public-url',
    fallback: null,
    parse: url('http', 'https'),
    help:
      'Public address of the site, for links: https://www.example.com. Unset: the address ' +
      'that the node listens on. With https, cookies are Secure.',
  } as Setting<string | null>,
  node: {
    env: 'STOA_NODE',
    flag: '--node',
    fallback: null,
    parse: nodeName,
    help: 'Name of this node in logs and status. Unset: the name of the host.',
  } as Setting<string | null>,
  data: {
    env: 'STOA_DATA',
    flag: '--data',
    fallback: '.stoa',
    parse: text,
    help: 'Folder for everything that is local to this node.',
  } as Setting<string>,
  secret: {
    env: 'STOA_SECRET',
    flag: '--secret',
    fallback: null,
    secret: true,
    parse: secret,
    help:
      'Key with which the nodes sign cookies and tokens. Set the same value on every node. ' +
      'Unset: a key is made once and kept in the database.',
  } as Setting<string | null>,
  drainGraceMs: {
    env: 'STOA_DRAIN_GRACE_MS',
    flag: '--drain-grace-ms',
    fallback: 3_000,
    parse: whole(0, 600_000),
    help:
      'How long a stopping node keeps serving while /healthz/ready returns 503, in ' +
      'milliseconds. Choose more than the load balancer needs to notice. The last node does ' +
      'not wait.',
  } as Setting<number>,
  trustProxy: {
    env: 'STOA_TRUST_PROXY',
    flag: '--trust-proxy',
    fallback: 0,
    parse: proxyCount,
    help:
      'How many proxies in front of the node set X-Forwarded-For and X-Forwarded-Proto: a ' +
      'number, or true for one. Each proxy vouches for one address, counted from the end of ' +
      'the header; addresses before that come from the client and are ignored.',
  } as Setting<number>,
  corsOrigins: {
    env: 'STOA_CORS_ORIGINS',
    flag: '--cors-origins',
    fallback: [],
    parse: originList,
    help:
      'Origins whose scripts may call the API, separated by commas; * for all (without ' +
      'cookies).',
  } as Setting<readonly string[]>,
  metricsPublic: {
    env: 'STOA_METRICS_PUBLIC',
    flag: '--metrics-public',
    fallback: true,
    parse: yesOrNo,
    help:
      'true: /metrics needs no authentication. false: /metrics needs the permission ' +
      'cluster.manage, for example through an API token for Prometheus.',
  } as Setting<boolean>,
  uploadBytesMax: {
    env: 'STOA_UPLOAD_BYTES_MAX',
    flag: '--upload-bytes-max',
    fallback: 5 * 1024 ** 3,
    parse: whole(1, 1024 ** 4),
    help: 'Largest upload, in bytes.',
  } as Setting<number>,
  logLevel: {
    env: 'STOA_LOG_LEVEL',
    flag: '--log-level',
    fallback: 'info',
    parse: oneOf('debug', 'info', 'warn', 'error', 'silent'),
    help: 'Lowest level that is logged.',
  } as Setting<LogLevel>,
  work: {
    env: 'STOA_WORK',
    flag: '--work',
    fallback: works,
    parse: workList,
    help:
      'What this node does, separated by commas. web: it is ready for load balancers. jobs: it ' +
      'runs jobs, such as scheduled publishing. A cluster needs at least one node of each; both ' +
      'on every node is the simplest.',
  } as Setting<readonly Work[]>,
  starter: {
    env: 'STOA_STARTER',
    flag: '--starter',
    fallback: true,
    parse: yesOrNo,
    help:
      'true: an empty database gets the starter content (this documentation) at the first ' +
      'start.',
  } as Setting<boolean>,
} satisfies Record<string, Setting<unknown>>

export type SettingName = keyof typeof settings
export type Settings = { readonly [K in SettingName]: (typeof settings)[K]['fallback'] }

/** These variables steer the command itself and are not settings of a node. */
export const otherVariables: readonly string[] = ['STOA_CONFIG', 'STOA_POSTGRES_BIN']
