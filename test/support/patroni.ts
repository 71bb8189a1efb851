import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { freePort } from '#test/support/database.ts'
import { postgresBinaries } from '#test/support/postgres-server.ts'

/** Patroni runs as this account where the tests run as root, which PostgreSQL refuses. */
const unprivileged = { uid: 65_534, gid: 65_534 }
const identity: Partial<typeof unprivileged> = process.getuid?.() === 0 ? unprivileged : {}
const programs = ['patroni', 'etcd'] as const
const startDeadlineMs = 90_000
/** A leader without contact is replaced after this time, the least that Patroni allows. */
export const patroniTtlMs = 20_000

/** The reason why no cluster under Patroni can be started here, or false. */
export const patroniMissing: string | false = missing()

function missing(): string | false {
  if (postgresBinaries === undefined) return 'no pg_basebackup here: install the package postgresql'
  const absent = programs.find((name) => !existsSync(`/usr/bin/${name}`))
  if (absent === undefined) return false
  return `no ${absent} here: install patroni, etcd-server, python3-etcd and python3-psycopg2`
}

type Server = {
  readonly name: string
  readonly folder: string
  readonly port: number
  readonly restPort: number
  process: ChildProcess
}

/** Two PostgreSQL under Patroni with synchronous replication, and one etcd. */
export class PatroniCluster implements AsyncDisposable {
  readonly #folder: string
  readonly #servers: readonly Server[]
  readonly #etcd: ChildProcess

  private constructor(folder: string, servers: readonly Server[], etcd: ChildProcess) {
    this.#folder = folder
    this.#servers = servers
    this.#etcd = etcd
  }

  /** Resolves when there are a leader and a synchronous standby. */
  static async start(): Promise<PatroniCluster> {
    const folder = mkdtempSync(join(tmpdir(), 'stoa-patroni-'))
    chmodSync(folder, 0o755)
    if (identity.uid !== undefined) chownSync(folder, unprivileged.uid, unprivileged.gid)
    const [client, peer] = [await freePort(), await freePort()]
    const etcd = run('etcd', folder, etcdArguments(folder, client, peer))
    const servers: Server[] = []
    for (const name of ['one', 'two']) {
      const options = { name, folder, port: await freePort(), restPort: await freePort() }
      const file = join(folder, `${name}.yml`)
      writeFileSync(file, JSON.stringify(configuration(options, client)), { mode: 0o644 })
      servers.push({ ...options, process: run('patroni', folder, [file]) })
      await waitFor(async () => isUp(servers[0]!.restPort, 'primary'), 'no leader came up')
    }
    const cluster = new PatroniCluster(folder, servers, etcd)
    await cluster.whole()
    return cluster
  }

  /** Both servers; clients use the one that takes writes. */
  get url(): string {
    const hosts = this.#servers.map(({ port }) => `127.0.0.1:${port}`).join(',')
    return `postgres://postgres@${hosts}/postgres`
  }

