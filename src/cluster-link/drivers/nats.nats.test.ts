import assert from 'node:assert/strict'
import { test } from 'node:test'
import { linkContract } from '#cluster-link/contract.ts'
import { NatsClusterLink } from '#cluster-link/drivers/nats.ts'
import { silentLogger } from '#lib/logger.ts'
import { connectedAgain, linkSurvival, linksAt } from '#test/support/link-survival.ts'
import { natsMissing, startTestNats } from '#test/support/nats.ts'
import { selfSigned } from '#test/support/redis-topology.ts'

const skip = natsMissing

const linkTo = (url: string, cluster = 'c1'): NatsClusterLink =>
  new NatsClusterLink({ url, identity: async () => cluster, logger: silentLogger })

linkContract('NATS', { skip, open: linksAt(startTestNats, ({ url }) => linkTo(url)) })
linkSurvival('NATS', { skip, start: startTestNats, linkTo })

test('NATS: a message crosses the servers of a NATS cluster; one may die', { skip }, async () => {
  await using first = await startTestNats()
  await using second = await startTestNats(['--routes', first.route])
  const one = linkTo(first.url)
  const both = `${second.url},127.0.0.1:${first.port}`
  const other = linkTo(second.url)
  const either = linkTo(both)
  await using closing = new AsyncDisposableStack()
  for (const link of [one, other, either]) closing.defer(() => link.close())
  await Promise.all([one, other, either].map((link) => link.send('warm', 'x')))
  await connectedAgain(one, other)
  await second.kill()
  await connectedAgain(one, either)
})

test(
  'NATS: TLS, accounts and tokens are asked for, and the certificate is checked',
  { skip },
  async () => {
    await using tls = await selfSigned()
    await using secured = await startTestNats(
      `--tls --tlscert ${tls.cert} --tlskey ${tls.key} --user stoa --pass sesame`.split(' '),
    )
    await using token = await startTestNats(['--auth', 's3same'])
    await using open = await startTestNats()
    const host = `127.0.0.1:${secured.port}`
    const good = [
      linkTo(`tls://stoa:sesame@${host}?ca=${tls.cert}`),
      linkTo(`nats://s3same@127.0.0.1:${token.port}`),
    ]
    const bad = [
      linkTo(`tls://stoa:sesame@${host}`),
      linkTo(`tls://stoa:wrong@${host}?ca=${tls.cert}`),
      linkTo(`nats://wrong@127.0.0.1:${token.port}`),
      linkTo(`tls://127.0.0.1:${open.port}`),
    ]
    await using closing = new AsyncDisposableStack()
    for (const link of [...good, ...bad]) closing.defer(() => link.close())
    for (const link of good) {
      await link.send('feed', 'x')
      assert.equal(link.connected, true)
      assert.doesNotMatch(link.server?.address ?? '', /sesame|s3same/)
    }
    for (const link of bad) await assert.rejects(link.send('feed', 'x'), /no connection/)
  },
)
