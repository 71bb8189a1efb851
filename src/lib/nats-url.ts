import { parseServerUrl, refuseUnknownOptions } from '#lib/server-url.ts'

export type NatsUrl = {
  /** As `host:port`. */
  readonly servers: readonly string[]
  readonly user: string | null
  readonly password: string | null
  /** Instead of user and password. */
  readonly token: string | null
  readonly tls: boolean
  /** A file with the certificates to trust. */
  readonly caFile: string | null
}

const natsPort = 4_222

/**
 * Reads `nats://user:password@host1:4222,host2` or `nats://token@host`; with `tls:` a server that
 * offers no TLS is refused. Throws an error whose message says what is allowed.
 */
export function parseNatsUrl(text: string): NatsUrl {
  const url = parseServerUrl(text)
  if (!['nats', 'tls'].includes(url.scheme))
    throw new Error('must begin with nats: or tls:, or with redis: or rediss:')
  refuseUnknownOptions(url, ['ca'])
  if (url.path !== '') throw new Error('must have nothing after the hosts but options')
  const { username, password } = url
  return {
    servers: url.hosts.map(({ host, port }) => `${host}:${port ?? natsPort}`),
    user: password === null ? null : username,
    password,
    token: password === null ? username : null,
    tls: url.scheme === 'tls',
    caFile: url.options.get('ca') ?? null,
  }
}