  /** The URL of the server that takes writes now. */
  async leaderUrl(): Promise<string> {
    return urlOf(await this.#leader())
  }

  /** Resolves when there are a leader and a synchronous standby. */
  async whole(): Promise<void> {
    await waitFor(async () => {
      const states = await Promise.all(
        this.#servers.map(async ({ restPort }) => isUp(restPort, 'synchronous')),
      )
      return states.filter(Boolean).length === 1
    }, 'no synchronous standby came up')
  }

  /** Kills the leader's postmaster and its backends, as a crash does. Returns when it happened. */
  async killLeader(): Promise<number> {
    const leader = await this.#leader()
    for (const pid of serverProcesses(leader)) signal(pid, 'SIGKILL')
    return performance.now()
  }

  /** Stops the leader's server and its Patroni for `ms`, then lets both go on. */
  async freezeLeader(ms: number): Promise<void> {
    const leader = await this.#leader()
    const pids = [leader.process.pid!, ...serverProcesses(leader)]
    for (const pid of pids) signal(pid, 'SIGSTOP')
    await sleep(ms)
    for (const pid of pids) signal(pid, 'SIGCONT')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) server.process.kill('SIGKILL')
    for (const server of this.#servers)
      for (const pid of serverProcesses(server)) signal(pid, 'SIGKILL')
    this.#etcd.kill('SIGKILL')
    await sleep(200)
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async #leader(): Promise<Server> {
    let found: Server | undefined
    await waitFor(async () => {
      for (const server of this.#servers) if (await isPrimary(server)) found = server
      return found !== undefined
    }, 'no server takes writes')
    return found!
  }
}

function urlOf({ port }: Server): string {
  return `postgres://postgres@127.0.0.1:${port}/postgres`
}

function etcdArguments(folder: string, client: number, peer: number): string[] {
  const [clientUrl, peerUrl] = [`http://127.0.0.1:${client}`, `http://127.0.0.1:${peer}`]
  return [
    ['--name', 'e1'],
    ['--data-dir', join(folder, 'etcd')],
    ['--listen-client-urls', clientUrl],
    ['--advertise-client-urls', clientUrl],
    ['--listen-peer-urls', peerUrl],
    ['--initial-advertise-peer-urls', peerUrl],
    ['--initial-cluster', `e1=${peerUrl}`],
  ].flat()
}

function configuration(
  { name, folder, port, restPort }: Omit<Server, 'process'>,
  etcdPort: number,
): object {
  const account = { username: 'postgres', password: 'unused' }
  mkdirSync(join(folder, name), { mode: 0o700 })
  if (identity.uid !== undefined) chownSync(join(folder, name), unprivileged.uid, unprivileged.gid)
  const address = `127.0.0.1:${port}`
  return {
    scope: 'stoa',
    name,
    restapi: { listen: `127.0.0.1:${restPort}`, connect_address: `127.0.0.1:${restPort}` },
    etcd3: { host: `127.0.0.1:${etcdPort}` },
    bootstrap: {
      dcs: {
        ttl: patroniTtlMs / 1_000,
        loop_wait: 2,
        retry_timeout: 5,
        primary_start_timeout: 0,
        synchronous_mode: true,
        postgresql: { use_pg_rewind: true, parameters: { wal_log_hints: 'on' } },
      },
      initdb: [{ encoding: 'UTF8' }, { locale: 'C' }, { auth: 'trust' }],
      pg_hba: ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust'],
    },
    postgresql: {
      listen: address,
      connect_address: address,
      data_dir: join(folder, name, 'data'),
      bin_dir: postgresBinaries,
      pgpass: join(folder, name, 'pgpass'),
      authentication: { superuser: account, replication: account, rewind: account },
      parameters: { unix_socket_directories: join(folder, name), fsync: 'off' },
    },
  }
}

function run(program: string, folder: string, args: readonly string[]): ChildProcess {
  const env = { PATH: '/usr/bin:/bin', HOME: folder, LC_ALL: 'C.UTF-8' }
  return spawn(`/usr/bin/${program}`, [...args], { ...identity, cwd: folder, env, stdio: 'ignore' })
}

/** The postmaster and its children. */
function serverProcesses({ folder, name }: Server): number[] {
  const file = join(folder, name, 'data', 'postmaster.pid')
  const postmaster = existsSync(file) ? Number(readFileSync(file, 'utf8').split('\n')[0]) : 0
  if (!(postmaster > 0)) return []
  const children = readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && parentOf(pid) === postmaster)
    .map(Number)
  return [postmaster, ...children]
}

function parentOf(pid: string): number {
  try {
    return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  } catch {
    // It ended while the list was read.
    return 0
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It has ended already.
  }
}

async function isUp(port: number, path: string): Promise<boolean> {
  const options = { signal: AbortSignal.timeout(2_000) }
  const response = await fetch(`http://127.0.0.1:${port}/${path}`, options).catch(() => null)
  await response?.body?.cancel()
  return response?.status === 200
}

async function isPrimary(server: Server): Promise<boolean> {
  const client = new pg.Client({
    connectionString: urlOf(server),
    connectionTimeoutMillis: 1_000,
    query_timeout: 2_000,
  })
  client.on('error', () => undefined)
  try {
    await client.connect()
    const { rows } = await client.query<{ standby: boolean }>(
      'select pg_is_in_recovery() as standby',
    )
    return rows[0]?.standby === false
  } catch {
    return false
  } finally {
    await client.end().catch(() => undefined)
  }
}

async function waitFor(holds: () => Promise<boolean>, complaint: string): Promise<void> {
  const deadline = performance.now() + startDeadlineMs
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(complaint)
    await sleep(100)
  }
}
