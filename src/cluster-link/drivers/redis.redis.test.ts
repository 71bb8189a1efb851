import assert from 'node:assert/strict'
import { test } from 'node:test'
import { linkContract } from '#cluster-link/contract.ts'
import { RedisClusterLink } from '#cluster-link/drivers/redis.ts'
import { silentLogger } from '#lib/logger.ts'
import { freePort } from '#test/support/database.ts'
import { linkSurvival, linksAt, until } from '#test/support/link-survival.ts'
import { redisMissing, startTestRedis } from '#test/support/redis.ts'
import { redisCommands, selfSigned } from '#test/support/redis-topology.ts'

const skip = redisMissing

const linkTo = (url: string, cluster = 'c1'): RedisClusterLink =>
  new RedisClusterLink({ url, identity: async () => cluster, logger: silentLogger })

linkContract('Redis', { skip, open: linksAt(startTestRedis, ({ url }) => linkTo(url)) })
linkSurvival('Redis', { skip, start: startTestRedis, linkTo })

test(
  'Redis: TLS and a password are asked for, and the certificate is checked',
  { skip },
  async () => {
    await using tls = await selfSigned()
    const port = await freePort()
    await using redis = await startTestRedis({
      port,
      settings: [
        ...`--port 0 --tls-port ${port} --tls-auth-clients no`.split(' '),
        ...`--tls-cert-file ${tls.cert} --tls-key-file ${tls.key} --requirepass`.split(' '),
        'open sesame',
      ],
    })
    const host = `127.0.0.1:${redis.port}`
    const good = linkTo(`rediss://:open%20sesame@${host}?ca=${tls.cert}`)
    const others = [
      linkTo(`rediss://:open%20sesame@${host}`),
      linkTo(`rediss://:wrong@${host}?ca=${tls.cert}`),
      linkTo(`redis://:open%20sesame@${host}`),
    ]
    await using closing = new AsyncDisposableStack()
    for (const link of [good, ...others]) closing.defer(() => link.close())
    await good.send('feed', 'x')
    assert.deepEqual([good.server?.address, good.connected], [host, true])
    for (const link of others) {
      await assert.rejects(link.send('feed', 'x'), /no connection/)
      assert.equal(link.connected, false)
    }
  },
)

test(
  'Redis: messages of strangers are dropped, and a listener that throws harms none',
  { skip },
  async () => {
    await using redis = await startTestRedis()
    const link = linkTo(redis.url)
    await using closing = new AsyncDisposableStack()
    closing.defer(() => link.close())
    const received: string[] = []
    link.listen('feed', (text) => {
      received.push(text)
      throw new Error('a defect')
    })
    link.listen('feed', (text) => void received.push(text))
    await link.send('warm', 'x')
    await redisCommands(
      redis.port,
      ['PUBLISH', 'stoa:link:c1', 'feed'],
      ['PUBLISH', 'stoa:link:c1', `feed ${'x'.repeat(1_000_000)}`],
      ['PUBLISH', 'stoa:link:c1', 'feed fine'],
    )
    await until(() => received.length === 2, 5_000, 'not received')
    assert.deepEqual(received, ['fine', 'fine'])
  },
)
