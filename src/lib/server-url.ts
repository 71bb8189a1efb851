/** A URL that names one server or several of a kind, with what it takes to sign in there. */
export type ServerUrl = {
  readonly scheme: string
  readonly username: string | null
  readonly password: string | null
  /** At least one. `port` is null where the URL names none. */
  readonly hosts: readonly ServerHost[]
  /** Without the slash before it; empty where there is none. */
  readonly path: string
  readonly options: ReadonlyMap<string, string>
}

export type ServerHost = { readonly host: string; readonly port: number | null }

const shape = /^([a-z0-9]+):\/\/(?:([^@/?#]*)@)?([^@/?#]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/
const hostShape = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/
const portMax = 65_535

/**
 * Reads `scheme://user:password@host1:port,host2:port/path?option=value`, which `URL` cannot for
 * several hosts. Throws an error whose message says what is allowed; it never has the text in it,
 * because that may hold a password.
 */
export function parseServerUrl(text: string): ServerUrl {
  const [, scheme, account, hosts = '', path = '', query = ''] = shape.exec(text) ?? []
  if (scheme === undefined)
    throw new Error('must look like scheme://user:password@host1:port,host2:port')
  const colon = account?.indexOf(':') ?? -1
  return {
    scheme,
    username: account === undefined ? null : decode(colon < 0 ? account : account.slice(0, colon)),
    password: account === undefined || colon < 0 ? null : decode(account.slice(colon + 1)),
    hosts: hosts.split(',').map(parseHost),
    path: decode(path),
    options: new Map(new URLSearchParams(query)),
  }
}

/** Throws where the URL has an option that is not among `known`. */
export function refuseUnknownOptions({ options }: ServerUrl, known: readonly string[]): void {
  const unknown = [...options.keys()].find((name) => !known.includes(name))
  if (unknown !== undefined)
    throw new Error(`has the option "${unknown}"; known are ${known.join(', ')}`)
}

function parseHost(text: string): ServerHost {
  const [, host, port] = hostShape.exec(text) ?? []
  if (host === undefined) throw new Error('must name hosts as host or host:port, after commas')
  const number = port === undefined ? null : Number(port)
  if (number !== null && (number < 1 || number > portMax))
    throw new Error(`must name ports from 1 to ${portMax}`)
  return { host, port: number }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Error('has a percent sign that is not followed by two hexadecimal digits')
  }
}
