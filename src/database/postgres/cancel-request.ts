import { once } from 'node:events'
import { connect } from 'node:net'
import type pg from 'pg'

/** The code of a cancel request in PostgreSQL's protocol. */
const cancelCode = 80_877_102
const cancelMaxMs = 1_000

/** pg's types do not have these. */
type Cancellable = { readonly processID: number | null; readonly secretKey: number | null }

/**
 * Asks for the end of the statement that runs on `client`, on a connection of its own. Resolves
 * when the request has been taken, or could not be sent in time: nothing more can be done then.
 */
export async function requestCancel(client: pg.Client): Promise<void> {
  const { host, port } = client
  const { processID, secretKey } = client as unknown as Cancellable
  if (processID === null || secretKey === null) return
  const message = Buffer.alloc(16)
  for (const [at, value] of [16, cancelCode, processID, secretKey].entries())
    message.writeInt32BE(value | 0, at * 4)
  const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host)
  try {
    // Not `end`: PgBouncer forgets a request whose connection ends before it has passed it on.
    socket.resume().write(message)
    await once(socket, 'close', { signal: AbortSignal.timeout(cancelMaxMs) })
  } catch {
    // The statement ends when the server finds out by itself.
  } finally {
    socket.destroy()
  }
}
