import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { sql } from '#database/database.ts'
import type { ClusterStatus } from '#nodes/cluster-status.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startProxy } from '#test/support/proxy.ts'
import { startNode, stoaProgram } from '#test/support/node.ts'

/** The load gives up by itself after so many requests. */
const roundsMax = 10_000
const notReadyMax = 5
const roundsOfWaitingMax = 40
const waitMs = 250
const withoutSettings = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('STOA_')),
)

async function stoa(
  url: string,
  ...argv: string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  try {
    return {
      status: 0,
      ...(await promisify(execFile)(process.execPath, [stoaProgram, ...argv], {
        env: { ...withoutSettings, STOA_DATABASE_URL: url },
      })),
    }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { status: code, stdout, stderr }
  }
}

async function statusOf(url: string): Promise<ClusterStatus> {
  const { status, stdout, stderr } = await stoa(url, 'status', '--json')
  assert.equal(status, 0, stderr)
  return JSON.parse(stdout) as ClusterStatus
}

/** The first status of which that is true. */
async function statusWhere(
  url: string,
  isTrue: (status: ClusterStatus) => boolean,
): Promise<ClusterStatus> {
  for (let round = 0; ; round += 1) {
    const status = await statusOf(url)
    if (isTrue(status)) return status
    assert.ok(round < roundsOfWaitingMax, JSON.stringify(status))
    await sleep(waitMs)
  }
}

test(
  'stoa status lists every node, and stoa drain makes one leave without losing a request',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    assert.match((await stoa(db.url, 'status')).stdout, /No node runs/)
    const environment = {
      STOA_DATABASE_URL: db.url,
      STOA_STARTER: 'false',
      STOA_DRAIN_GRACE_MS: '3000',
    }
    await using one = await startNode({ environment: { ...environment, STOA_NODE: 'one' } })
    const shared = { ...environment, STOA_FILES_URL: `file://${one.dataDir}/files` }
    await using two = await startNode({ environment: { ...shared, STOA_NODE: 'two' } })
    await using three = await startNode({ environment: { ...shared, STOA_NODE: 'three' } })

    // The report of a node reaches the others within moments, and a duty that is just changing
    // hands has no holder.
    const all = await statusWhere(db.url, ({ nodes, degraded }) => {
      const complete = nodes.every(
        ({ report, address }) =>
          report !== null && report.cache !== null && report.feedLagMs !== null && address !== null,
      )
      return complete && degraded.length === 0
    })
    assert.deepEqual(
      all.nodes.map(({ name, state, address, problem }) => [name, state, address, problem]),
      [
        ['one', 'live', new URL(one.origin).host, null],
        ['three', 'live', new URL(three.origin).host, null],
        ['two', 'live', new URL(two.origin).host, null],
      ],
    )
    for (const { report } of all.nodes)
      assert.ok(report!.feedLagMs! < 1_000, JSON.stringify(report))
    for (const { report } of all.nodes) {
      const { state, address } = report!.parts.fileStore!
      assert.deepEqual([state, address], ['up', join(one.dataDir, 'files')])
    }
    const lines = (await stoa(db.url, 'status')).stdout
    assert.ok(lines.includes(`file store: up; ${join(one.dataDir, 'files')}`), lines)

    const failures: unknown[] = []
    const counts = { served: 0, closing: 0, notReady: 0 }
    const load = (async () => {
      // A load balancer does the same: once a node has responded several times that it is not
      // ready, it gets no more requests.
      for (let round = 0; round < roundsMax && counts.notReady < notReadyMax; round += 1) {
        try {
          const response = await fetch(`${two.origin}/api/locales`)
          await response.text()
          if (response.status !== 200) failures.push(response.status)
          counts.served += 1
          if (response.headers.get('connection') === 'close') counts.closing += 1
          const ready = await fetch(`${two.origin}/healthz/ready`)
          await ready.text()
          if (ready.status === 503) counts.notReady += 1
        } catch (error) {
          failures.push(error)
        }
        await sleep(2)
      }
    })()
    const drained = await stoa(db.url, 'drain', 'two', '--json')
    assert.equal(drained.status, 0, drained.stderr)
    assert.equal((JSON.parse(drained.stdout) as { outcome: string }).outcome, 'left')
    await load
    assert.deepEqual(failures, [])
    assert.ok(
      counts.served > notReadyMax &&
        counts.closing >= notReadyMax - 1 &&
        counts.notReady === notReadyMax,
      JSON.stringify(counts),
    )
    assert.equal(await two.ended(), 0, 'a drained node ends with status 0 by itself')

    three.process.kill('SIGKILL')
    await three.stop()
    const missing = await stoa(db.url, 'drain', 'four')
    assert.equal(missing.status, 1)
    assert.match(missing.stderr, /No node is called "four".*\(E_NODE_NOT_FOUND\)/)
    const after = await statusWhere(db.url, ({ nodes }) =>
      nodes.some(({ name, state }) => name === 'three' && state === 'silent'),
    )
    assert.match(after.degraded.join('\n'), /three: no beat received/)
    assert.equal(await one.stop(), 0)
    assert.match((await stoa(db.url, 'status')).stdout, /^NODE .*\nthree .* silent/)
  },
)

