import assert from 'node:assert/strict'
import { test } from 'node:test'
import { joinCluster } from 'stoa/cluster'

test('an option of the library that cannot work is refused before anything connects', async () => {
  const url = 'postgres://stoa@127.0.0.1:1/nothing'
  for (const options of [
    { connectionsMax: 5 },
    { connectionsMax: Number.NaN },
    { leaseMs: 0 },
    { leaseMs: 0.5 },
    { pollGapMs: -1 },
  ]) {
    const [name] = Object.keys(options)
    await assert.rejects(joinCluster({ url, ...options }), {
      name: 'RangeError',
      message: new RegExp(`^${name} is .*; it must be a whole number and at least \\d+\\.$`),
    })
  }
  for (const options of [
    { linkUrl: 'http://host' },
    { linkUrl: 'nats://host/subject' },
    { secondLevelUrl: 'redis://h1,h2' },
  ]) {
    const [name] = Object.keys(options)
    await assert.rejects(joinCluster({ url, ...options }), {
      name: 'RangeError',
      message: new RegExp(`^${name} .*\\.$`),
    })
  }
})
