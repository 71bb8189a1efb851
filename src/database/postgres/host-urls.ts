import pg from 'pg'
import { UnsupportedDatabaseError } from '#database/errors.ts'

/** Hosts in one URL; more is a mistake. */
const hostsMax = 16

export type Host = { readonly name: string; readonly config: pg.ClientConfig }

/**
 * One client configuration per host of the URL; all else in it goes for each of them. Throws
 * `UnsupportedDatabaseError` for a URL that names no PostgreSQL.
 */
export function parseHosts(url: string): Host[] {
  const match =
    /^(postgres(?:ql)?:\/\/)((?:[^@/?#]*@)?)([^@/?#]*)((?:\/[^?#]*)?)(?:\?([^#]*))?$/.exec(url)
  if (match === null) throw wrongUrl('it does not look like that')
  const [, scheme = '', login = '', authority = '', path = ''] = match
  const query = new URLSearchParams(match[5] ?? '')
  // The meaning that libpq gives to sslmode: `require` encrypts, `verify-full` also checks the
  // server's certificate.
  if (query.has('sslmode') && !query.has('uselibpqcompat')) query.set('uselibpqcompat', 'true')
  const suffix = query.size === 0 ? '' : `?${query.toString()}`
  const names = authority.split(',')
  if (names.length > hostsMax) throw wrongUrl(`it names more than ${hostsMax} hosts`)
  return names.map((name) => {
    if (names.length > 1 && name === '') throw wrongUrl('one of its hosts is empty')
    const base = name === '' && suffix.includes('host=') ? 'localhost' : name
    return parseHost(`${scheme}${login}${base}${path}${suffix}`)
  })
}

function parseHost(connectionString: string): Host {
  try {
    // pg reads the certificates that it names, and so fails now and not at the first request.
    const { host, port } = new pg.Client({ connectionString })
    return { name: host.startsWith('/') ? host : `${host}:${port}`, config: { connectionString } }
  } catch (error) {
    throw wrongUrl(error instanceof Error ? error.message : String(error))
  }
}

/** The `options` of the URL, which pg would prefer to those of its own configuration. */
export function optionsIn({ connectionString = '' }: pg.ClientConfig): string {
  const query = connectionString.indexOf('?')
  if (query < 0) return ''
  return new URLSearchParams(connectionString.slice(query)).get('options') ?? ''
}

export function withOptions({ connectionString = '' }: pg.ClientConfig, options: string): string {
  const [base = '', query = ''] = connectionString.split('?')
  const parameters = new URLSearchParams(query)
  parameters.delete('options')
  if (options.trim() !== '') parameters.set('options', options.trim())
  return parameters.size === 0 ? base : `${base}?${parameters.toString()}`
}

function wrongUrl(reason: string): UnsupportedDatabaseError {
  return new UnsupportedDatabaseError(
    `The URL of the database must be like postgres://user:password@host:5432/name, with more ` +
      `hosts after commas: ${reason}.`,
  )
}
