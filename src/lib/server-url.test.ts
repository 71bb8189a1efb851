import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseNatsUrl } from '#lib/nats-url.ts'
import { parseRedisUrl } from '#lib/redis-url.ts'

test('a URL names one Redis, sentinels or a Redis Cluster, with account and TLS', () => {
  const single = parseRedisUrl('redis://me:p%40ss@h:7000/3')
  assert.deepEqual(
    [single.kind, single.hosts, single.username, single.password, single.database, single.tls],
    ['single', [{ host: 'h', port: 7_000 }], 'me', 'p@ss', 3, false],
  )
  assert.deepEqual(parseRedisUrl('redis://[::1]').hosts, [{ host: '::1', port: 6_379 }])
  assert.equal(parseRedisUrl('rediss://:pw@h?ca=/ca.pem').username, null)
  const sentinel = parseRedisUrl('rediss://:pw@s1,s2:1/1?sentinel=main&sentinelPassword=x&ca=/c')
  assert.deepEqual(
    [sentinel.kind, sentinel.hosts, sentinel.primaryName, sentinel.sentinelPassword],
    [
      'sentinel',
      [
        { host: 's1', port: 26_379 },
        { host: 's2', port: 1 },
      ],
      'main',
      'x',
    ],
  )
  assert.deepEqual([sentinel.tls, sentinel.caFile], [true, '/c'])
  assert.equal(parseRedisUrl('redis://h1,h2:7001?cluster=true').kind, 'cluster')
})

test('a URL that cannot be meant is refused with what is allowed, and without its text', () => {
  for (const [text, message] of [
    ['redis://', /must look like/],
    ['redis://h:0', /ports from 1/],
    ['redis://h:70000', /ports from 1/],
    ['redis://a b', /must name hosts/],
    ['redis://h1,h2', /add \?sentinel=NAME or \?cluster=true/],
    ['redis://h/x', /by its number/],
    ['redis://h1/1?cluster=true', /database 0/],
    ['redis://h?sentinel=', /name the primary/],
    ['redis://h?cluster=no', /can only be true/],
    ['redis://h?cluster=true&sentinel=x', /choose one/],
    ['redis://h?tls=true', /the option "tls"; known are/],
    ['redis://me:%zz-zebra@h', /percent sign/],
  ] as const) {
    assert.throws(
      () => parseRedisUrl(text),
      (error: Error) => message.test(error.message) && !error.message.includes('zebra'),
      text,
    )
  }
  assert.throws(() => parseRedisUrl('http://h'), /begin with redis:/)
  assert.throws(() => parseNatsUrl('http://h'), /begin with nats:/)
  assert.throws(() => parseNatsUrl('nats://h/subject'), /nothing after the hosts/)
  assert.throws(() => parseNatsUrl('nats://h?tls=1'), /known are ca/)
})

test('a URL names servers of NATS, with an account or a token', () => {
  const account = parseNatsUrl('tls://me:pw@h1,h2:4333?ca=/ca.pem')
  assert.deepEqual(
    [account.servers, account.user, account.password, account.token, account.tls, account.caFile],
    [['h1:4222', 'h2:4333'], 'me', 'pw', null, true, '/ca.pem'],
  )
  assert.deepEqual(
    [parseNatsUrl('nats://t0k@h').token, parseNatsUrl('nats://h').token],
    ['t0k', null],
  )
})
