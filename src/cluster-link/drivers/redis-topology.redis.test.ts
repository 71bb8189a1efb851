import { test } from 'node:test'
import { linkContract } from '#cluster-link/contract.ts'
import { RedisClusterLink } from '#cluster-link/drivers/redis.ts'
import { silentLogger } from '#lib/logger.ts'
import { connectedAgain, linksAt } from '#test/support/link-survival.ts'
import { redisMissing } from '#test/support/redis.ts'
import { startRedisCluster, startSentinels } from '#test/support/redis-topology.ts'

const skip = redisMissing

const linkTo = (url: string): RedisClusterLink =>
  new RedisClusterLink({ url, identity: async () => 'c1', logger: silentLogger })

linkContract('Redis Sentinel', { skip, open: linksAt(startSentinels, ({ url }) => linkTo(url)) })
linkContract('Redis Cluster', { skip, open: linksAt(startRedisCluster, ({ url }) => linkTo(url)) })

test('Redis Sentinel: after a failover the link is at the new primary', { skip }, async () => {
  await using sentinels = await startSentinels()
  const [one, other] = [linkTo(sentinels.url), linkTo(sentinels.url)]
  await using closing = new AsyncDisposableStack()
  for (const link of [one, other]) closing.defer(() => link.close())
  await Promise.all([one.send('warm', 'x'), other.send('warm', 'x')])
  await sentinels.primary.kill()
  await sentinels.failedOver()
  await connectedAgain(one, other)
})

test('Redis Cluster: a message reaches nodes at the servers that are left', { skip }, async () => {
  await using cluster = await startRedisCluster()
  const [one, other] = [linkTo(cluster.url), linkTo(cluster.url)]
  await using closing = new AsyncDisposableStack()
  for (const link of [one, other]) closing.defer(() => link.close())
  await Promise.all([one.send('warm', 'x'), other.send('warm', 'x')])
  await cluster.servers[0]!.kill()
  await connectedAgain(one, other)
})
