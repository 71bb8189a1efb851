import pg from 'pg'
import { parseHosts } from '#database/postgres/host-urls.ts'

const connectTimeoutMs = 2_000
const statementTimeoutMs = 2_000

export type HostRows<Row> = { readonly host: string } & (
  | { readonly rows: readonly Row[] }
  | { readonly error: string }
)

/**
 * Runs one statement on each host of the URL, on a connection of its own, whichever role the server
 * has. For looking at servers; what it gives for a host that is away is the reason.
 */
export async function onEachHost<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
): Promise<HostRows<Row>[]> {
  return Promise.all(
    parseHosts(url).map(async ({ name, config }) => {
      const client = new pg.Client({
        ...config,
        connectionTimeoutMillis: connectTimeoutMs,
        query_timeout: statementTimeoutMs,
      })
      // Each failure is also reported by the call that it makes fail.
      client.on('error', () => undefined)
      try {
        await client.connect()
        return { host: name, rows: (await client.query<Row>(text)).rows }
      } catch (error) {
        return { host: name, error: error instanceof Error ? error.message : String(error) }
      } finally {
        client.end().catch(() => client.connection.stream.destroy())
      }
    }),
  )
}
