import pg from 'pg'
import { GuardedSocket } from '#database/postgres/guarded-socket.ts'
import { isConnectionBroken, translate } from '#database/postgres/translate-error.ts'
import { DatabaseUnavailableError, UnsupportedDatabaseError } from '#database/errors.ts'

/** The oldest PostgreSQL whose SQL Stoa uses. */
const majorMin = 15
/** Hosts in one URL; more is a mistake. */
const hostsMax = 16

/** A connection that has been checked: its server is new enough and takes writes. */
export type OpenClient = {
  readonly client: pg.Client
  /**
   * Counts primaries: a connection of an earlier generation leads to a server that is no longer the
   * one to write to.
   */
  readonly generation: number
}

export type HostsOptions = {
  readonly url: string
  /** Only a server that takes writes, or any that answers. */
  readonly wanted: 'primary' | 'any'
  /** Deadline for one host to accept a connection and tell what it is. */
  readonly connectTimeoutMs: number
  /** Everything else that a pg client is given. */
  readonly client: pg.ClientConfig
}

type Host = { readonly name: string; readonly config: pg.ClientConfig }

const check = `select current_setting('server_version_num')::int as version, pg_is_in_recovery() as standby,
  current_setting('transaction_read_only') as read_only`
type Check = { version: number; standby: boolean; read_only: 'on' | 'off' }

/**
 * The servers named by one URL (`postgres://user@h1:5432,h2:5432/db`), of which at most one is the
 * primary. Remembers which one it was, and asks all of them at once when that is no longer known.
 */
export class Hosts {
  readonly #hosts: readonly Host[]
  readonly #options: HostsOptions
  #primary: Host | null
  #lastPrimary: Host | null = null
  #generation = 0

  /** Throws `UnsupportedDatabaseError` for a URL that names no PostgreSQL. */
  constructor(options: HostsOptions) {
    this.#options = options
    this.#hosts = parseHosts(options.url, options.client.options ?? '')
    this.#primary = this.#hosts.length === 1 ? this.#hosts[0]! : null
  }

  get generation(): number {
    return this.#generation
  }

  /** Where connections go, for messages: no user, no password. */
  get names(): string {
    return this.#hosts.map((host) => host.name).join(', ')
  }

  get hasAlternatives(): boolean {
    return this.#hosts.length > 1
  }

  /**
   * Connects to the primary. Errors: `DatabaseUnavailableError` (none can be reached, or none takes
   * writes; `facts.permanent` where trying again cannot help), `UnsupportedDatabaseError`.
   */
  async connect(): Promise<OpenClient> {
    const known = this.#primary
    if (known !== null) {
      try {
        return this.#settle(known, await this.#open(known))
      } catch (error) {
        if (!this.hasAlternatives) throw error
        this.#primary = null
      }
    }
    return this.#search()
  }

  /** The primary may have moved: the next connection asks all hosts. */
  suspect(): void {
    if (this.hasAlternatives) this.#primary = null
  }

  /**
   * The server of a connection of this generation takes no writes any more: no connection to it is
   * used again.
   */
  demoted(generation: number): void {
    if (generation !== this.#generation) return
    this.#generation += 1
    this.#lastPrimary = null
    this.suspect()
  }

  #settle(host: Host, client: pg.Client): OpenClient {
    if (this.#lastPrimary !== host) {
      if (this.#lastPrimary !== null) this.#generation += 1
      this.#lastPrimary = host
    }
    if (this.hasAlternatives) this.#primary = host
    return { client, generation: this.#generation }
  }

  async #search(): Promise<OpenClient> {
    const attempts = this.#hosts.map(async (host) => ({ host, client: await this.#open(host) }))
    try {
      const { host, client } = await Promise.any(attempts)
      for (const attempt of attempts) {
        attempt.then(
          (other) => (other.client === client ? undefined : void other.client.end()),
          () => undefined,
        )
      }
      return this.#settle(host, client)
    } catch (error) {
      throw this.#noneOf(error instanceof AggregateError ? (error.errors as unknown[]) : [error])
    }
  }

  #noneOf(errors: readonly unknown[]): Error {
    const unsupported = errors.find((error) => error instanceof UnsupportedDatabaseError)
    if (unsupported !== undefined) return unsupported
    const permanent = errors.every(
      (error) => error instanceof DatabaseUnavailableError && error.facts['permanent'] === true,
    )
    const reasons = errors.map(
      (error, index) =>
        `${this.#hosts[index]?.name}: ${error instanceof Error ? error.message : String(error)}`,
    )
    return new DatabaseUnavailableError(
      `No host of the database takes writes now. ${reasons.join(' ')}`,
      { permanent },
      { cause: errors[0] },
    )
  }

