import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { databaseMissing, testDatabase } from '#test/support/database.ts'
import { startNode, stoaProgram, temporaryFolder, withoutSettings } from '#test/support/node.ts'
import type { RunningNode } from '#test/support/node.ts'
import { natsMissing, startTestNats } from '#test/support/nats.ts'
import { redisMissing, startTestRedis } from '#test/support/redis.ts'

const roundsMax = 200

async function stoa(...argv: readonly string[]): Promise<string> {
  const options = { env: withoutSettings }
  return (await promisify(execFile)(process.execPath, [stoaProgram, ...argv], options)).stdout
}

type Ready = {
  readonly status: string
  readonly parts: Readonly<Record<string, { readonly state: string }>>
}

async function readyWhere(node: RunningNode, isTrue: (ready: Ready) => boolean): Promise<void> {
  for (let round = 0; ; round += 1) {
    const response = await fetch(`${node.origin}/healthz/ready`)
    const ready = (await response.json()) as Ready
    if (response.status === 200 && isTrue(ready)) return
    assert.ok(round < roundsMax, JSON.stringify(ready))
    await sleep(100)
  }
}

async function addLocale(node: RunningNode, authorization: string, code: string): Promise<string> {
  const response = await fetch(`${node.origin}/api/locales/${code}`, {
    method: 'PUT',
    headers: { authorization, 'content-type': 'application/json' },
    body: JSON.stringify({ fallback: 'en' }),
  })
  assert.ok(response.ok, await response.text())
  return response.headers.get('stoa-token') ?? ''
}

async function localesOf(node: RunningNode, headers: Record<string, string>): Promise<string> {
  const response = await fetch(`${node.origin}/api/locales`, { headers })
  assert.equal(response.status, 200)
  return response.text()
}

for (const { name, skip, start } of [
  { name: 'Redis', skip: redisMissing, start: () => startTestRedis() },
  { name: 'NATS', skip: natsMissing, start: () => startTestNats() },
])
  test(
    `nodes linked by ${name} say when it is killed, and read and write as before`,
    { skip: databaseMissing === false ? skip : databaseMissing },
    async () => {
      await using db = await testDatabase({ migrated: false })
      await using server = await start()
      await using files = await temporaryFolder()
      const environment = {
        STOA_DATABASE_URL: db.url,
        STOA_LINK_URL: server.url,
        STOA_FILES_URL: `file://${files.path}`,
        STOA_STARTER: 'false',
      }
      await using one = await startNode({ environment: { ...environment, STOA_NODE: 'one' } })
      await using two = await startNode({ environment: { ...environment, STOA_NODE: 'two' } })
      const flags = ['--database-url', db.url, '--link-url', server.url]
      const words = '--json token create admin --role administrator'
      const created = await stoa(...flags, ...words.split(' '))
      const { token } = JSON.parse(created) as { token: string }
      const authorization = `Bearer ${token}`
      for (const node of [one, two]) await readyWhere(node, ({ status }) => status === 'ready')

      const first = await addLocale(one, authorization, 'de')
      assert.match(await localesOf(two, { authorization, 'stoa-token': first }), /"de"/)
      await server.kill()
      for (const node of [one, two])
        await readyWhere(
          node,
          ({ status, parts }) => status === 'degraded' && parts['clusterLink']?.state === 'down',
        )
      const second = await addLocale(one, authorization, 'fr')
      assert.match(await localesOf(two, { authorization, 'stoa-token': second }), /"fr"/)
      for (let round = 0; !/"fr"/.test(await localesOf(two, { authorization })); round += 1) {
        assert.ok(round < roundsMax, 'the change is not found by polling')
        await sleep(50)
      }
      const degraded = await stoa(...flags, 'status')
      assert.match(degraded, /^Cluster Link: down on one, two; 127\.0\.0\.1:\d+$/m)
      assert.match(degraded, /^! two: Cluster Link is down; changes are found by polling$/m)
      await server.start()
      for (const node of [one, two]) await readyWhere(node, ({ status }) => status === 'ready')
      assert.match(
        await stoa(...flags, 'status'),
        /^Cluster Link: up; 127\.0\.0\.1:\d+; version \d/m,
      )
    },
  )
