import { resolve } from 'node:path'
import type { Config } from '#config/config.ts'
import { sql } from '#database/database.ts'
import type { Database } from '#database/database.ts'
import { DatabaseUnavailableError } from '#database/errors.ts'
import { urlOfListening } from '#embedded-postgres/embedded-postgres.ts'
import { systemClock } from '#lib/clock.ts'
import { newId } from '#lib/id.ts'
import { silentLogger } from '#lib/logger.ts'
import { commandNameOf, identityOf, openCommandDatabase, openLink } from '#node/drivers.ts'
import type { ClusterAccess } from '#node/site.ts'
import { CallSender } from '#nodes/call-sender.ts'
import { silentAfterMs } from '#nodes/cluster-status.ts'

/** One for questions, one for the replies. */
const connectionsMax = 2

const hasNodes = sql<{ there: boolean }>(
  `select to_regclass('stoa.node_call') is not null as there`,
)

/** For commands that look at the nodes, from any machine that has the configuration. */
export async function openCluster(config: Config): Promise<ClusterAccess | null> {
  const url = config.databaseUrl ?? (await urlOfListening(resolve(config.data)))
  if (url === null) return null
  const logger = silentLogger
  await using opened = new AsyncDisposableStack()
  const database = openCommandDatabase({ config, url, logger }, connectionsMax)
  opened.defer(() => database.close())
  if (!(await anyNodes(database, config.databaseUrl === null))) return null
  const link = await openLink({
    url: config.databaseDirectUrl ?? url,
    linkUrl: config.linkUrl,
    identity: identityOf(database),
    applicationName: `${commandNameOf()} link`,
    logger,
  })
  opened.defer(() => link.close())
  const sender = new CallSender({
    id: newId(),
    database,
    link,
    clock: systemClock,
    logger,
    isGone: (_node, _counter, silentMs) => silentMs > silentAfterMs,
  })
  opened.defer(() => sender.stop())
  const closing = opened.move()
  return {
    database,
    ask: async (method, { deadlineMs }, payload = null) =>
      (await sender.send(method, payload, { deadlineMs, only: null })).replies,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  }
}

async function anyNodes(database: Database, embedded: boolean): Promise<boolean> {
  try {
    const [row] = await database.run(hasNodes)
    return row?.there === true
  } catch (error) {
    // The embedded database ends with its node.
    if (embedded && error instanceof DatabaseUnavailableError) return false
    throw error
  }
}
