import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { startEmbeddedPostgres } from '#embedded-postgres/embedded-postgres.ts'
import { silentLogger } from '#lib/logger.ts'
import { embeddedMissing } from '#test/support/embedded.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
/**
 * The whole node goes through twenty rounds in test/kill.test.ts; here it is the database alone,
 * with many more writes.
 */
const rounds = 8
const writers = 8
/**
 * Each round has at least so many acknowledged writes before the kill, which then comes at a random
 * moment.
 */
const writesMin = 20
const killWithinMs = 150

type Round = {
  readonly present: ReadonlySet<string>
  readonly acknowledged: readonly string[]
  readonly startMs: number
}

/**
 * Starts the node, looks at what is there, lets the writers write, and kills the whole process
 * group with the writes under way.
 */
async function runAndKill(folder: string, alsoServer: boolean): Promise<Round> {
  const child = spawn(
    process.execPath,
    [join(root, 'test/support/embedded-node.ts'), folder, String(writers)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    },
  )
  const ended = new Promise((resolve) => child.once('close', resolve))
  try {
    const lines: string[] = []
    const first = Promise.withResolvers<string>()
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line.startsWith('{')) first.resolve(line)
      else lines.push(line)
    })
    child.once('exit', () => first.reject(new Error('the node ended by itself')))
    const facts = JSON.parse(await first.promise) as { url?: string; ms: number; message?: string }
    assert.ok(facts.url, facts.message)
    const present = await readWritten(facts.url)
    const until = performance.now() + 20_000
    while (lines.length < writesMin && performance.now() < until) await sleep(5)
    await sleep(Math.random() * killWithinMs)
    const postmaster = Number(
      readFileSync(join(folder, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0],
    )
    process.kill(-child.pid!, 'SIGKILL')
    if (alsoServer) process.kill(postmaster, 'SIGKILL')
    await ended
    return { present, acknowledged: lines, startMs: facts.ms }
  } finally {
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid!, 'SIGKILL')
  }
}

async function readWritten(url: string): Promise<ReadonlySet<string>> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    const { rows: tables } = await client.query<{ there: boolean }>(
      `select to_regclass('written') is not null as there`,
    )
    if (tables[0]?.there !== true) return new Set()
    const { rows } = await client.query<{ n: string }>('select n from written')
    return new Set(rows.map((row) => row.n))
  } finally {
    await client.end()
  }
}

test(
  `${rounds} times kill -9 under ${writers} writers: every acknowledged write is there after ` +
    `the next start`,
  { skip: embeddedMissing() },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'stoa-durability-'))
    chmodSync(folder, 0o755)
    try {
      const acknowledged: string[] = []
      const startsMs: number[] = []
      for (let round = 0; round < rounds; round += 1) {
        // The server is in a process group of its own: every other time it is killed too, at the
        // same moment.
        const result = await runAndKill(folder, round % 2 === 1)
        const lost = acknowledged.filter((n) => !result.present.has(n))
        assert.deepEqual(lost, [], `lost before round ${round}`)
        assert.ok(
          result.acknowledged.length >= writesMin,
          `only ${result.acknowledged.length} writes in round ${round}`,
        )
        acknowledged.push(...result.acknowledged)
        startsMs.push(result.startMs)
      }
      const last = await runAndKill(folder, true)
      assert.deepEqual(
        acknowledged.filter((n) => !last.present.has(n)),
        [],
      )
      t.diagnostic(
        `${acknowledged.length} acknowledged writes; first start ${Math.round(startsMs[0]!)} ` +
          `ms, later ones at most ${Math.round(Math.max(...startsMs.slice(1)))} ms`,
      )
    } finally {
      await gone(folder)
      rmSync(folder, { recursive: true, force: true })
    }
  },
)

/** One more start and an orderly stop, so that no server is left. */
async function gone(folder: string): Promise<void> {
  const embedded = await startEmbeddedPostgres({ dataDir: folder, logger: silentLogger })
  await embedded.stop()
}
