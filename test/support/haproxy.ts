import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { freePort } from '#test/support/database.ts'

const program =
  ['/usr/sbin/haproxy', '/usr/bin/haproxy', '/usr/local/sbin/haproxy'].find((path) =>
    existsSync(path),
  ) ?? null
const startDeadlineMs = 10_000

/** The reason why tests behind a load balancer cannot run here, or false. */
export const haproxyMissing: string | false =
  program === null ? 'no HAProxy here: install the package haproxy' : false

export type Haproxy = AsyncDisposable & {
  readonly origin: string
  /** `up`: the server gets requests. */
  servers(): Promise<{ readonly name: string; readonly up: boolean }[]>
}

/** Configured as in docs/guide/many-nodes.md: only requests that reached no node are retried. */
export async function startHaproxy(ports: readonly number[]): Promise<Haproxy> {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-haproxy-'))
  const port = await freePort()
  const socket = join(folder, 'socket')
  await writeFile(join(folder, 'haproxy.cfg'), configuration(port, socket, ports))
  const child = spawn(program!, ['-db', '-f', join(folder, 'haproxy.cfg')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let complaint = ''
  child.stderr.on('data', (chunk) => (complaint += String(chunk)))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const servers = async (): Promise<{ name: string; up: boolean }[]> => {
    const rows = (await ask(socket, 'show stat')).split('\n').map((line) => line.split(','))
    const columns = rows[0]!.map((name) => name.replace('# ', ''))
    const cell = (row: readonly string[], name: string): string => row[columns.indexOf(name)] ?? ''
    return rows
      .filter((row) => row[0] === 'nodes' && row[1]?.startsWith('node') === true)
      .map((row) => ({ name: row[1]!, up: cell(row, 'status').startsWith('UP') }))
  }
  const deadline = Date.now() + startDeadlineMs
  for (;;) {
    const found = await servers().catch(() => [])
    if (found.length === ports.length && found.every(({ up }) => up)) break
    if (child.exitCode !== null || Date.now() > deadline)
      throw new Error(`HAProxy does not see the nodes: ${JSON.stringify(found)} ${complaint}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return {
    origin: `http://127.0.0.1:${port}`,
    servers,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      await ended
      await rm(folder, { recursive: true, force: true })
    },
  }
}

function configuration(port: number, socket: string, ports: readonly number[]): string {
  return `global
  stats socket ${socket} mode 600 level admin
  maxconn 1000
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  option redispatch 1
  retries 3
frontend site
  bind 127.0.0.1:${port}
  default_backend nodes
backend nodes
  balance roundrobin
  option httpchk GET /healthz/ready
  timeout check 5s
  default-server check inter 500ms fall 3 rise 1
${ports.map((each, index) => `  server node${index + 1} 127.0.0.1:${each}`).join('\n')}
`
}

async function ask(socket: string, command: string): Promise<string> {
  const connection = connect(socket)
  connection.write(`${command}\n`)
  return text(connection)
}
