import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { freePort } from '#test/support/database.ts'
import { embeddedMissing } from '#test/support/embedded.ts'
import { Random } from '../sim/random.ts'

/**
 * G4 on one node: the real program over HTTP, killed with its whole process group while eight
 * clients write.
 */
const rounds = 20
/** Decides when each kill comes; a failure names it. */
const seed = Number(process.env['STOA_TEST_SEED'] ?? Date.now() % 1_000_000)
const writers = 8
const writesMin = 16
const killWithinMs = 200
const readyWithinMs = 60_000

const program = fileURLToPath(new URL('../bin/stoa.js', import.meta.url))
const noteType = {
  name: 'note',
  label: 'Note',
  fields: [{ kind: 'text', name: 'title', required: true }],
}

type Acknowledged = { readonly id: string; readonly title: string }
type RunningNode = {
  readonly api: string
  readonly readyMs: number
  kill(): Promise<void>
  stop(): Promise<void>
}

async function startNode(env: NodeJS.ProcessEnv): Promise<RunningNode> {
  const child = spawn(process.execPath, [program, 'start'], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  })
  let complaint = ''
  child.stderr.on('data', (data) => (complaint += String(data)))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const api = `http://127.0.0.1:${env['STOA_PORT']}`
  const began = performance.now()
  for (;;) {
    const ready = await fetch(`${api}/healthz/ready`).then(
      (response) => response.ok,
      () => false,
    )
    if (ready) break
    assert.equal(child.exitCode, null, `the node ended by itself: ${complaint}`)
    assert.ok(performance.now() - began < readyWithinMs, 'the node does not become ready')
    await sleep(20)
  }
  return {
    api,
    readyMs: performance.now() - began,
    kill: async () => {
      process.kill(-child.pid!, 'SIGKILL')
      await ended
    },
    stop: async () => {
      child.kill('SIGTERM')
      await ended
    },
  }
}

/** One client, which writes until the node is gone and records each acknowledgement. */
async function write(
  api: string,
  token: string,
  name: string,
  acknowledged: Acknowledged[],
): Promise<void> {
  for (let n = 0; ; n += 1) {
    const title = `${name}-${n}`
    try {
      const response = await fetch(`${api}/api/content/note`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ fields: { title }, publish: true }),
      })
      // A response whose status has arrived is an acknowledgement, even if its body is cut off.
      const id = response.headers.get('location')?.split('/').at(-1)
      if (response.status === 201 && id !== undefined) acknowledged.push({ id, title })
      await response.text()
    } catch {
      return
    }
  }
}

async function titles(folder: string): Promise<ReadonlyMap<string, string>> {
  const client = new pg.Client({
    connectionString: readFileSync(join(folder, 'postgres/url'), 'utf8').trim(),
  })
  client.on('error', () => undefined)
  await client.connect()
  try {
    const { rows } = await client.query<{ id: string; title: string }>(
      `select entry_id as id, data->>'title' as title
       from stoa.version where type = 'note' and is_latest and is_published`,
    )
    return new Map(rows.map((row) => [row.id, row.title]))
  } finally {
    await client.end()
  }
}

test(
  `${rounds} kills of a node under ${writers} writers: every acknowledged write survives`,
  { skip: embeddedMissing() },
  async (t) => {
    const random = new Random(seed)
    t.diagnostic(`STOA_TEST_SEED=${seed}`)
    const folder = mkdtempSync(join(tmpdir(), 'stoa-kill-'))
    chmodSync(folder, 0o755)
    const data = join(folder, 'data')
    mkdirSync(data)
    const env = {
      PATH: process.env['PATH'] ?? '',
      STOA_DATA: data,
      STOA_PORT: String(await freePort()),
      STOA_STARTER: 'false',
      STOA_LOG_LEVEL: 'error',
    }
    let node: RunningNode | null = null
    try {
      node = await startNode(env)
      const made = await promisify(execFile)(
        process.execPath,
        [program, 'token', 'create', 'writers', '--role', 'administrator', '--json'],
        { env },
      )
      const { token } = JSON.parse(made.stdout) as { token: string }
      const typed = await fetch(`${node.api}/api/types/note`, {
        method: 'PUT',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify(noteType),
      })
      assert.equal(typed.status, 201, await typed.text())
      const all: Acknowledged[] = []
      const readyMs: number[] = []
      for (let round = 0; round < rounds; round += 1) {
        const acknowledged: Acknowledged[] = []
        const { api } = node
        const clients = Array.from({ length: writers }, (_, client) =>
          write(api, token, `${round}-${client}`, acknowledged),
        )
        const until = performance.now() + 20_000
        while (acknowledged.length < writesMin && performance.now() < until) await sleep(5)
        await sleep(random.between(0, killWithinMs))
        // The server has a process group of its own: every other time it is killed too, at the same
        // moment.
        const postmaster = Number(
          readFileSync(join(data, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0],
        )
        const killed = node.kill()
        if (round % 2 === 1) process.kill(postmaster, 'SIGKILL')
        await killed
        await Promise.all(clients)
        assert.ok(
          acknowledged.length >= writesMin,
          `only ${acknowledged.length} writes in round ${round}`,
        )
        all.push(...acknowledged)
        node = await startNode(env)
        readyMs.push(node.readyMs)
        const there = await titles(data)
        assert.deepEqual(
          all.filter(({ id, title }) => there.get(id) !== title),
          [],
          `lost in round ${round}`,
        )
      }
      const last = all.at(-1)!
      const read = await fetch(`${node.api}/api/content/note/${last.id}`)
      assert.equal(
        ((await read.json()) as { data: { fields: { title: string } } }).data.fields.title,
        last.title,
      )
      t.diagnostic(
        `${all.length} acknowledged writes; ready again in ` +
          `${Math.round(Math.min(...readyMs))} to ${Math.round(Math.max(...readyMs))} ms`,
      )
    } finally {
      await node?.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  },
)
