import pg from 'pg'
import { DatabaseUnavailableError, UnsupportedDatabaseError } from '#database/errors.ts'
import { processOf } from '#database/postgres/connection.ts'
import { GuardedSocket } from '#database/postgres/guarded-socket.ts'
import { optionsIn, parseHosts, withOptions } from '#database/postgres/host-urls.ts'
import type { Host } from '#database/postgres/host-urls.ts'
import type { Logger } from '#lib/logger.ts'
import { isConnectionBroken, translate } from '#database/postgres/translate-error.ts'

/** The oldest PostgreSQL whose SQL Stoa uses. */
const majorMin = 15

/** A connection that has been checked: its server is new enough and of the wanted kind. */
export type OpenClient = {
  readonly client: pg.Client
  /**
   * Counts primaries: a connection of an earlier generation leads to a server that is no longer the
   * one to write to.
   */
  readonly generation: number
  /** It leads to a pooler such as PgBouncer: nothing may be kept in its session. */
  readonly pooled: boolean
}

/** Settings of the session of a connection; a pooler passes none of them on. */
export type SessionSettings = {
  readonly statementTimeoutMs?: number
  readonly idleInTransactionTimeoutMs?: number
  /** `-c name=value` of the server's command line. */
  readonly options: string
}

export type HostsOptions = {
  readonly url: string
  /** Only a server that takes writes, or only one that does not. */
  readonly wanted: 'primary' | 'standby'
  /** Deadline for one host to accept a connection and to say what it is. */
  readonly connectTimeoutMs: number
  /**
   * Null: a pooler may respond. Else it is refused with this sentence, which says what to set
   * instead.
   */
  readonly poolerRefusal: string | null
  readonly logger: Logger
}

/** Options of one kind of connection, beside where it leads. */
export type ClientOptions = { readonly client: pg.ClientConfig; readonly session: SessionSettings }

const check = `
  select current_setting('server_version_num')::int as version, pg_is_in_recovery() as standby,
    current_setting('transaction_read_only') as read_only, pg_backend_pid() as pid,
    current_setting('statement_timeout') as timeout`
type Check = {
  version: number
  standby: boolean
  read_only: 'on' | 'off'
  pid: number
  timeout: string
}

/** For `poolerRefusal`, where the setting is STOA_DATABASE_URL. */
export const setDirectUrl =
  'Set STOA_DATABASE_DIRECT_URL to the PostgreSQL behind it: the change feed, locks and ' +
  'notifications need sessions of the server itself.'

