import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'

const skip = databaseMissing

test(
  'a part that is down is never called up, and a node without places is not ready',
  { skip },
  async () => {
    await using site = await testSite({ config: { requestsMax: 1 } })
    await site.get('/api/types')
    const whole = await site.get('/healthz/ready')
    assert.equal(whole.status, 200)
    const { database, places } = site.server.api
    await database.close()
    await sleep(300)
    const without = await site.server.inject('/healthz/ready')
    assert.equal(without.json().parts.database.state, 'down')
    assert.deepEqual([without.statusCode, without.json().status], [200, 'degraded'])
    const held = ['192.0.2.1', '198.51.100.1'].map((ip) =>
      places.take({ request: { ip } } as Parameters<typeof places.take>[0], 0, false),
    )
    assert.ok(held.every((place) => place !== null))
    await site.server.inject('/healthz/ready')
    await sleep(2_100)
    const full = await site.server.inject('/healthz/ready')
    assert.equal(full.statusCode, 503)
    assert.match(full.json().detail, /requests: all places are taken/)
  },
)

test('what ends in _total is a counter', { skip }, async () => {
  await using site = await testSite()
  const { text } = await site.get('/metrics')
  const types = text.matchAll(/^# TYPE (stoa_\w+) (\w+)$/gm)
  for (const [, name = '', type] of types)
    assert.equal(type === 'counter', name.endsWith('_total'), `${name} is a ${type}`)
  for (const name of ['stoa_build_info', 'stoa_leads', 'stoa_lease_held'])
    assert.ok(text.includes(`# TYPE ${name} gauge`), name)
})
