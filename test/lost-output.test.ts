import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'
import { stoaProgram } from '#test/support/node.ts'

const deadlineMs = 60_000
const withoutSettings = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('STOA_')),
)
const fullMissing = existsSync('/dev/full') ? false : 'no /dev/full here'

/**
 * The status with which a command ends, and its output. The streams in `closed` have no reader
 * from the beginning.
 */
async function stoa(
  argv: readonly string[],
  environment: Readonly<Record<string, string>>,
  closed: readonly ('stdout' | 'stderr')[],
): Promise<{ status: number | null; said: string }> {
  const child = spawn(process.execPath, [stoaProgram, ...argv], {
    env: { ...withoutSettings, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: deadlineMs,
  })
  let said = ''
  for (const name of ['stdout', 'stderr'] as const) {
    if (closed.includes(name)) child[name].destroy()
    else child[name].on('data', (chunk) => (said += String(chunk)))
  }
  return { status: await new Promise((resolve) => child.once('close', resolve)), said }
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + deadlineMs
  while (!(await condition())) {
    assert.ok(Date.now() < end, what)
    await sleep(50)
  }
}

const isReady = async (port: number): Promise<boolean> =>
  (
    await fetch(`http://127.0.0.1:${port}/healthz/ready`, {
      headers: { connection: 'close' },
    }).catch(() => null)
  )?.status === 200

test(
  'commands go on to their end, with their status, when their output has no reader',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase()
    const folder = await mkdtemp(join(tmpdir(), 'stoa-lost-output-'))
    try {
      const environment = { STOA_DATABASE_URL: db.url, STOA_DATA: join(folder, 'data') }
      for (const closed of [['stdout'], ['stderr'], ['stdout', 'stderr']] as const) {
        const target = join(folder, closed.join('-'))
        assert.deepEqual(
          await stoa(['export', target], environment, closed).then(({ status }) => status),
          0,
          closed.join(),
        )
        assert.ok(existsSync(join(target, 'stoa-export.json')), closed.join())
        assert.equal(
          (await stoa(['no-such-command'], environment, closed)).status,
          2,
          closed.join(),
        )
      }
      assert.equal(
        (await stoa(['status', '--watch'], environment, ['stdout'])).status,
        0,
        'what has no end of its own ends with its reader',
      )
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  },
)

test(
  'a command whose result cannot be written fails with a sentence',
  { skip: fullMissing },
  async () => {
    const full = openSync('/dev/full', 'w')
    try {
      const child = spawn(process.execPath, [stoaProgram, '--json', 'config'], {
        env: withoutSettings,
        stdio: ['ignore', full, 'pipe'],
        timeout: deadlineMs,
      })
      let said = ''
      child.stderr?.on('data', (chunk) => (said += String(chunk)))
      assert.equal(await new Promise((resolve) => child.once('close', resolve)), 1)
      assert.match(said, /^stoa: The output could not be written: ENOSPC.*\n$/)
    } finally {
      closeSync(full)
    }
  },
)

test(
  'a node whose log cannot be written, as on a full disk, serves and stops as ever',
  { skip: databaseMissing === false ? fullMissing : databaseMissing },
  async () => {
    await using db = await testDatabase()
    const folder = await mkdtemp(join(tmpdir(), 'stoa-lost-output-'))
    const full = openSync('/dev/full', 'w')
    const port = await freePort()
    const env = {
      ...withoutSettings,
      STOA_DATABASE_URL: db.url,
      STOA_DATA: folder,
      STOA_PORT: String(port),
      STOA_LOG_LEVEL: 'debug',
    }
    const child = spawn(process.execPath, [stoaProgram, 'start'], {
      env,
      stdio: ['ignore', full, full],
    })
    try {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      await until('it is not ready', () => isReady(port))
      child.kill('SIGTERM')
      assert.equal(await ended, 0)
    } finally {
      child.kill('SIGKILL')
      closeSync(full)
      await rm(folder, { recursive: true, force: true })
    }
  },
)

function scriptMissing(): string | false {
  try {
    execFileSync('script', ['--version'], { stdio: 'ignore' })
    return existsSync('/proc/self/task')
      ? false
      : 'processes are read from /proc, which is not here'
  } catch {
    return 'no terminal can be made here: install the package bsdutils'
  }
}

test(
  'several nodes go on when the terminal that they were started from is closed',
  { skip: databaseMissing === false ? scriptMissing() : databaseMissing },
  async () => {
    await using db = await testDatabase()
    const folder = await mkdtemp(join(tmpdir(), 'stoa-lost-output-'))
    const port = await freePort()
    const env = {
      ...withoutSettings,
      STOA_DATABASE_URL: db.url,
      STOA_DATA: folder,
      STOA_PORT: String(port),
      STOA_DRAIN_GRACE_MS: '0',
      SHELL: '/bin/sh',
    }
    const children = async (pid: number | undefined): Promise<number[]> =>
      (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => ''))
        .split(' ')
        .filter(Boolean)
        .map(Number)
    const terminal = spawn(
      'script',
      ['-qc', `exec "${process.execPath}" "${stoaProgram}" start --nodes 2`, '/dev/null'],
      { env, stdio: ['ignore', 'pipe', 'ignore'] },
    )
    terminal.stdout.resume()
    let supervisor: number | undefined
    try {
      await until('it is not ready', () => isReady(port))
      ;[supervisor] = await children(terminal.pid)
      await until('there are not two nodes', async () => (await children(supervisor)).length === 2)
      const first = await children(supervisor)
      terminal.kill('SIGKILL')
      // The terminal hangs up, which restarts them one by one.
      await until('they do not all run again', async () => {
        const now = await children(supervisor)
        return now.length === 2 && !now.some((pid) => first.includes(pid)) && (await isReady(port))
      })
    } finally {
      terminal.kill('SIGKILL')
      if (supervisor !== undefined && existsSync(`/proc/${supervisor}`)) {
        process.kill(supervisor, 'SIGTERM')
        await until(
          'the supervisor does not end',
          async () =>
            !existsSync(`/proc/${supervisor}`) ||
            (await readFile(`/proc/${supervisor}/stat`, 'utf8').catch(() => ') Z')).includes(') Z'),
        )
      }
      await rm(folder, { recursive: true, force: true })
    }
  },
)
