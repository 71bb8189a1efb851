import { execFileSync, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  rmSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { freePort } from '#test/support/database.ts'

/** Accounts have this id where the tests run as root, which PostgreSQL refuses. */
const unprivileged = { uid: 65_534, gid: 65_534 }
export const postgresBinaries = [18, 17, 16, 15]
  .map((major) => `/usr/lib/postgresql/${major}/bin`)
  .find((folder) => existsSync(join(folder, 'pg_basebackup')))

/** The reason why no cluster of PostgreSQL servers can be started here, or false. */
export const replicationMissing: string | false =
  postgresBinaries === undefined ? 'no pg_basebackup here: install the package postgresql' : false

const identity: Partial<typeof unprivileged> = process.getuid?.() === 0 ? unprivileged : {}

/** A PostgreSQL of a test's own, to be killed, promoted and followed. */
export class PostgresServer implements AsyncDisposable {
  readonly folder: string
  readonly port: number
  #child: ChildProcess | null = null

  private constructor(folder: string, port: number) {
    this.folder = folder
    this.port = port
  }

  /** A new, empty primary. */
  static async primary(): Promise<PostgresServer> {
    const server = await PostgresServer.#make()
    server.#run('initdb', [
      '-D',
      server.#data,
      '-U',
      'postgres',
      '-A',
      'trust',
      '-E',
      'UTF8',
      '--locale=C',
      '--no-sync',
    ])
    appendFileSync(
      join(server.#data, 'pg_hba.conf'),
      'host replication postgres 127.0.0.1/32 trust\n',
    )
    await server.start()
    return server
  }

  /** Offers TLS from the next start on, with the certificate and key of these files. */
  async offerTls(certificate: string, key: string): Promise<void> {
    for (const [from, to] of [
      [certificate, 'server.crt'],
      [key, 'server.key'],
    ] as const) {
      const path = join(this.#data, to)
      copyFileSync(from, path)
      chmodSync(path, 0o600)
      if (identity.uid !== undefined) chownSync(path, unprivileged.uid, unprivileged.gid)
    }
    await this.query('alter system set ssl = on')
    await this.stop()
    await this.start()
  }

  /** A streaming standby of `primary`. */
  static async standbyOf(primary: PostgresServer): Promise<PostgresServer> {
    const server = await PostgresServer.#make()
    server.#run('pg_basebackup', [
      '-D',
      server.#data,
      '-R',
      '-X',
      'stream',
      '-c',
      'fast',
      '--no-sync',
      '-d',
      `postgres://postgres@127.0.0.1:${primary.port}/postgres`,
    ])
    await server.start()
    return server
  }

  static async #make(): Promise<PostgresServer> {
    const folder = mkdtempSync(join(tmpdir(), 'stoa-test-server-'))
    chmodSync(folder, 0o755)
    if (identity.uid !== undefined) chownSync(folder, unprivileged.uid, unprivileged.gid)
    return new PostgresServer(folder, await freePort())
  }

  get url(): string {
    return `postgres://postgres@127.0.0.1:${this.port}/postgres`
  }

  get #data(): string {
    return join(this.folder, 'data')
  }

  async start(): Promise<void> {
    const settings = [
      'listen_addresses=127.0.0.1',
      `port=${this.port}`,
      'unix_socket_directories=',
      'fsync=off',
      'wal_level=replica',
      'shared_buffers=32MB',
    ]
    const args = ['-D', this.#data, ...settings.flatMap((setting) => ['-c', setting])]
    this.#child = spawn(join(postgresBinaries ?? '', 'postgres'), args, {
      ...identity,
      cwd: this.folder,
      stdio: 'ignore',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
    })
    const until = Date.now() + 30_000
    for (;;) {
      try {
        await this.query('select 1')
        return
      } catch (error) {
        if (Date.now() > until || this.#child.exitCode !== null) throw error
        await sleep(30)
      }
    }
  }

  /** Runs on a connection of its own. */
  async query(text: string): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({
      connectionString: this.url,
      connectionTimeoutMillis: 5_000,
      query_timeout: 20_000,
    })
    client.on('error', () => undefined)
    await client.connect()
    try {
      return (await client.query<Record<string, unknown>>(text)).rows
    } finally {
      await client.end()
    }
  }

  /** Makes a standby the primary, and returns once it takes writes. */
  async promote(): Promise<void> {
    await this.query('select pg_promote(true, 30)')
  }

  /** From now on this server waits for the standby to have each commit. */
  async commitOnlyWithStandby(): Promise<void> {
    await this.query(`alter system set synchronous_standby_names = '*'`)
    await this.query('select pg_reload_conf()')
  }

  /** Kills the postmaster and all its processes at once, as when the machine fails. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  async stop(): Promise<void> {
    await this.#end('SIGINT')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end('SIGQUIT')
    rmSync(this.folder, { recursive: true, force: true })
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    this.#child = null
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    await ended
  }

  #run(program: string, args: readonly string[]): void {
    execFileSync(join(postgresBinaries ?? '', program), [...args], {
      ...identity,
      cwd: this.folder,
      stdio: 'ignore',
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
    })
  }
}
