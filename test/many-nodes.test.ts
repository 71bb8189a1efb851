import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { Agent, get } from 'node:http'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { ClusterStatus, NodeStatus } from '#nodes/cluster-status.ts'
import { databaseMissing, freePort, testDatabase } from '#test/support/database.ts'
import { embeddedMissing } from '#test/support/embedded.ts'
import { stoaProgram } from '#test/support/node.ts'

const deadlineMs = 90_000
const clients = 8
const requestDeadlineMs = 20_000
const withoutSettings = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('STOA_')))

type Several = AsyncDisposable & {
  readonly origin: string
  signal(name: NodeJS.Signals): void
  until(text: string, times?: number): Promise<void>
  nodes(): Promise<readonly NodeStatus[]>
  /** The process id of one of the nodes. */
  childOf(): Promise<number>
  stoa(...argv: string[]): Promise<string>
  readonly ended: Promise<number | null>
}

/** `stoa start --nodes N` as a process group of its own. */
async function startSeveral(count: number, environment: Readonly<Record<string, string>>): Promise<Several> {
  const dataDir = await mkdtemp(join(tmpdir(), 'stoa-several-'))
  const port = await freePort()
  const env = { ...withoutSettings, STOA_DATA: dataDir, STOA_PORT: String(port), STOA_STARTER: 'false', STOA_NODE: 'box', STOA_DRAIN_GRACE_MS: '500', ...environment }
  const child = spawn(process.execPath, [stoaProgram, 'start', '--nodes', String(count)], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.on('data', (chunk) => (output += String(chunk)))
  child.stderr.on('data', (chunk) => (output += String(chunk)))
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  const until = async (text: string, times = 1): Promise<void> => {
    const deadline = Date.now() + deadlineMs
    while (output.split(text).length <= times) {
      assert.ok(child.exitCode === null && Date.now() < deadline, `did not print "${text}":\n${output}`)
      await sleep(25)
    }
  }
  const stoa = async (...argv: string[]): Promise<string> => (await promisify(execFile)(process.execPath, [stoaProgram, ...argv], { env })).stdout
  await until('all nodes are ready')
  return {
    origin: `http://127.0.0.1:${port}`,
    signal: (name) => void child.kill(name),
    until,
    stoa,
    nodes: async () => (JSON.parse(await stoa('status', '--json')) as ClusterStatus).nodes,
    childOf: async () => Number((await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')).trim().split(' ').at(-1)),
    ended,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), deadlineMs)
      await ended
      clearTimeout(timer)
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}

/** Each node listens first, and tells its address by a beat. */
async function told(several: Several): Promise<readonly NodeStatus[]> {
  const deadline = Date.now() + deadlineMs
  for (;;) {
    const nodes = await several.nodes()
    if (nodes.every(({ address }) => address !== null)) return nodes
    assert.ok(Date.now() < deadline, 'every node tells its address')
  }
}

async function ask(url: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    get(url, { agent, signal: AbortSignal.timeout(requestDeadlineMs) }, (answer) => answer.on('error', reject).on('end', () => resolve(answer.statusCode ?? 0)).resume()).on('error', reject)
  })
}

/** A connection for each request, as clients come that did not come before: only those meet a process that is about to go. */
async function load(origin: string, whileThis: Promise<unknown>): Promise<{ readonly requests: number; readonly failures: readonly string[] }> {
  const agent = new Agent({ keepAlive: false })
  const over = new AbortController()
  const failures: string[] = []
  let requests = 0
  const client = async (): Promise<void> => {
    while (!over.signal.aborted) {
      requests += 1
      const status = await ask(`${origin}/api/locales`, agent).catch((error: unknown) => String(error))
      if (status !== 200) failures.push(String(status))
    }
  }
  const all = Promise.all(Array.from({ length: clients }, client))
  try {
    await whileThis
  } finally {
    over.abort()
    await all
  }
  return { requests, failures }
}

test('stoa start --nodes 3: one port, a node each, and none is missed when it is killed, drained or replaced', { skip: databaseMissing }, async (t) => {
  await using db = await testDatabase({ migrated: false })
  await using several = await startSeveral(3, { STOA_DATABASE_URL: db.url })
  const before = await told(several)
  assert.deepEqual(before.map(({ name, state }) => [name, state]), [['box-1', 'live'], ['box-2', 'live'], ['box-3', 'live']])
  for (const { address } of before) assert.equal((await fetch(`http://${address}/healthz/ready`)).status, 200, 'the readiness of each is reachable')

  const rolled = await load(several.origin, (several.signal('SIGHUP'), several.until('all nodes were restarted')))
  t.diagnostic(`rolling restart: ${rolled.requests} requests, ${rolled.failures.length} failed`)
  assert.deepEqual(rolled.failures, [])
  const after = await several.nodes()
  assert.deepEqual(after.map(({ name, state }) => [name, state]), [['box-1', 'live'], ['box-2', 'live'], ['box-3', 'live']])
  assert.deepEqual(after.filter(({ id }) => before.some((one) => one.id === id)), [], 'every one is another process')

  const killed = await load(
    several.origin,
    (async () => {
      // Only those that it was answering can fail, and it comes again.
      process.kill(await several.childOf(), 'SIGKILL')
      await several.until('has ended by itself and is started again')
      await several.until('"msg":"ready"', 7)
    })(),
  )
  t.diagnostic(`kill: ${killed.requests} requests, ${killed.failures.length} failed`)
  assert.ok(killed.failures.length < clients, killed.failures.join('\n'))
  assert.deepEqual(killed.failures.filter((text) => text.includes('aborted')), [], 'nobody waits for a node that is no more')
  assert.deepEqual((await several.nodes()).filter(({ state }) => state === 'live').map(({ name }) => name), ['box-1', 'box-2', 'box-3'])

  const drained = await load(several.origin, several.stoa('drain', 'box-3'))
  assert.deepEqual(drained.failures, [])
  assert.deepEqual((await several.nodes()).map(({ name }) => name), ['box-1', 'box-2'], 'who was drained stays away')

  several.signal('SIGTERM')
  assert.equal(await several.ended, 0)
})

test('stoa start --nodes 2 with nothing else: the nodes share the embedded database of their supervisor', { skip: embeddedMissing() }, async () => {
  await using several = await startSeveral(2, {})
  assert.deepEqual((await several.nodes()).map(({ name, state }) => [name, state]), [['box-1', 'live'], ['box-2', 'live']])
  assert.equal((await fetch(`${several.origin}/healthz/ready`)).status, 200)
  several.signal('SIGINT')
  assert.equal(await several.ended, 0)
  await assert.rejects(several.stoa('start', '--nodes', '6'), /connections for 5 nodes.*STOA_DATABASE_URL.*E_USAGE/)
})
