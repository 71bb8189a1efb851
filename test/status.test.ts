import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { ClusterStatus } from '#nodes/cluster-status.ts'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram } from '#test/support/node.ts'

/** The load gives up by itself after so many requests. */
const roundsMax = 10_000
const notReadyMax = 20
const withoutSettings = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('STOA_')))

async function stoa(url: string, ...argv: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  try {
    return { status: 0, ...(await promisify(execFile)(process.execPath, [stoaProgram, ...argv], { env: { ...withoutSettings, STOA_DATABASE_URL: url } })) }
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

test('stoa status tells of every node, and stoa drain makes one leave without losing a request', { skip: databaseMissing }, async () => {
  await using db = await testDatabase({ migrated: false })
  assert.match((await stoa(db.url, 'status')).stdout, /No node runs/)
  const environment = { STOA_DATABASE_URL: db.url, STOA_STARTER: 'false', STOA_DRAIN_GRACE_MS: '1500' }
  await using one = await startNode({ environment: { ...environment, STOA_NODE: 'one' } })
  const shared = { ...environment, STOA_FILES_URL: `file://${one.dataDir}/files` }
  await using two = await startNode({ environment: { ...shared, STOA_NODE: 'two' } })
  await using three = await startNode({ environment: { ...shared, STOA_NODE: 'three' } })

  const all = await statusOf(db.url)
  assert.deepEqual(all.nodes.map(({ name, state, address, problem }) => [name, state, address, problem]), [
    ['one', 'live', new URL(one.origin).host, null], ['three', 'live', new URL(three.origin).host, null], ['two', 'live', new URL(two.origin).host, null],
  ])
  assert.deepEqual(all.degraded, [])
  for (const { report } of all.nodes) assert.ok(report !== null && report.cache !== null && report.feedLagMs !== null && report.feedLagMs < 1_000, JSON.stringify(report))
  // One that is just changing hands is nobody's for a moment.
  for (let round = 0; ; round += 1) {
    const roles = (await statusOf(db.url)).nodes.flatMap((node) => node.roles).sort()
    if (roles.length === 5) {
      assert.deepEqual(roles, ['collect', 'forget-keys', 'prune', 'schedule', 'settle'])
      break
    }
    assert.ok(round < 20, roles.join(' '))
    await sleep(250)
  }

  const failures: unknown[] = []
  const answers = { served: 0, closing: 0, notReady: 0 }
  const load = (async () => {
    // As a load balancer does it: after some answers that it is not ready, the node gets no more requests.
    for (let round = 0; round < roundsMax && answers.notReady < notReadyMax; round += 1) {
      try {
        const answer = await fetch(`${two.origin}/api/locales`)
        await answer.text()
        if (answer.status !== 200) failures.push(answer.status)
        answers.served += 1
        if (answer.headers.get('connection') === 'close') answers.closing += 1
        const ready = await fetch(`${two.origin}/healthz/ready`)
        await ready.text()
        if (ready.status === 503) answers.notReady += 1
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
  assert.ok(answers.served > 20 && answers.closing >= notReadyMax - 1 && answers.notReady === notReadyMax, JSON.stringify(answers))
  assert.equal(await two.stop(), 0, 'a drained node ends with status 0 by itself')

  three.process.kill('SIGKILL')
  await three.stop()
  const missing = await stoa(db.url, 'drain', 'four')
  assert.equal(missing.status, 1)
  assert.match(missing.stderr, /No node is called "four".*\(E_NODE_NOT_FOUND\)/)
  for (let round = 0; ; round += 1) {
    const { nodes, degraded } = await statusOf(db.url)
    const states = Object.fromEntries(nodes.map(({ name, state }) => [name, state]))
    if (states['three'] === 'silent' && nodes.find(({ name }) => name === 'one')!.roles.length === 5) {
      assert.match(degraded.join('\n'), /three: not heard of/)
      break
    }
    assert.ok(round < 20, JSON.stringify(nodes))
    await sleep(500)
  }
  assert.equal(await one.stop(), 0)
  assert.match((await stoa(db.url, 'status')).stdout, /^NODE .*\nthree .* silent/)
})