/** PgBouncer keeps these two for each of its clients, and sets them where it sends a statement. */
const pooledSettings = `set timezone = 'UTC'; set datestyle = 'ISO'`

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
  /** Hosts that refuse session settings at the start of a connection: they are poolers. */
  readonly #poolers = new Set<Host>()
  #poolerLogged = false

  /** Throws `UnsupportedDatabaseError` for a URL that names no PostgreSQL. */
  constructor(options: HostsOptions) {
    this.#options = options
    this.#hosts = parseHosts(options.url)
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
   * writes; `permanent` where trying again cannot help), `UnsupportedDatabaseError`.
   */
  async connect(options: ClientOptions): Promise<OpenClient> {
    const known = this.#primary
    if (known !== null) {
      try {
        return this.#found(known, await this.#open(known, options))
      } catch (error) {
        if (!this.hasAlternatives) throw error
        this.#primary = null
      }
    }
    return this.#search(options)
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

  #found(host: Host, opened: Opened): OpenClient {
    if (this.#lastPrimary !== host) {
      if (this.#lastPrimary !== null) this.#generation += 1
      this.#lastPrimary = host
    }
    if (this.hasAlternatives) this.#primary = host
    return { ...opened, generation: this.#generation }
  }

  async #search(options: ClientOptions): Promise<OpenClient> {
    const attempts = this.#hosts.map(async (host) => ({
      host,
      opened: await this.#open(host, options),
    }))
    try {
      const { host, opened } = await Promise.any(attempts)
      for (const attempt of attempts) {
        attempt.then(
          (other) =>
            other.opened.client === opened.client ? undefined : void other.opened.client.end(),
          () => undefined,
        )
      }
      return this.#found(host, opened)
    } catch (error) {
      throw this.#noneOf(error instanceof AggregateError ? (error.errors as unknown[]) : [error])
    }
  }

  #noneOf(errors: readonly unknown[]): Error {
    const unsupported = errors.find((error) => error instanceof UnsupportedDatabaseError)
    if (unsupported !== undefined) return unsupported
    const permanent = errors.every(
      (error) => error instanceof DatabaseUnavailableError && error.permanent,
    )
    const reasons = errors.map(
      (error, index) =>
        `${this.#hosts[index]?.name}: ${error instanceof Error ? error.message : String(error)}`,
    )
    const what = this.#options.wanted === 'primary' ? 'takes writes now' : 'is a standby now'
    return new DatabaseUnavailableError(
      `No host of the database ${what}. ${reasons.join(' ')}`,
      { permanent },
      { cause: errors[0] },
    )
  }

  async #open(host: Host, options: ClientOptions): Promise<Opened> {
    if (!this.#poolers.has(host)) {
      try {
        return await this.#openAs(host, options, { pooled: false })
      } catch (error) {
        if (!refusesSettings(error)) throw translate(error)
        this.#poolers.add(host)
      }
    }
    try {
      return await this.#openAs(host, options, { pooled: true })
    } catch (error) {
      throw translate(error)
    }
  }

  async #openAs(
    host: Host,
    options: ClientOptions,
    expected: { readonly pooled: boolean },
  ): Promise<Opened> {
    const { connectTimeoutMs } = this.#options
    const client = new pg.Client({
      ...options.client,
      ...(expected.pooled ? withoutSettings(host) : withSettings(host, options.session)),
      connectionTimeoutMillis: connectTimeoutMs,
      stream: () => new GuardedSocket(),
    })
    // Each failure is also reported by the call that it makes fail; without a listener it would end
    // the process.
    client.on('error', () => undefined)
    try {
      await client.connect()
      const { rows } = await client.query<Check>(inTime(check, connectTimeoutMs))
      const found = rows[0]
      const pooled = expected.pooled || found?.pid !== processOf(client)
      this.#refuseUnfit(found, host, pooled)
      if (pooled) {
        this.#logPooler(host, found?.timeout)
        await client.query(inTime(pooledSettings, connectTimeoutMs))
      }
      return { client, pooled }
    } catch (error) {
      if (isConnectionBroken(error)) client.connection.stream.destroy()
      else void client.end()
      throw error
    }
  }

  /** Says once what is different behind a pooler. */
  #logPooler({ name }: Host, statementTimeout: string | undefined): void {
    if (this.#poolerLogged) return
    this.#poolerLogged = true
    const { logger } = this.#options
    logger.info(
      { host: name },
      'the database is reached through a connection pooler: statements are not kept prepared',
    )
    if (statementTimeout === '0')
      logger.warn(
        { host: name },
        'statements that come through the pooler have no deadline on the server: give the role ' +
          'one, as with: alter role stoa set statement_timeout = 10000',
      )
  }

  #refuseUnfit(found: Check | undefined, { name }: Host, pooled: boolean): void {
    const { wanted, poolerRefusal } = this.#options
    if (found === undefined || !(found.version >= majorMin * 10_000)) {
      throw new UnsupportedDatabaseError(
        `${name} runs PostgreSQL ${Math.floor((found?.version ?? 0) / 10_000)}; Stoa needs ` +
          `${majorMin} or newer.`,
        { version: found?.version },
      )
    }
    if (pooled && poolerRefusal !== null)
      throw new UnsupportedDatabaseError(`${name} is a connection pooler. ${poolerRefusal}`)
    if (wanted === 'standby') {
      if (found.standby) return
      throw new DatabaseUnavailableError(
        `${name} is the primary or a server of its own, not a standby: nothing is read there.`,
      )
    }
    if (found.standby)
      throw new DatabaseUnavailableError(`${name} is a standby, which takes no writes.`, {
        readOnly: true,
      })
    if (found.read_only !== 'off')
      throw new DatabaseUnavailableError(`${name} is read-only.`, { readOnly: true })
  }
}

type Opened = Omit<OpenClient, 'generation'>

/** Settings of the URL come after ours, and so are the ones that hold. */
function withSettings({ config }: Host, session: SessionSettings): pg.ClientConfig {
  const { statementTimeoutMs, idleInTransactionTimeoutMs, options } = session
  return {
    connectionString: withOptions(config, `${options} ${optionsIn(config)}`),
    ...(statementTimeoutMs === undefined ? {} : { statement_timeout: statementTimeoutMs }),
    ...(idleInTransactionTimeoutMs === undefined
      ? {}
      : { idle_in_transaction_session_timeout: idleInTransactionTimeoutMs }),
  }
}

function withoutSettings({ config }: Host): pg.ClientConfig {
  return { connectionString: withOptions(config, '') }
}

/** PgBouncer refuses each setting that its configuration does not let it ignore. */
function refusesSettings(error: unknown): boolean {
  return error instanceof pg.DatabaseError && /unsupported startup parameter/.test(error.message)
}

function inTime(text: string, timeoutMs: number): pg.QueryConfig {
  return { text, query_timeout: timeoutMs } as pg.QueryConfig
}
