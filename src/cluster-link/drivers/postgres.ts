import type pg from 'pg'
import { ReconnectingLink } from '#cluster-link/reconnecting-link.ts'
import type { LinkConnection, LinkEvents } from '#cluster-link/reconnecting-link.ts'
import type { Logger } from '#lib/logger.ts'

export type PostgresClusterLinkOptions = {
  /**
   * Opens a connection to the primary, where alone LISTEN works, or rejects within its deadline.
   * The link closes it.
   */
  readonly connect: () => Promise<pg.Client>
  readonly logger: Logger
}

const channelName = 'stoa_link'
const statementTimeoutMs = 2_000

/**
 * LISTEN and NOTIFY on one connection of its own, outside any transaction: a NOTIFY inside the
 * transaction of a write would take a lock that all writers share (R2). It carries only what is
 * sent in the same database.
 */
export class PostgresClusterLink extends ReconnectingLink {
  constructor({ connect, logger }: PostgresClusterLinkOptions) {
    super(async (events) => openConnection(await connect(), events), logger)
  }
}

async function openConnection(
  client: pg.Client,
  { receive, lost }: LinkEvents,
): Promise<LinkConnection> {
  const connection: LinkConnection = {
    publish: (message) =>
      run(client, {
        name: 'stoa_link_send',
        text: 'select pg_notify($1, $2)',
        values: [channelName, message],
      }),
    probe: () => run(client, { name: 'stoa_link_probe', text: 'select 1' }),
    close: () => client.end(),
    destroy: () => client.connection.stream.destroy(),
    server: { driver: 'postgres', address: `${client.host}:${client.port}`, version: null },
  }
  client.on('error', (error) => lost(connection, error))
  client.on('end', () => lost(connection, null))
  client.on('notification', ({ payload = '' }) => receive(payload))
  try {
    await run(client, { text: `listen ${channelName}` })
  } catch (error) {
    connection.destroy()
    throw error
  }
  return connection
}

async function run(client: pg.Client, query: pg.QueryConfig): Promise<void> {
  await client.query({ ...query, query_timeout: statementTimeoutMs } as pg.QueryConfig)
}
