import type { ClusterParts, RoutePlugin } from '#api/api-context.ts'
import { Cache } from '#cache/cache.ts'
import { AppliedLog } from '#change-feed/applied-log.ts'
import { ChangeFeed } from '#change-feed/feed.ts'
import { PostgresClusterLink } from '#cluster-link/drivers/postgres.ts'
import { RowTexts } from '#content/query/row-texts.ts'
import { PostgresDatabase } from '#database/postgres/postgres-database.ts'
import { primaryConnector } from '#database/postgres/primary-connector.ts'
import { systemClock as clock } from '#lib/clock.ts'
import { silentLogger } from '#lib/logger.ts'
import type { Logger } from '#lib/logger.ts'
import type { CallReply } from '#nodes/calls.ts'
import { NodeCalls } from '#nodes/node-calls.ts'
import { Nodes } from '#nodes/nodes.ts'
import { checks } from '#doctor/checks.ts'
import { diagnose, doctorMethod, inspectHere } from '#doctor/doctor.ts'
import { testSurroundings } from '#test/support/doctor.ts'
import type { TestDatabase } from '#test/support/database.ts'

/** The cluster half of a node, without a node: real feed, cache, link and calls. */
export function testCluster(
  { database, url }: TestDatabase,
  logger: Logger = silentLogger,
): ClusterParts & AsyncDisposable & { readonly nodes: Nodes } {
  const feedDatabase = new PostgresDatabase({
    url,
    connectionsMax: 5,
    statementTimeoutMs: 5_000,
    connectTimeoutMs: 5_000,
    logger,
  })
  const link = new PostgresClusterLink({
    connect: primaryConnector({ url, applicationName: 'stoa test link' }),
    logger,
  })
  const feed = new ChangeFeed({ database: feedDatabase, link, clock, logger })
  const cache = new Cache({ feed, database })
  const applied = new AppliedLog(feed, clock)
  const nodes = new Nodes({
    database: feedDatabase,
    info: { name: 'test', address: null, version: '0', fingerprint: '' },
    clock,
    logger,
  })
  const calls = new NodeCalls({ nodes, database: feedDatabase, link, clock, logger })
  const here = testSurroundings({ database, link })
  calls.handle(doctorMethod, () => inspectHere(checks, 'node', here))
  const ask = (method: string, options: { deadlineMs: number }): Promise<CallReply[]> =>
    calls.onAll(method, null, options)
  return {
    feed,
    cache,
    link,
    applied,
    calls,
    nodes,
    texts: new RowTexts(1_000_000),
    duties: () => nodes.duties(),
    findings: () => diagnose({ checks, here, name: null, ask }),
    [Symbol.asyncDispose]: async () => {
      cache.close()
      await calls.stop()
      await nodes.leave()
      applied[Symbol.dispose]()
      await feed.stop()
      await link.close()
      await feedDatabase.close()
    },
  }
}

/** Ends the cluster half with the server that uses it. */
export function closingCluster(cluster: AsyncDisposable): RoutePlugin {
  return (server) => {
    server.addHook('onClose', async () => cluster[Symbol.asyncDispose]())
  }
}