  async #open(host: Host): Promise<pg.Client> {
    const { client: common, connectTimeoutMs } = this.#options
    const client = new pg.Client({
      ...common,
      ...host.config,
      connectionTimeoutMillis: connectTimeoutMs,
      stream: () => new GuardedSocket(),
    })
    // Each failure is also reported by the call that it makes fail; without a listener it would end
    // the process.
    client.on('error', () => undefined)
    try {
      await client.connect()
      const { rows } = await client.query<Check>({
        text: check,
        query_timeout: connectTimeoutMs,
      } as pg.QueryConfig)
      refuseUnfit(rows[0], host, this.#options.wanted)
      return client
    } catch (error) {
      if (isConnectionBroken(error)) client.connection.stream.destroy()
      else void client.end()
      throw translate(error)
    }
  }
}

function refuseUnfit(found: Check | undefined, host: Host, wanted: HostsOptions['wanted']): void {
  if (found === undefined || !(found.version >= majorMin * 10_000)) {
    throw new UnsupportedDatabaseError(
      `${host.name} runs PostgreSQL ${Math.floor((found?.version ?? 0) / 10_000)}; Stoa needs ${majorMin} or newer.`,
      { version: found?.version },
    )
  }
  if (wanted === 'any') return
  if (found.standby)
    throw new DatabaseUnavailableError(`${host.name} is a standby, which takes no writes.`, {
      readOnly: true,
    })
  if (found.read_only !== 'off')
    throw new DatabaseUnavailableError(`${host.name} is read-only.`, { readOnly: true })
}

/** One client configuration per host of the URL; all else in it goes for each of them. */
function parseHosts(url: string, serverOptions: string): Host[] {
  const match =
    /^(postgres(?:ql)?:\/\/)((?:[^@/?#]*@)?)([^@/?#]*)((?:\/[^?#]*)?)(?:\?([^#]*))?$/.exec(url)
  if (match === null) throw wrongUrl('it does not look like that')
  const [, scheme = '', login = '', authority = '', path = ''] = match
  const query = new URLSearchParams(match[5] ?? '')
  // The meaning that libpq gives to sslmode: `require` encrypts, `verify-full` also checks who
  // answers.
  if (query.has('sslmode') && !query.has('uselibpqcompat')) query.set('uselibpqcompat', 'true')
  // What the URL says goes before all else, so ours is put before it there.
  if (query.has('options')) query.set('options', `${serverOptions} ${query.get('options')}`)
  const suffix = query.size === 0 ? '' : `?${query.toString()}`
  const names = authority.split(',')
  if (names.length > hostsMax) throw wrongUrl(`it names more than ${hostsMax} hosts`)
  return names.map((name) => {
    if (names.length > 1 && name === '') throw wrongUrl('one of its hosts is empty')
    const connectionString = `${scheme}${login}${name === '' && suffix.includes('host=') ? 'localhost' : name}${path}${suffix}`
    try {
      // Reads certificates that it names, and so fails now and not at the first request.
      const { host, port } = new pg.Client({ connectionString })
      return { name: host.startsWith('/') ? host : `${host}:${port}`, config: { connectionString } }
    } catch (error) {
      throw wrongUrl(error instanceof Error ? error.message : String(error))
    }
  })
}

function wrongUrl(reason: string): UnsupportedDatabaseError {
  return new UnsupportedDatabaseError(
    `The URL of the database must be like postgres://user:password@host:5432/name, with more hosts after commas: ${reason}.`,
  )
}
