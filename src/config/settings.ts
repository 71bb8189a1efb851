/**
 * Every setting of a node, once: its name in `stoa.config.ts`, its environment variable and flag,
 * how it is read, and what it does. The defaults start a whole node on a laptop.
 */
export type Setting<T> = {
  readonly env: `STOA_${string}`
  readonly flag: `--${string}`
  readonly fallback: T
  readonly help: string
  /** Never printed. */
  readonly secret?: true
  /** A URL whose password is never printed. */
  readonly url?: true
  /** Throws a sentence that says what is allowed. */
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

/** How many proxies in a row each add the address that they were asked from. */
function proxies(text: string): number {
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

type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

export const settings = {
  databaseUrl: {
    env: 'STOA_DATABASE_URL',
    flag: '--database-url',
    fallback: null,
    url: true,
    parse: url('postgres', 'postgresql'),
    help: 'PostgreSQL 15 or newer, one or several hosts: postgres://user:password@host1,host2/name. Unset: an embedded one below the data folder.',
  } as Setting<string | null>,
  databaseReadUrl: {
    env: 'STOA_DATABASE_READ_URL',
    flag: '--database-read-url',
    fallback: null,
    url: true,
    parse: url('postgres', 'postgresql'),
    help: 'Hot standbys of the same database: postgres://user:password@standby1,standby2/name. Answers that are not in memory are read there, as long as the standby has all that this node knows of; else on the primary. Unset: on the primary.',
  } as Setting<string | null>,
  databaseConnections: {
    env: 'STOA_DATABASE_CONNECTIONS',
    flag: '--database-connections',
    fallback: 20,
    parse: whole(2, 1_000),
    help: 'Connections this node may hold. All nodes together must stay below the server’s max_connections; too few and requests wait.',
  } as Setting<number>,
  databaseTimeoutMs: {
    env: 'STOA_DATABASE_TIMEOUT_MS',
    flag: '--database-timeout-ms',
    fallback: 10_000,
    parse: whole(100, 600_000),
    help: 'Deadline in milliseconds of one statement, and of the wait for a connection.',
  } as Setting<number>,
  cacheBytes: {
    env: 'STOA_CACHE_BYTES',
    flag: '--cache-bytes',
    fallback: 64 * 1024 * 1024,
    parse: whole(0, 1024 ** 4),
    help: 'Memory for answers, permissions and sessions that this node keeps ready, in bytes. 0: nothing is kept, every request asks the database, and writes give no tokens.',
  } as Setting<number>,
  cacheUrl: {
    env: 'STOA_CACHE_URL',
    flag: '--cache-url',
    fallback: null,
    url: true,
    parse: url('redis', 'rediss'),
    help: 'Redis or Valkey as a second level of the cache, which the nodes share: redis://host:6379. What one node has made, the others need not; without it, or while it is away, they ask the database.',
  } as Setting<string | null>,
  leaseMs: {
    env: 'STOA_LEASE_MS',
    flag: '--lease-ms',
    fallback: 1_000,
    parse: whole(100, 2_500),
    help: 'How long a node answers from memory without hearing from the database, in milliseconds; the same on every node. Shorter: fresher when the network fails, and more polls. Longer: fewer polls, and staler at worst; always shorter than the 3 s after which a silent node counts as gone.',
  } as Setting<number>,
  pollGapMs: {
    env: 'STOA_POLL_GAP_MS',
    flag: '--poll-gap-ms',
    fallback: 2,
    parse: whole(1, 100),
    help: 'Under writes a node asks the database for changes at most this often, in milliseconds; the same on every node. Longer: less work for the database with many nodes, and a change is seen elsewhere, and its write answered, up to so much later.',
  } as Setting<number>,
  staleMs: {
    env: 'STOA_STALE_MS',
    flag: '--stale-ms',
    fallback: 600_000,
    parse: whole(0, 86_400_000),
    help: 'While the database is away, answers from memory are given for so long after the lease, marked as stale, in milliseconds; then 503.',
  } as Setting<number>,
  filesUrl: {
    env: 'STOA_FILES_URL',
    flag: '--files-url',
    fallback: null,
    url: true,
    parse: url('file'),
    help: 'Where the bytes of uploads live: file:///path. Unset: files below the data folder.',
  } as Setting<string | null>,
  host: {
    env: 'STOA_HOST',
    flag: '--host',
    fallback: '127.0.0.1',
    parse: text,
    help: 'Address to listen on. 0.0.0.0 to be reached from other machines.',
  } as Setting<string>,
  port: {
    env: 'STOA_PORT',
    flag: '--port',
    fallback: 4000,
    parse: whole(0, 65_535),
    help: 'Port to listen on; 0 takes a free one and logs it.',
  } as Setting<number>,
  publicUrl: {
    env: 'STOA_PUBLIC_URL',
    flag: '--public-url',
    fallback: null,
    parse: url('http', 'https'),
    help: 'How people reach the site, for links. Unset: the address listened on. With https: cookies are Secure.',
  } as Setting<string | null>,
  node: {
    env: 'STOA_NODE',
    flag: '--node',
    fallback: null,
    parse: nodeName,
    help: 'Name of this node in logs and status. Unset: the host’s name.',
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
    help: 'Key for what the nodes sign; the same on every node. Unset: one is made once and kept in the database.',
  } as Setting<string | null>,
  drainGraceMs: {
    env: 'STOA_DRAIN_GRACE_MS',
    flag: '--drain-grace-ms',
    fallback: 3_000,
    parse: whole(0, 600_000),
    help: 'How long a node that stops goes on serving while /healthz/ready says 503, in milliseconds: longer than the load balancer takes to notice. Not waited for by the last node.',
  } as Setting<number>,
  trustProxy: {
    env: 'STOA_TRUST_PROXY',
    flag: '--trust-proxy',
    fallback: 0,
    parse: proxies,
    help: 'Believe X-Forwarded-For and X-Forwarded-Proto, only behind a load balancer that sets them: true, or how many proxies stand one behind the other. Each vouches for one address, from the end of the header; what a client wrote before that counts for nothing.',
  } as Setting<number>,
  corsOrigins: {
    env: 'STOA_CORS_ORIGINS',
    flag: '--cors-origins',
    fallback: [],
    parse: originList,
    help: 'Origins whose scripts may call the API, separated by commas; * for all (without cookies).',
  } as Setting<readonly string[]>,
  metricsPublic: {
    env: 'STOA_METRICS_PUBLIC',
    flag: '--metrics-public',
    fallback: true,
    parse: yesOrNo,
    help: 'Whether everybody may read /metrics: how much was asked for, and how the node is. false: only who has the permission cluster.manage, such as an API token for Prometheus.',
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
    help: 'The least that is logged.',
  } as Setting<LogLevel>,
  starter: {
    env: 'STOA_STARTER',
    flag: '--starter',
    fallback: true,
    parse: yesOrNo,
    help: 'Fill an empty database with the starter content (this documentation) on first start.',
  } as Setting<boolean>,
} satisfies Record<string, Setting<unknown>>

export type SettingName = keyof typeof settings
export type Settings = { readonly [K in SettingName]: (typeof settings)[K]['fallback'] }

/** Variables that steer the command itself and are not settings of a node. */
export const otherVariables: readonly string[] = ['STOA_CONFIG', 'STOA_POSTGRES_BIN']