test(
  'refusals for want of the database are in status and, once, in the log; so are lost heartbeats',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using one = await startNode({
      environment: {
        STOA_DATABASE_URL: db.url,
        STOA_NODE: 'one',
        STOA_STARTER: 'false',
        STOA_DATABASE_TIMEOUT_MS: '300',
        STOA_LOG_LEVEL: 'info',
      },
    })
    const { token } = JSON.parse(
      (await stoa(db.url, '--json', 'token', 'create', 'administrator', '--role', 'administrator'))
        .stdout,
    ) as { token: string }
    const refused = 5
    await db.database.transaction(async (tx) => {
      await tx.run(sql('lock table stoa.locale in access exclusive mode'))
      await tx.run(sql('lock table stoa.node in share mode'))
      for (let count = 0; count < refused; count += 1) {
        const { status, headers } = await fetch(`${one.origin}/api/locales`)
        assert.deepEqual([status, headers.get('retry-after')], [503, '1'])
      }
      let degraded: readonly string[] = []
      for (
        let round = 0;
        !degraded.includes('one: it responds to calls, but the database takes no beats from it');
        round += 1
      ) {
        assert.ok(round < roundsOfWaitingMax, degraded.join('\n'))
        await sleep(waitMs)
        const response = await fetch(`${one.origin}/api/cluster`, {
          headers: { authorization: `Bearer ${token}` },
        })
        if (response.status === 200)
          degraded = ((await response.json()) as { data: ClusterStatus }).data.degraded
      }
      assert.match(
        degraded.join('\n'),
        /one: requests were refused in the last 10 s: A statement took longer than its deadline/,
      )
    })
    assert.equal((await fetch(`${one.origin}/api/locales`)).status, 200)
    await one.printed(/requests are no longer refused/)
    await statusWhere(db.url, ({ degraded }) => degraded.length === 0)
    const logged = one
      .output()
      .split('\n')
      .filter((line) => line.includes('requests are'))
      .map((line) => JSON.parse(line) as { msg: string; refused?: number })
    assert.deepEqual(
      logged.map(({ msg, refused: count }) => [msg, count]),
      [
        ['requests are refused', undefined],
        ['requests are no longer refused', refused],
      ],
    )
  },
)

