import { spawn } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { freePort } from '#test/support/database.ts'

const program = '/usr/sbin/pgbouncer'
const unprivileged = { uid: 65_534, gid: 65_534 }
const startDeadlineMs = 20_000

/** The reason why no pooler can be started here, or false. */
export const pgbouncerMissing: string | false = existsSync(program)
  ? false
  : 'no PgBouncer here: install the package pgbouncer'

export type Pooler = AsyncDisposable & { readonly url: string }

/** PgBouncer in transaction mode in front of the database of `url`, with few server connections. */
export async function startPgbouncer(url: string, poolSize: number): Promise<Pooler> {
  const folder = mkdtempSync(join(tmpdir(), 'stoa-pgbouncer-'))
  const asRoot = process.getuid?.() === 0
  const { hostname, port: serverPort, pathname, username } = new URL(url)
  const port = await freePort()
  const database = pathname.slice(1)
  const settings = join(folder, 'pgbouncer.ini')
  writeFileSync(
    settings,
    `[databases]
${database} = host=${hostname} port=${serverPort} dbname=${database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = trust
auth_file = ${join(folder, 'users')}
pool_mode = transaction
default_pool_size = ${poolSize}
max_client_conn = 500
logfile = ${join(folder, 'log')}
`,
  )
  writeFileSync(join(folder, 'users'), `"${username}" ""\n`)
  if (asRoot)
    for (const path of [folder, settings, join(folder, 'users')])
      chownSync(path, unprivileged.uid, unprivileged.gid)
  const child = spawn(program, [settings], {
    stdio: 'ignore',
    cwd: folder,
    ...(asRoot ? unprivileged : {}),
  })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const killAtExit = (): void => void child.kill('SIGKILL')
  process.once('exit', killAtExit)
  const pooled = `postgres://${username}@127.0.0.1:${port}/${database}`
  await isReady(pooled)
  return {
    url: pooled,
    [Symbol.asyncDispose]: async () => {
      process.off('exit', killAtExit)
      child.kill('SIGKILL')
      await ended
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function isReady(url: string): Promise<void> {
  const deadline = Date.now() + startDeadlineMs
  for (;;) {
    const client = new pg.Client({ connectionString: url })
    try {
      await client.connect()
      await client.query('select 1')
      return
    } catch (error) {
      if (Date.now() > deadline) throw error
      await sleep(50)
    } finally {
      void client.end()
    }
  }
}
