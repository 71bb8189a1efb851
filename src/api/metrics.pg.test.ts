import assert from 'node:assert/strict'
import { test } from 'node:test'
import { databaseMissing } from '#test/support/database.ts'
import { testSite } from '#test/support/site.ts'

test(
  'metrics keep to the conventions of Prometheus: counters alone end in _total, all have help',
  { skip: databaseMissing },
  async () => {
    await using site = await testSite()
    await site.get('/api/locales')
    const { text } = await site.get('/metrics')
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)]
    const helps = new Set([...text.matchAll(/^# HELP (\S+) .{10,}$/gm)].map(([, name]) => name))
    assert.ok(types.length > 30, `${types.length} metrics`)
    for (const [, name = '', type = ''] of types) {
      assert.equal(name.endsWith('_total'), type === 'counter', `${name} is a ${type}`)
      assert.match(name, /^(stoa|process|nodejs)_[a-z0-9_]+$/)
      assert.doesNotMatch(name, /_(ms|milliseconds|minutes|kb|mb|count|sum|bucket)$/)
      assert.ok(helps.has(name), `${name} has no help`)
    }
    for (const name of ['stoa_build_info', 'stoa_database_up', 'stoa_link_connected'])
      assert.match(text, new RegExp(`^${name}(\\{.*\\})? 1$`, 'm'))
  },
)