test(
  'stoa status --watch goes on during an outage, and a node without a cache is not degraded',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using network = await startProxy(db.url)
    await using one = await startNode({
      environment: {
        STOA_DATABASE_URL: db.url,
        STOA_NODE: 'one',
        STOA_STARTER: 'false',
        STOA_CACHE_BYTES: '1048576',
      },
    })
    const made = await stoa(
      db.url,
      '--json',
      'token',
      'create',
      'administrator',
      '--role',
      'administrator',
    )
    const { token } = JSON.parse(made.stdout) as { token: string }
    const { data } = (await (
      await fetch(`${one.origin}/api/cluster`, { headers: { authorization: `Bearer ${token}` } })
    ).json()) as { data: ClusterStatus }
    assert.deepEqual([data.degraded, data.nodes.map(({ problem }) => problem)], [[], [null]])

    const env = {
      ...withoutSettings,
      STOA_DATABASE_URL: network.url,
      STOA_DATABASE_TIMEOUT_MS: '1000',
    }
    const watching = spawn(process.execPath, [stoaProgram, 'status', '--watch'], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const ended = new Promise<number | null>((resolve) =>
      watching.once('exit', (code) => resolve(code)),
    )
    let printed = ''
    for (const stream of [watching.stdout, watching.stderr])
      stream.on('data', (chunk) => (printed += String(chunk)))
    const prints = async (pattern: RegExp): Promise<void> => {
      printed = ''
      for (let round = 0; !pattern.test(printed); round += 1) {
        assert.ok(
          round < roundsOfWaitingMax && watching.exitCode === null,
          `${pattern}: ${printed}`,
        )
        await sleep(waitMs)
      }
    }
    try {
      await prints(/^one .* live/m)
      network.refuse()
      await prints(/^! .*database/im)
      network.heal()
      await prints(/^one .* live/m)
    } finally {
      watching.kill('SIGTERM')
      assert.equal(await ended, 0)
    }
  },
)

test(
  'stoa status shows every service, and responds at once while the database is away',
  { skip: databaseMissing },
  async () => {
    await using db = await testDatabase({ migrated: false })
    await using network = await startProxy(db.url)
    await using one = await startNode({
      environment: { STOA_DATABASE_URL: network.url, STOA_NODE: 'one', STOA_STARTER: 'false' },
    })
    const { hostname, port } = new URL(one.origin)
    const ask = () =>
      stoa(network.url, 'status', '--host', hostname, '--port', port, '--log-level', 'error')
    const well = await ask()
    assert.equal(well.status, 0, well.stderr)
    assert.match(well.stdout, /^database: up; 127\.0\.0\.1:\d+; version \d+\.\d+$/m)
    assert.match(well.stdout, /^file store: up; \/.*files$/m)
    assert.match(well.stdout, /^Cluster Link: up; NOTIFY of the database$/m)
    assert.match(well.stdout, /^second cache level: not configured$/m)
    for (const cut of ['silence', 'refuse'] as const) {
      network[cut]()
      const startedMs = performance.now()
      const away = await ask()
      const elapsedMs = performance.now() - startedMs
      network.heal()
      assert.equal(away.status, 1)
      assert.match(away.stdout, /^! .*\(E_DATABASE_/m)
      assert.match(away.stdout, /^database: down on this machine; 127\.0\.0\.1:\d+$/m)
      assert.match(away.stdout, /^The node on this machine, http:.* (ready|not ready)/m)
      assert.ok(elapsedMs < 6_000, `${cut}: ${Math.round(elapsedMs)} ms`)
    }
  },
)

test('a command where no database is makes none, and says so', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'stoa-empty-'))
  try {
    const data = join(folder, '.stoa')
    const env = { ...withoutSettings, STOA_DATA: data }
    const args = [stoaProgram, 'token', 'create', 'x', '--role', 'administrator']
    await assert.rejects(promisify(execFile)(process.execPath, args, { env }), (error) => {
      const { stderr, stdout } = error as { stderr: string; stdout: string }
      assert.match(stderr, /There is no database here: .*\(E_NO_DATABASE\)/)
      assert.equal(stdout, '')
      return true
    })
    assert.deepEqual(await readdir(folder), [])
  } finally {
    await rm(folder, { recursive: true })
  }
})
