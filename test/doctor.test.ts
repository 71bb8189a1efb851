import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Diagnosis } from '#doctor/doctor.ts'
import { databaseMissing, startTestPostgres } from '#test/support/database.ts'
import { startNode, stoaProgram, temporaryFolder, withoutSettings } from '#test/support/node.ts'
import { natsMissing, startTestNats } from '#test/support/nats.ts'
import { startProxy } from '#test/support/proxy.ts'
import { redisMissing, startTestRedis } from '#test/support/redis.ts'

/** The promise is ten seconds; the rest is the start of the command on a busy machine. */
const doctorMaxMs = 14_000
const roundsMax = 20

type Ended = { readonly status: number; readonly stdout: string; readonly stderr: string }

async function stoa(
  environment: Readonly<Record<string, string>>,
  ...argv: readonly string[]
): Promise<Ended> {
  const options = { env: { ...withoutSettings, ...environment } }
  try {
    const run = promisify(execFile)(process.execPath, [stoaProgram, ...argv], options)
    return { status: 0, ...(await run) }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { status: code, stdout, stderr }
  }
}

async function doctor(
  environment: Readonly<Record<string, string>>,
): Promise<Diagnosis & { readonly status: number; readonly text: string }> {
  const startedMs = performance.now()
  const { status, stdout, stderr } = await stoa(environment, 'doctor', '--json')
  const elapsedMs = performance.now() - startedMs
  assert.ok(stdout !== '', stderr)
  assert.ok(elapsedMs < doctorMaxMs, `${Math.round(elapsedMs)} ms`)
  const diagnosis = JSON.parse(stdout) as Diagnosis
  const lines = diagnosis.findings.map(
    ({ check, nodes, message }) => `${check} [${[...nodes].sort().join(',')}] ${message}`,
  )
  return { ...diagnosis, status, text: lines.join('\n') }
}

test('the doctor is silent on one node with all defaults', async () => {
  await using node = await startNode({ environment: { STOA_STARTER: 'false', STOA_NODE: 'solo' } })
  const { status, text, nodes } = await doctor({ STOA_DATA: node.dataDir })
  assert.deepEqual([status, text, nodes], [0, '', ['solo']])
  const printed = await stoa({ STOA_DATA: node.dataDir }, 'doctor')
  assert.match(printed.stdout, /^Nothing was found \(\d+ checks on solo\)\.\n$/)
})

test(
  'the doctor is silent on three nodes with Redis and NATS, and finds what then goes wrong',
  { skip: databaseMissing || redisMissing || natsMissing },
  async () => {
    await using closing = new AsyncDisposableStack()
    const postgres = await startTestPostgres({ durable: true })
    closing.defer(() => postgres.stop())
    const network = closing.use(await startProxy(postgres.url))
    const lru = '--maxmemory 64mb --maxmemory-policy allkeys-lru'.split(' ')
    const redis = closing.use(await startTestRedis({ settings: lru }))
    const nats = closing.use(await startTestNats())
    const files = closing.use(await temporaryFolder())
    const shared = {
      STOA_DATABASE_URL: postgres.url,
      STOA_LINK_URL: nats.url,
      STOA_CACHE_URL: redis.url,
      STOA_FILES_URL: `file://${files.path}`,
      STOA_STARTER: 'false',
    }
    const one = closing.use(await startNode({ environment: { ...shared, STOA_NODE: 'one' } }))
    closing.use(await startNode({ environment: { ...shared, STOA_NODE: 'two' } }))
    closing.use(await startNode({ environment: { ...shared, STOA_NODE: 'three' } }))
    const healthy = await doctor(shared)
    assert.deepEqual([healthy.text, healthy.status], ['', 0])
    assert.deepEqual([...healthy.nodes].sort(), ['one', 'three', 'two'])

    const four = { ...shared, STOA_NODE: 'four', STOA_LEASE_MS: '700' }
    const otherRedis = closing.use(await startTestRedis({ settings: lru }))
    const different = { ...four, STOA_CACHE_URL: otherRedis.url }
    closing.use(await startNode({ environment: different }))
    await nats.kill()
    await rename(join(files.path, 'stoa-files'), join(files.path, 'elsewhere'))
    let ill = await doctor(shared)
    for (let round = 0; !/^link \[/m.test(ill.text) && round < roundsMax; round += 1) {
      await sleep(200)
      ill = await doctor(shared)
    }
    assert.equal(ill.status, 1)
    for (const pattern of [
      /^link \[four,one,three,two\] .*STOA_LINK_URL/m,
      /^files \[four,one,three,two\] /m,
      /^settings \[four,one,three,two\] The setting leaseMs differs/m,
      /^settings \[four,one,three,two\] The setting cacheUrl differs/m,
      /^second-level \[four,one,three,two\] The nodes use 2 different servers/m,
    ])
      assert.match(ill.text, pattern)

    const words = '--json token create admin --role administrator'.split(' ')
    const created = await stoa(shared, ...words)
    const { token } = JSON.parse(created.stdout) as { token: string }
    const response = await fetch(`${one.origin}/api/cluster/findings`, {
      headers: { authorization: `Bearer ${token}` },
    })
    const { data } = (await response.json()) as { data: Diagnosis }
    const checksOf = ({ findings }: Diagnosis): string[] =>
      [...new Set(findings.map(({ check }) => check))].sort()
    assert.deepEqual(checksOf(data), checksOf(ill))
    assert.deepEqual([...data.nodes].sort(), ['four', 'one', 'three', 'two'])

    const printed = await stoa(shared, 'doctor')
    assert.equal(printed.status, 1)
    assert.match(
      printed.stdout,
      /^! four, one, .*leaseMs differs.*\(settings\)\n {3}Set it to the same/m,
    )
    network.silence()
    const away = await doctor({ ...shared, STOA_DATABASE_URL: network.url })
    assert.equal(away.status, 1)
    assert.match(away.text, /^nodes \[\] The nodes could not be asked/m)
  },
)
